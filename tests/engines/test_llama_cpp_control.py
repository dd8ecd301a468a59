"""The patched llama.cpp behind a gateway: that it decides at each step is found, and what each drafter did is kept."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from benchmarks.llama_server import LlamaServer
from tests.conftest import StartGateway
from tests.patient import until

from paceline.engines.llama_cpp_build import build
from paceline.paths import cache_directory

pytestmark = pytest.mark.engines

CODE = "def add(left, right):\n    total = left + right\n    return total\n\n\n"
EDIT = f"Rename the function add to plus and print the whole file again.\n```python\n{CODE * 3}```"
LOOKUP = ("--spec-type", "ngram-simple,draft-simple", "--spec-ngram-simple-size-n", "3")
DRAFT = ("--spec-ngram-simple-size-m", "12", "--spec-draft-n-max", "4", "--parallel", "2", "-t", "1", "-td", "1")
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses", "/completion")


def program() -> str:
    if not (shutil.which("c++") or shutil.which("clang++")):
        pytest.skip("no C++ compiler")
    return build(cache_directory()).server


async def test_it_decides_at_each_step_and_tells_what_each_drafter_did(
    model: Path, start_gateway: StartGateway
) -> None:
    server = LlamaServer(program(), model, *LOOKUP, *DRAFT, "-md", str(model))  # the model drafts for itself
    try:
        await _decides(server, start_gateway)
    finally:
        server.stop()


async def _decides(server: LlamaServer, start_gateway: StartGateway) -> None:
    running = await start_gateway(
        f'[[engine]]\nname = "gpu"\nkind = "llama.cpp"\nurl = "{server.http.base_url}"\nstrategy = "ngram"\n'
    )
    await until(lambda: running.gateway.fleet.engines["gpu"].is_up)
    assert list(running.gateway.fleet.lanes) == ["gpu/plain", "gpu/ngram", "gpu/draft", "gpu/all"]
    number = 0
    for path in PATHS:
        for stream in (False, True):
            ask: dict[str, Any] = {"model": "smol", "prompt": EDIT, "input": EDIT, "temperature": 0, "stream": stream}
            ask |= {"messages": [{"role": "user", "content": EDIT}], "max_tokens": 48, "cache_prompt": False}
            ask |= {"max_output_tokens": 48, "n_predict": 48}
            for lane, kinds in (("plain", set()), ("ngram", {"ngram"}), ("all", {"ngram", "draft"})):
                headers = {"x-paceline-lane": f"gpu/{lane}"}
                answer = await running.http.post(path, json=ask, headers=headers, timeout=120)
                assert answer.status_code == 200, answer.text
                number += 1
                observed = (await running.outcome_number(number)).observed
                assert observed.by_drafter.keys() <= kinds
                assert sum(each.accepted for each in observed.by_drafter.values()) == (observed.accepted or 0)
                if kinds:
                    assert any(each.steps or each.shadow for each in observed.by_drafter.values())
