"""llama.cpp's server, stock builds: the strategy is set at start, so one lane per process."""

import difflib
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from paceline.engines import embedded
from paceline.engines.interface import Facts, LaunchError, NotReady, put_port
from paceline.engines.observation import Observer
from paceline.engines.openai import fetch_json, fetch_models
from paceline.http_client import Client
from paceline.types import Request, Strategy

DRAFTER_OF_STRATEGY = {
    "ngram": "ngram",
    "draft": "draft-simple",
    "eagle3": "draft-eagle3",
    "mtp": "draft-mtp",
    "dflash": "draft-dflash",
}
"""How the names in ``speculative.types`` of a completion begin."""
RENAMED_FLAGS = (
    {"--draft-max", "--draft", "--spec-draft-n-max"},
    {"--draft-min", "--spec-draft-n-min"},
    {"--draft-p-min", "--spec-draft-p-min"},
    {"--model-draft", "--spec-draft-model"},
)
"""Names that one setting has had in different builds (llama.cpp #22397)."""


class LlamaCpp:
    async def probe(self, client: Client) -> Facts:
        props = await fetch_json(client, "/props")
        if not isinstance(props, dict):
            raise NotReady("/props answers with no object; is this llama.cpp?")
        models: dict[str, Any] = dict(await fetch_models(client))
        settings = props.get("default_generation_settings")
        context = settings.get("n_ctx") if isinstance(settings, dict) else None
        slots, build = props.get("total_slots"), props.get("build_info")
        return Facts(
            models=models,
            build=build if isinstance(build, str) else None,
            context_tokens=context if isinstance(context, int) else None,
            slots=slots if isinstance(slots, int) and slots > 0 else None,
        )

    async def contradictions(self, client: Client, strategy: Strategy) -> tuple[str, ...]:
        """By effect, not by claim: ``/props`` says ``none`` even where a drafter is loaded, so one token is
        decoded and the drafters named in its settings are read."""
        answer = await fetch_json(client, "/completion", b'{"prompt":"1","n_predict":1,"cache_prompt":false}', 60.0)
        settings = answer.get("generation_settings") if isinstance(answer, dict) else None
        types = settings.get("speculative.types") if isinstance(settings, dict) else None
        if not isinstance(types, str):
            return ()  # an older build does not say
        loaded = [name.strip() for name in types.split(",") if name.strip() not in ("", "none")]
        if strategy.kind == "autoregressive":
            wrong = loaded != []
        else:
            wanted = DRAFTER_OF_STRATEGY[strategy.kind]
            wrong = not any(name.startswith(wanted) for name in loaded)
        if not wrong:
            return ()
        return (f"its strategy is configured as {strategy.kind}, but it drafts by: {', '.join(loaded) or 'nothing'}",)

    def prepare(self, request: Request, strategy: Strategy) -> bytes:
        return request.body

    def observe(self, request: Request, strategy: Strategy) -> Observer:
        return Observer(request.stream, counts_drafts=strategy.drafts)

    def launch(self, command: Sequence[str], port: int) -> tuple[str, ...]:
        program, *words = put_port(command, port)
        if program == embedded.NAME:
            embedded.check(words)
            return (sys.executable, "-m", embedded.__name__, *words)
        path = shutil.which(program)
        if path is None:
            raise LaunchError(f"there is no program {program!r}")
        if Path(path).name.startswith("llama-server"):
            check_flags(path, words)
        return (path, *words)


def check_flags(program: str, words: Sequence[str]) -> None:
    """Check flags against ``--help`` of the build at hand; a flag that a build doesn't know must not get lost.

    Raises:
        LaunchError: names the unknown flags and what this build calls them.
    """
    offered = offered_flags(program)
    unknown = [word for word in words if re.match(r"--?[a-zA-Z]", word) and word not in offered]
    if not offered or not unknown:
        return
    hints = []
    for flag in unknown:
        renamed = next((names & offered for names in RENAMED_FLAGS if flag in names), set())
        close = sorted(renamed) or difflib.get_close_matches(flag, offered, 3)
        hints.append(f"{flag}" + (f" (it has {', '.join(close)})" if close else ""))
    raise LaunchError(f"{program} does not know {'; '.join(hints)}")


@lru_cache
def offered_flags(program: str) -> frozenset[str]:
    """The flags in the help text of a ``llama-server``; empty where it prints none."""
    try:
        done = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"{program} --help: {error}") from error
    return frozenset(re.findall(r"(?<![\w<\[-])--?[a-zA-Z][\w-]*", done.stdout))
