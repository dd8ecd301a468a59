"""A deployment that decodes by itself and derives from PacelineReplica: routed, told, and learned from."""

import time
from typing import Any

import pytest
import ray
from ray import serve
from tests.patient import wait_until
from tests.scale.ray_serve.conftest import Deploy, Deployed
from tests.scale.ray_serve.deployments import Decoder

from paceline.integrations.ray_serve import router_config

STORY = {"messages": [{"role": "user", "content": "Tell me a story about a lighthouse."}]}
EDIT = {"messages": [{"role": "user", "content": "Rename x to y in this file:\n```\n" + "x = x + 1\n" * 40 + "```"}]}

MOMENT_S = 3.0
"""Three looks at what the others tell."""


@pytest.fixture(scope="module")
def decoder(deploy: Deploy) -> Deployed:
    deployment = serve.deployment(
        Decoder,
        num_replicas=2,
        request_router_config=router_config(seed=1, shared="own", exploration=0),
        max_ongoing_requests=8,
    )
    return deploy(deployment.options(ray_actor_options={"num_cpus": 0}).bind(), "own")


def ask(deployed: Deployed, body: Any) -> dict[str, Any]:
    answer: dict[str, Any] = deployed.handle.remote(body).result(timeout_s=30)
    return answer


def test_stories_are_decoded_plainly_and_edits_by_lookup_once_that_is_learned(decoder: Deployed) -> None:
    for _ in range(20):
        ask(decoder, STORY)
        ask(decoder, EDIT)
    wait_until(lambda: "ms/token" in ask(decoder, STORY)["reason"], within_s=10)
    stories = [ask(decoder, STORY)["lane"] for _ in range(10)]
    edits = [ask(decoder, EDIT)["lane"] for _ in range(10)]
    assert stories.count("decoder/plain") >= 9, stories
    assert edits.count("decoder/ngram-8") >= 9, edits


def test_a_router_that_is_new_knows_what_the_others_have_learned(decoder: Deployed) -> None:
    for _ in range(20):
        ask(decoder, STORY)
        ask(decoder, EDIT)
    lanes = ray.get(ray.remote(asked_elsewhere).options(num_cpus=0).remote(), timeout=60)
    assert lanes == ["decoder/plain", "decoder/ngram-8"] * 3


def asked_elsewhere() -> list[str]:
    """In a process of its own: the lanes of the first requests that a router decides on, after a moment in which it
    was told what others know."""
    handle = serve.get_deployment_handle("Decoder", "own")
    handle.remote(STORY).result(timeout_s=30)
    time.sleep(MOMENT_S)
    return [handle.remote(body).result(timeout_s=30)["lane"] for body in (STORY, EDIT) * 3]


def test_the_actor_that_is_shared_may_be_lost(decoder: Deployed) -> None:
    for _ in range(20):
        ask(decoder, STORY)
        ask(decoder, EDIT)
    ray.kill(ray.get_actor("own", namespace="paceline"))
    for _ in range(20):
        assert ask(decoder, STORY)["lane"]
        assert ask(decoder, EDIT)["lane"] == "decoder/ngram-8"
    wait_until(lambda: is_there("own"), within_s=20)


def is_there(actor: str) -> bool:
    ask_again = ray.util.list_named_actors(all_namespaces=True)
    return {"name": actor, "namespace": "paceline"} in ask_again


def test_what_paceline_says_stands_in_the_body_and_not_among_its_fields(decoder: Deployed) -> None:
    assert ask(decoder, STORY)["said"] == ["paceline"]
    assert ask(decoder, STORY | {"paceline": "of the client's"})["said"] == ["paceline"]


def test_a_call_that_is_no_generation_request_is_served_all_the_same(decoder: Deployed) -> None:
    with pytest.raises(KeyError, match="messages"):  # which is the deployment's own error
        ask(decoder, {"something": "else"})
    assert ask(decoder, STORY)["lane"]
