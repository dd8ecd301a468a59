"""Whether the engines that a configuration starts can be started: programs, flags and model files."""

import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from paceline.configuration import Problem
from paceline.engines import embedded
from paceline.engines.interface import LaunchError, put_port
from paceline.engines.llama_cpp import LlamaCppSettings
from paceline.engines.llama_cpp_flags import flag_values
from paceline.planning.gguf import BadModelFile, read_model
from paceline.settings import Configuration, EngineSettings


def launch_problems(configuration: Configuration, unchanged: Collection[EngineSettings] = ()) -> list[Problem]:
    """What keeps engines from starting that are not among the ``unchanged`` ones; nothing is started for it."""
    return [
        (("engine", index, "launch"), problem)
        for index, engine in enumerate(configuration.engine)
        if engine.launch and engine not in unchanged
        for problem in _problems(engine)
    ]


def _problems(engine: EngineSettings) -> Iterator[str]:
    program, *words = put_port(engine.launch, 1)
    if program == embedded.EMBEDDED:
        try:
            embedded.check(words)
        except LaunchError as error:
            yield str(error)
            return  # which may be about a model file
    elif shutil.which(program) is None:
        yield f"there is no program {program!r}"
    if isinstance(engine, LlamaCppSettings):  # other engines' --model may be a name in a hub
        yield from _model_problems(words)


def _model_problems(words: Sequence[str]) -> Iterator[str]:
    for flag, file in flag_values(words):
        if flag.is_model_file and file:
            try:
                read_model(Path(file))
            except BadModelFile as error:
                yield f"{flag.name}: {error}"
