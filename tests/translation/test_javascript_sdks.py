"""The SDKs for JavaScript, with their own helpers, before providers that speak the other dialect."""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.translation.conftest import StartProvider
from tests.translation.recorded import CALL, CHAT_STREAM, COMPLETION, MESSAGE, MESSAGE_STREAM

pytestmark = [
    pytest.mark.javascript,
    pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="there is no node with npm"),
]
ASK = Path(__file__).with_name("ask.mjs")
SDKS = ("openai@6", "@anthropic-ai/sdk")
SAID = "I'll look – 今日は?"


@pytest.fixture(scope="module")
def installed() -> Path:
    """A folder with the SDKs, which is kept from one run to the next."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "paceline-tests" / "javascript"
    if not (folder / "node_modules" / "@anthropic-ai" / "sdk").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        words = ("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), *SDKS)
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            pytest.skip(f"npm can't install the SDKs: {done.stderr[-300:]}")
    return folder


async def told(folder: Path, url: str, which: str) -> Any:
    process = await asyncio.create_subprocess_exec(
        "node", str(ASK), str(folder), url, which, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    async with asyncio.timeout(60):
        out, problems = await process.communicate()
    assert process.returncode == 0, problems.decode()
    return json.loads(out)


async def test_openais_before_anthropic(installed: Path, start_provider: StartProvider) -> None:
    provider = await start_provider("anthropic-api", MESSAGE, MESSAGE_STREAM)
    chat, response = [SAID, "get_weather", CALL, "tool_calls"], [SAID, "get_weather", CALL, "completed"]
    assert await told(installed, provider.gateway.url, "openai") == {
        "whole": chat,
        "stream": chat,
        "response": response,
        "response stream": response,
    }


async def test_anthropics_before_chat(installed: Path, start_provider: StartProvider) -> None:
    provider = await start_provider("openai-api", COMPLETION, CHAT_STREAM)
    message = [SAID, "get_weather", CALL, "tool_use"]
    assert await told(installed, provider.gateway.url, "anthropic") == {"whole": message, "stream": message}
