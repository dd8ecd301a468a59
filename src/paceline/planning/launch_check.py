"""Whether the engines that a configuration starts can be started: programs, flags and model files."""

import shutil
from collections.abc import Collection
from pathlib import Path

from paceline.configuration import EMBEDDED, Configuration, EngineSettings, KeyPath
from paceline.engines import embedded
from paceline.engines.interface import LaunchError, put_port
from paceline.planning.gguf import BadModelFile, read_model

MODEL_FLAGS = ("-m", "--model", "-md", "--model-draft", "--spec-draft-model", "--mmproj", "-mm")
"""Of ``llama-server``: what follows is a model's file. Other engines' ``--model`` may be a name in a hub."""


def launch_problems(configuration: Configuration, known: Collection[EngineSettings] = ()) -> list[tuple[KeyPath, str]]:
    """What keeps engines from starting that are not among the ``known`` ones; nothing is started for it."""
    return [
        (("engine", index, "launch"), problem)
        for index, engine in enumerate(configuration.engine)
        if engine.launch and engine not in known
        for problem in _problems(engine)
    ]


def _problems(engine: EngineSettings) -> list[str]:
    program, *words = put_port(engine.launch, 1)
    found = []
    if program == EMBEDDED:
        try:
            embedded.check(words)
        except LaunchError as error:
            found.append(str(error))
    elif shutil.which(program) is None:
        found.append(f"there is no program {program!r}")
    if engine.kind == "llama.cpp":
        found += _model_problems(words)
    return found


def _model_problems(words: list[str]) -> list[str]:
    found = []
    for index, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag not in MODEL_FLAGS:
            continue
        file = value if equals else words[index + 1] if index + 1 < len(words) else ""
        try:
            if file:
                read_model(Path(file))
        except BadModelFile as error:
            found.append(f"{flag}: {error}")
    return found
