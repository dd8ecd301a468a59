"""A plan as an engine of a configuration."""

from pathlib import Path

from tests.planning.test_planner import planned

from paceline.configuration import parse
from paceline.planning.plan import Wish
from paceline.planning.written_plan import planned_engine, written


def test_a_file_is_read_back_as_the_same_engine() -> None:
    plan = planned("gpt-oss-120b", "2x RTX 3090", Wish(context_tokens=131072))
    engine = planned_engine(plan, Path('/models/a "quoted" name.gguf'), "gpt", "/bin/llama-server", flags=["--jinja"])
    text = written(engine, "Why it is so:\n\nbecause.")
    assert parse(text, "plan.toml").engine == (engine,)
    assert text.startswith("# Why it is so:\n#\n# because.\n")
    assert '    "--tensor-split", "24,13",\n' in text


def test_the_users_flags_have_the_last_word() -> None:
    plan = planned("Qwen3-32B-Q4_K", "RTX 5090", Wish(context_tokens=8192))
    engine = planned_engine(plan, Path("m.gguf"), "m", "llama-server", threads=3, flags=["--ctx-size", "4096"])
    places = [at for at, word in enumerate(engine.launch) if word == "--ctx-size"]
    assert engine.launch[places[-1] + 1] == "4096"
    assert engine.launch.index("--threads") < places[-1]
    assert engine.lanes()[0].engine == "llama"
