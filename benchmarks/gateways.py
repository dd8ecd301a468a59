"""Paceline processes for benchmarks: started from a configuration, asked, stopped."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from paceline.bench.own_gateway import Running, own_gateway
from paceline.engines.bundled_model import bundled_model
from paceline.engines.llama_cpp_flags import drafting_flags
from paceline.paths import cache_directory
from paceline.planning import one_model


def engine(
    name: str,
    *flags: str,
    strategy: str = "autoregressive",
    n_max: int | None = None,
    threads: int | None = None,
    slots: int = 4,
    alias: str = "m",
    program: str = "embedded",
) -> str:
    """An ``[[engine]]`` table of the embedded engine, or another ``llama-server``, with the bundled model."""
    command = [program, "--model", str(bundled_model(cache_directory())), "--alias", alias, "--port", "{port}"]
    command += ["--parallel", str(slots), "--ctx-size", str(2048 * slots), *flags]
    if threads:
        command += ["--threads", str(threads)]
    table: dict[str, object] = {
        "name": name,
        "kind": "llama.cpp",
        "launch": command,
        "strategy": strategy,
        "device": "cpu",
    }
    if n_max:
        table["n_max"] = n_max
    return "[[engine]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())


NGRAM_DRAFT = one_model.NGRAM.strategy.n_max or 0
NGRAM = drafting_flags([one_model.NGRAM])
"""As ``paceline serve`` starts an engine that drafts by n-grams."""


@contextmanager
def gateway(configuration: str, folder: Path) -> Iterator[Running]:
    """A running Paceline with all lanes up, which knows nothing of what earlier runs have taught."""
    own_folder = Path(mkdtemp(dir=folder))
    file = own_folder / "paceline.toml"
    file.write_text(configuration)
    with own_gateway(["--config", str(file)], own_folder) as running:
        yield running
