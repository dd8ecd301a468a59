"""mlx-lm's server with a draft model, the real one on a CPU (where it is slow: a few tokens per second)."""

import itertools
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from benchmarks.engine_environments import in_transformers_format, mlx_python, vllm_python
from openai.types.chat import ChatCompletionMessageParam
from tests.conftest import StartGateway

from paceline.processes.launch import free_port

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(platform.machine() != "x86_64" or platform.system() != "Linux", reason="no vLLM for this CPU"),
]

COUNT: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Count from 1 to 20."}]


@pytest.fixture(scope="module")
def mlx_lm(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running server, whose model is its own draft model."""
    vllm_python()
    folder, port = str(in_transformers_format(model)), free_port()
    home = tmp_path_factory.mktemp("huggingface")
    (home / "hub").mkdir()
    log = home / "log"
    command = [
        *(str(mlx_python()), "-m", "mlx_lm", "server", "--model", folder, "--draft-model", folder),
        *("--num-draft-tokens", "4", "--port", str(port)),
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=os.environ | {"HF_HOME": str(home)}, stdout=out, stderr=out)
    url = f"http://127.0.0.1:{port}"
    deadline_s = time.monotonic() + 120
    with httpx2.Client(base_url=url, timeout=120, trust_env=False) as http:
        while True:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline_s, log.read_text()[-3000:]
            try:
                http.get("/health").raise_for_status()
                break
            except httpx2.TransportError:
                time.sleep(0.5)
    yield url
    process.terminate()
    process.wait(20)


async def test_a_draft_length_per_request(mlx_lm: str, start_gateway: StartGateway) -> None:
    running = await start_gateway(
        f'[[engine]]\nname = "m"\nkind = "mlx-lm"\nurl = "{mlx_lm}"\nstrategy = "draft"\nn_max = 4\ncaps = [2, 4]\n'
    )
    assert list(running.gateway.fleet.lanes) == ["m/plain", "m/draft-2", "m/draft-4"]
    engine = running.gateway.fleet.engines["m"]
    assert engine.supervisor.warnings == ()
    client = openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=120)
    model = next(iter(engine.models))
    for number, lane in enumerate(running.gateway.fleet.lanes):
        stream = await client.chat.completions.create(
            model=model,
            messages=COUNT,
            max_tokens=8,
            temperature=0,
            stream=True,
            extra_headers={"x-paceline-lane": lane},
        )
        chunks = [chunk async for chunk in stream]
        assert not any(chunk.usage for chunk in chunks)
        outcome = await running.outcome_number(number + 1)
        seen = outcome.observed
        assert (outcome.lane, outcome.error, seen.completion_tokens, seen.drafted) == (lane, None, 8, None)
        assert seen.decode_s


def test_the_server_reads_the_length_from_each_request(mlx_lm: str) -> None:
    """By effect: the longer the drafts, the more tokens come at once."""
    together = {}
    for length in (0, 4):
        asked: dict[str, Any] = {
            "messages": COUNT,
            "max_tokens": 16,
            "temperature": 0,
            "stream": True,
            "num_draft_tokens": length,
        }
        at_s = []
        with (
            httpx2.Client(base_url=mlx_lm, timeout=120, trust_env=False) as http,
            http.stream("POST", "/v1/chat/completions", json=asked) as answer,
        ):
            at_s = [time.monotonic() for line in answer.iter_lines() if line.startswith("data: {")]
        gaps = sorted(later - earlier for earlier, later in itertools.pairwise(at_s))
        together[length] = sum(gap < gaps[-1] / 5 for gap in gaps)
    assert together[4] > together[0]
