"""Where the commands of the pages run: a home of its own, the files that they name, and a gateway that runs."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Self

import pytest
from benchmarks.planning.hollow_models import write
from benchmarks.planning.shapes import REAL
from msgspec import Struct
from msgspec.structs import replace
from tests.answering import answering
from tests.conftest import Serving
from tests.decision_logs import REQUEST, decision, log_of, outcome
from tests.docs.commands import ROOT
from tests.patient import PATIENCE_S

from paceline.paths import DECISION_LOG
from paceline.processes.launch import free_port
from paceline.records.decision_log import DecisionLog
from paceline.records.kept import kept_record
from paceline.settings import ServerSettings
from paceline.types import Signals

PORT = str(ServerSettings().port)
"""As the pages write it. It may be taken here, so commands get the port of the gateway that runs."""
ENGINE = "http://127.0.0.1:8000"
"""As the pages write the address of an engine that runs."""
AT_THE_USUAL_PORT = r"paceline (?:top|lanes|reload|explain --running .*)"
"""Commands that look for a gateway there."""
TEXTS = {
    "request.json": '{"messages": [{"role": "user", "content": "Extract the names: ant, bee, cat."}]}',
    "mine.jsonl": '{"task": "story", "prompt": "Tell me a story."}\n{"task": "math", "prompt": "What is 2 + 2?"}\n',
}
FAULTY_PAGE = "docs/trouble-shooting.md"
FAULTY = """
[server]
api_keys = ["sk-a-key-of-somebody"]


[[engine]]
name = "gpu"
kind = "openai"
url = "http://127.0.0.1:8001"
"""
"""The configuration that this page has looked at."""
PROGRAMS = {
    "paceline": f'exec "{sys.executable}" -m paceline "$@"',
    "python": f'exec "{sys.executable}" "$@"',
    "systemctl": """case "$*" in *show*) printf 'ActiveState=active\\nMainPID=4711\\n';; esac""",
}
"""The one that is tested, and a systemctl, since there may be none, or one that is not to be changed."""
VARIABLES = ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "PACELINE_API_KEY", "http_proxy")
"""That would change what commands do."""


class Stage(Struct):
    """A home, set up in the environment of this process.

    Args:
        gateway: that runs with the bundled model.
        engine_url: of an engine that runs, and wants no key.
        links: files and folders that commands find where they run.
        engine: the table of an engine, as `paceline plan` has written it.
    """

    gateway: Serving
    engine_url: str
    links: dict[str, Path]
    engine: str = ""

    @classmethod
    @contextmanager
    def set_up(cls, folder: Path, model: Path) -> Iterator[Self]:
        home, programs, state, planned = (folder / name for name in ("home", "bin", "state", "planned"))
        for one in (home, programs, state, planned):
            one.mkdir(parents=True)
        for name, text in PROGRAMS.items():
            (programs / name).write_text(f"#!/bin/sh\n{text}\n")
            (programs / name).chmod(0o755)
        (home / ".curlrc").write_text("fail\nsilent\n")  # so that its exit status tells of errors
        log = home / ".local" / "state" / "paceline" / DECISION_LOG
        log.parent.mkdir(parents=True)
        log_of(log, {"plain": 0.1, "ngram": 0.05})
        with_prompt = replace(
            outcome(), observed=replace(outcome().observed, prompt_tokens=20)
        )  # so that it has a price
        with closing(DecisionLog(log)) as entries:
            entries.record(kept_record(REQUEST, Signals(), decision(), with_prompt))
        links = {"model.gguf": model, "scripts": ROOT / "scripts"}
        links["gpt-oss-120b.gguf"] = write(folder, "gpt-oss-120b", REAL["gpt-oss-120b"])
        with pytest.MonkeyPatch.context() as patch:
            for name in VARIABLES:
                patch.delenv(name, raising=False)
            patch.setenv("HOME", str(home))
            patch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
            patch.setenv("PYTHONPATH", f"{ROOT / 'src'}{os.pathsep}{ROOT}")
            patch.setenv("OPENAI_API_KEY", "sk-of-a-test")
            words = ("--model", str(model), "--", "--predict", "96")  # a small model does not always find an end
            models = {"/v1/models": {"data": [{"id": "m"}]}}
            with answering(models) as url, Serving(*words, folder=state) as gateway:
                stage = cls(gateway, url, links)
                stage.run("paceline plan model.gguf --write paceline.toml", planned).check_returncode()
                stage.engine = (planned / "paceline.toml").read_text()
                yield stage

    def run(self, text: str, folder: Path, page: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a command of a page in a folder, with the files that it reads."""
        self.give_files(text, folder, page)
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.here(text)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=4 * PATIENCE_S,
            check=False,
        )

    def here(self, text: str) -> str:
        """The command with the addresses of what runs here."""
        if re.fullmatch(AT_THE_USUAL_PORT, text):
            text += f" --url http://127.0.0.1:{PORT}"
        return text.replace(ENGINE, self.engine_url).replace(PORT, str(self.gateway.port))

    def give_files(self, text: str, folder: Path, page: str = "") -> None:
        """Put the files that a command reads where it runs."""
        configuration = FAULTY if page == FAULTY_PAGE else f"server.port = {free_port()}\n{self.engine}"
        named = [] if "--write" in text else re.findall(r"\w+\.toml", text)
        for name, content in {**TEXTS, **dict.fromkeys(named, configuration)}.items():
            (folder / name).write_text(content)
            (folder / name).chmod(0o644)
        for name, place in self.links.items():
            if not (folder / name).exists():
                (folder / name).symlink_to(place)
