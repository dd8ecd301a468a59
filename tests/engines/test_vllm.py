"""vLLM with Paceline's scheduler: a draft length per request, on the real vLLM on a CPU. Installs it the first time."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from benchmarks.engine_environments import in_transformers_format, vllm_python
from benchmarks.vllm_server import LONGEST, NGRAM
from tests.conftest import StartGateway

from benchmarks import vllm_server
from paceline.processes.launch import free_port

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(platform.machine() != "x86_64" or platform.system() != "Linux", reason="no vLLM for this CPU"),
]

CODE = "def add(left, right):\n    total = left + right\n    return total\n\n\n"
EDIT = f"Rename the function add to plus and print the whole file again.\n```python\n{CODE * 3}```"
STORY = "Tell me a story about a lighthouse keeper who finds a map."
N_MAX, MIN_YIELD, CONTROL = "paceline_n_max", "paceline_min_yield", "paceline_control"


class Vllm:
    """A running ``vllm serve``."""

    def __init__(self, model: Path, speculative: dict[str, Any], *flags: str, log: Path) -> None:
        port = free_port()
        command = [*vllm_server.command(model, speculative, str(port)), *flags]
        environment = os.environ | vllm_server.ENVIRONMENT
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx2.Client(base_url=self.url, timeout=300, trust_env=False)
        deadline_s = time.monotonic() + 300
        while not self._is_up():
            assert self.process.poll() is None, log.read_text()[-6000:]
            assert time.monotonic() < deadline_s, log.read_text()[-6000:]
            time.sleep(0.5)

    def chat(
        self, text: str, arguments: Mapping[str, float | str] | None = None, max_tokens: int = 64
    ) -> tuple[str, dict[str, Any]]:
        """The text and the draft counts of an answer at temperature 0."""
        body = {
            "model": "smol",
            "messages": [{"role": "user", "content": text}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "vllm_xargs": arguments or {},
        }
        answer = self.http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        document = answer.json()
        return document["choices"][0]["message"]["content"], document["metrics"]["speculative_decoding"]

    def stop(self) -> None:
        self.http.close()
        self.process.terminate()
        self.process.wait(60)

    def _is_up(self) -> bool:
        try:
            return self.http.get("/health").status_code == 200
        except httpx2.TransportError:
            return False


@pytest.fixture(scope="module")
def vllm(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    one = Vllm(model, NGRAM, log=tmp_path_factory.mktemp("vllm") / "vllm.log")
    yield one
    one.stop()


def test_no_draft_is_longer_than_asked_for(vllm: Vllm) -> None:
    free, counts = vllm.chat(EDIT)
    assert counts["num_draft_tokens"] > 2 * counts["num_spec_steps"] > 0
    for cap in (0, 1, 3):
        text, counts = vllm.chat(EDIT, {N_MAX: cap})
        assert counts["num_draft_tokens"] <= cap * counts["num_spec_steps"]
        assert (counts["num_draft_tokens"] > 0) is (cap > 0)
        assert text == free


def test_requests_with_different_caps_run_side_by_side(vllm: Vllm) -> None:
    ways: list[dict[str, Any]] = [{N_MAX: 0}, {N_MAX: 2}, {}, {MIN_YIELD: 1.5}]
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(vllm.chat, text, way) for text in (EDIT, STORY, EDIT) for way in ways]
        answers = [one.result() for one in asked]
    for (text, counts), way in zip(answers, ways * 3, strict=True):
        assert text
        assert counts["num_draft_tokens"] <= way.get(N_MAX, LONGEST) * counts["num_spec_steps"]
    assert answers[2][1]["num_draft_tokens"] > answers[1][1]["num_draft_tokens"] > 0


def test_drafting_pauses_while_it_does_not_pay(vllm: Vllm) -> None:
    free = vllm.chat(EDIT)[1]
    guarded = vllm.chat(EDIT, {MIN_YIELD: LONGEST + 2})[1]  # more than a step can yield
    assert guarded["num_spec_steps"] <= 1 + 1 + 1
    assert free["num_spec_steps"] > guarded["num_spec_steps"]
    assert vllm.chat(EDIT, {MIN_YIELD: 1.2})[1]["num_spec_steps"] > guarded["num_spec_steps"]


def control(cost: float, acceptance: float, longest: int = LONGEST) -> dict[str, Any]:
    """That verifying any draft costs so much, and so much is accepted."""
    return {CONTROL: json.dumps({"costs": [cost] * longest, "acceptance": [acceptance], "weight": 6})}


def test_control_decides_how_far_is_verified(vllm: Vllm) -> None:
    free, counts = vllm.chat(EDIT)
    for cost, acceptance in ((1.0, 0.9), (1.3, 0.6), (1.3, 0.2), (50.0, 0.9)):
        text, controlled = vllm.chat(EDIT, control(cost, acceptance))
        assert text == free
        if cost == 50:
            assert controlled["num_draft_tokens"] == 0
        elif acceptance == 0.9:
            assert controlled["num_draft_tokens"] > 0.8 * counts["num_draft_tokens"]
        else:  # from a low prior, too: what was cut was right
            assert controlled["num_accepted_draft_tokens"] > counts["num_accepted_draft_tokens"] / 3
    assert vllm.chat(EDIT, control(1.0, 0.9) | {N_MAX: 2})[1]["num_draft_tokens"] > 0
    assert vllm.chat(EDIT, {CONTROL: "nonsense"})[1]["num_draft_tokens"] == counts["num_draft_tokens"]


def test_control_of_a_story_costs_little(vllm: Vllm) -> None:
    """In plain steps, as the costs say: a story of which hardly anything is accepted."""
    costs = [1.3 + 0.1 * length for length in range(LONGEST)]
    given = {CONTROL: json.dumps({"costs": costs, "acceptance": [0.7], "weight": 6})}
    _, counts = vllm.chat(STORY, given, max_tokens=200)
    lost = counts["num_draft_tokens"] * 0.1 + counts["num_spec_steps"] * 0.3 - counts["num_accepted_draft_tokens"]
    assert lost <= 0.05 * 200


async def test_the_gateway_offers_lanes_and_keeps_its_own_question_to_itself(
    vllm: Vllm, start_gateway: StartGateway
) -> None:
    running = await start_gateway(
        f'[[engine]]\nname = "v"\nkind = "vllm"\nurl = "{vllm.url}"\nstrategy = "ngram"\nn_max = {LONGEST}\n'
        "draft_control = false\n"
    )
    assert list(running.gateway.fleet.lanes) == ["v/plain", "v/ngram-1", "v/ngram-2", "v/ngram-3", "v/ngram-6"]
    client = openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)
    number = 0
    for lane in ("v/plain", "v/ngram-6"):
        for wants_usage in (False, True):
            stream = await client.chat.completions.create(
                model="smol",
                messages=[{"role": "user", "content": EDIT}],
                max_tokens=48,
                temperature=0,
                stream=True,
                stream_options={"include_usage": True} if wants_usage else openai.omit,
                extra_headers={"x-paceline-lane": lane},
            )
            chunks = [chunk async for chunk in stream]
            assert any(chunk.usage for chunk in chunks) is wants_usage
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
            number += 1
            outcome = await running.outcome_number(number)
            assert outcome.lane == lane
            seen = outcome.observed
            assert seen.completion_tokens == 48
            assert seen.decode_tokens == 47
            assert seen.decode_s
            if lane == "v/plain":
                assert seen.drafted is None
            else:
                assert seen.drafted is not None
                assert seen.drafting_steps is not None
                assert seen.drafted >= seen.drafting_steps > 0
                assert seen.accepted == sum(seen.accepted_by_position) == seen.by_drafter["ngram"].accepted
    calls: dict[str, dict[str, Any]] = {
        "/v1/messages": {"max_tokens": 16, "messages": [{"role": "user", "content": EDIT}]},
        "/v1/responses": {"max_output_tokens": 16, "input": EDIT},
        "/v1/completions": {"max_tokens": 16, "prompt": CODE * 3},
    }
    for path, body in calls.items():
        answer = await running.http.post(path, json={"model": "smol"} | body, headers={"x-paceline-lane": "v/ngram-2"})
        assert answer.status_code == 200, answer.text


async def test_the_gateway_has_the_engine_control_its_drafts(vllm: Vllm, start_gateway: StartGateway) -> None:
    running = await start_gateway(
        f'[[engine]]\nname = "v"\nkind = "vllm"\nurl = "{vllm.url}"\nstrategy = "ngram"\nn_max = {LONGEST}\n'
    )
    assert list(running.gateway.fleet.lanes) == ["v/plain", "v/ngram"]
    assert running.gateway.fleet.engines["v"].supervisor.warnings == ()
    body = {"model": "smol", "messages": [{"role": "user", "content": EDIT}], "max_tokens": 64, "temperature": 0}
    texts = []
    for number, lane in enumerate(("v/plain", "v/ngram")):
        answer = await running.http.post("/v1/chat/completions", json=body, headers={"x-paceline-lane": lane})
        texts.append(answer.json()["choices"][0]["message"]["content"])
        seen = (await running.outcome_number(number + 1)).observed
        assert list(seen.by_drafter) == (["ngram"] if number else [])
    assert texts[0] == texts[1]


def test_caps_hold_where_steps_are_scheduled_ahead(model: Path, tmp_path: Path) -> None:
    """The model as its own draft model, so that every draft is accepted."""
    vllm_python()
    speculative = {"method": "draft_model", "model": str(in_transformers_format(model)), "num_speculative_tokens": 4}
    one = Vllm(model, speculative, "--async-scheduling", log=tmp_path / "vllm.log")
    try:
        free, counts = one.chat(STORY, max_tokens=24)
        assert counts["num_draft_tokens"] == 4 * counts["num_spec_steps"] > 0
        for cap in (0, 2):
            text, counts = one.chat(STORY, {N_MAX: cap}, max_tokens=24)
            assert counts["num_draft_tokens"] == cap * counts["num_spec_steps"]
            assert text == free
        assert one.chat(STORY, {MIN_YIELD: 9}, max_tokens=24)[1]["num_spec_steps"] <= 4
        for cost, acceptance, least, most in ((1.0, 0.9, 0.7, 1.0), (50.0, 0.9, 0.0, 0.0), (1.2, 0.3, 0.1, 1.0)):
            text, controlled = one.chat(STORY, control(cost, acceptance, 4), max_tokens=64)
            free, counts = one.chat(STORY, max_tokens=64)
            assert text == free
            share = controlled["num_draft_tokens"] / counts["num_draft_tokens"]
            assert least <= share <= most, (cost, acceptance)
    finally:
        one.stop()
