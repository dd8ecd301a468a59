"""Replicas with real engines on one machine: two kinds of them, deaths under load, and autoscaling."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from examples.ray_serve.application import application
from openai import OpenAI
from tests.patient import wait_until
from tests.scale.ray_serve.conftest import Deploy, Deployed

from paceline.engines.llama_cpp_build import usable
from paceline.paths import cache_directory

STORY = "Tell me a story about a lighthouse."
EDIT = (
    "Repeat this file as it is, and nothing else:\n```\n" + "".join(f"x{i} = x{i} + {i}\n" for i in range(20)) + "```"
)
BUILT = pytest.mark.skipif(
    usable(cache_directory()) is None, reason="needs the server of `paceline engine build`, as `make test-engines` does"
)


def chat(text: str, **more: Any) -> dict[str, Any]:
    asked = {"model": "smol", "messages": [{"role": "user", "content": text}], "max_tokens": 24, "temperature": 0}
    return asked | more


def ask(deployed: Deployed, text: str, **more: Any) -> Any:
    return deployed.http.post("/v1/chat/completions", json=chat(text, **more))


def answered(answer: Any) -> str:
    """The text of a whole answer or a stream.

    Raises:
        AssertionError: it is neither, or not whole.
    """
    assert answer.status_code == 200, answer.text
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return str(answer.json()["choices"][0]["message"]["content"])
    assert answer.text.rstrip().endswith("data: [DONE]"), answer.text[-200:]
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    return "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"])


@pytest.fixture(scope="module")
def two_kinds(deploy: Deploy, model: Path) -> Deployed:
    """Two replicas of the embedded engine: one decodes plainly, one looks up."""
    arguments = {"replicas": 2, "model": str(model), "server": "embedded", "seed": 1, "exploration": 0.05}
    return deploy(application(arguments | {"shared": "kinds"}), "kinds")


def test_edits_go_to_the_replica_that_looks_up_once_that_is_learned(two_kinds: Deployed) -> None:
    lanes: dict[str, list[str]] = {STORY: [], EDIT: []}
    texts: dict[str, set[str]] = {STORY: set(), EDIT: set()}
    for number in range(10):
        for text in lanes:
            answer = ask(two_kinds, text, stream=number % 2 == 1)
            texts[text].add(answered(answer))
            lanes[text].append(answer.headers["x-paceline-lane"])
    assert lanes[EDIT][-5:].count("lookup/ngram") >= 4, lanes
    assert {len(each) for each in texts.values()} == {1}, "the same text by either lane, streamed or not"
    assert "ms/token" in ask(two_kinds, STORY).headers["x-paceline-reason"], "what replicas measured has come back"


def test_openais_client_is_served(two_kinds: Deployed) -> None:
    client = OpenAI(base_url=f"{two_kinds.url}/v1", api_key="none")
    assert [one.id for one in client.models.list()] == ["smol"]
    asked: Any = chat(STORY)
    whole = client.chat.completions.create(**asked).choices[0].message.content
    stream = client.chat.completions.create(**asked, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == whole
    assert two_kinds.http.post("/v1/chat/completions", content=b"{").status_code == 400
    assert two_kinds.http.post("/v1/chat/completions", json={"model": "smol"}).status_code == 400
    assert two_kinds.http.get("/v1/nothing").status_code == 404


@pytest.mark.parametrize("what", ["engine", "replica"])
def test_no_request_is_lost_when_a_replica_or_its_engine_is_killed(two_kinds: Deployed, what: str) -> None:
    victim = ask(two_kinds, EDIT).headers["x-paceline-replica"]
    with ThreadPoolExecutor(6) as clients:
        asked = [clients.submit(ask, two_kinds, (STORY, EDIT)[number % 2]) for number in range(12)]
        wait_until(lambda: sum(each.done() for each in asked) >= 2, within_s=60)
        if what == "replica":
            os.kill(two_kinds.pid("engines", victim), signal.SIGKILL)
        else:
            engine_of(two_kinds, victim).kill()
        answers = [each.result(timeout=120) for each in asked]
    assert [answer.status_code for answer in answers] == [200] * 12, [answer.text[:200] for answer in answers]
    assert all(answered(answer) for answer in answers)


def engine_of(deployed: Deployed, replica: str) -> psutil.Process:
    """The process of a replica's engine."""
    (engine,) = [
        child
        for child in psutil.Process(deployed.pid("engines", replica)).children(recursive=True)
        if "paceline.engines.embedded" in child.cmdline()
    ]
    return engine


@BUILT
def test_a_replica_that_is_added_under_load_starts_from_what_its_sibling_taught(deploy: Deploy, model: Path) -> None:
    deployed = deploy(application({"model": str(model), "seed": 1, "shared": "scaling"}), "scaling")
    first = {ask(deployed, text).headers["x-paceline-replica"] for text in (STORY, EDIT) for _ in range(3)}
    assert len(first) == 1
    new: list[Any] = []

    def load(text: str) -> None:
        while not new:
            answer = ask(deployed, text)
            assert answer.status_code == 200, answer.text
            if answer.headers["x-paceline-replica"] not in first:
                new.append(answer)

    with ThreadPoolExecutor(6) as clients:
        loads = [clients.submit(load, (STORY, EDIT)[number % 2]) for number in range(6)]
        try:
            wait_until(lambda: new or any(each.done() for each in loads), within_s=120)
        finally:
            new.append(None)  # which ends the others
        for each in loads:
            each.result(timeout=120)
    reasons = [answer.headers["x-paceline-reason"] for answer in new if answer is not None]
    assert reasons
    assert all("ms/token" in reason for reason in reasons), reasons
    assert not any("measured first" in reason for reason in reasons), reasons
