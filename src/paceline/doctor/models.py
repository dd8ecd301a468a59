"""Looks at the models that are to be started: whether they fit this machine, their drafters and their flags."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from paceline.doctor.finding import Finding, fault, fine, note, warning
from paceline.doctor.scene import Scene
from paceline.engines.embedded import EMBEDDED
from paceline.engines.llama_cpp import LlamaCppSettings
from paceline.engines.llama_cpp_build import CPU, LLAMA_CPP
from paceline.engines.llama_cpp_flags import (
    CONTEXT,
    DRAFT_MODEL,
    MODEL,
    PARALLEL,
    SPECULATIVE_TYPES_FLAG,
    THREADS,
    flag_values,
)
from paceline.planning.architectures import assumed_architecture, mtp_layer_count
from paceline.planning.drafters import NoDrafter, find_drafter
from paceline.planning.gguf import BadModelFile, Header, read_model
from paceline.planning.memory import Settings, cache_bytes, model_of

GB = 1e9
DEFAULT_CONTEXT_TOKENS = 4096
"""What a server without ``--ctx-size`` is taken to have at least, since its own default depends on its build."""


class Started(Struct, frozen=True, kw_only=True):
    """An engine of llama.cpp's that the configuration has started, with the headers of its model."""

    index: int
    engine: LlamaCppSettings
    values: Mapping[str, str]
    """Of its flags, by their names in the table of flags."""
    headers: tuple[Header, ...]

    @property
    def about(self) -> str:
        return f"engine {self.engine.name}"

    def number(self, name: str) -> int | None:
        text = self.values.get(name, "")
        return int(text) if text.isdecimal() else None


def started(scene: Scene) -> Iterator[Started]:
    """Those whose model can be read; of the others it is said elsewhere that it can't."""
    for index, engine in enumerate(scene.configuration.engine):
        if isinstance(engine, LlamaCppSettings) and engine.launch:
            values = {flag.name: value for flag, value in flag_values(engine.launch)}
            try:
                headers = read_model(Path(values.get(MODEL.name, "")))
            except BadModelFile:
                continue
            yield Started(index=index, engine=engine, values=values, headers=headers)


def models_fit(scene: Scene) -> Iterator[Finding]:
    """Whether memory holds what is to be started; what runs already has its memory."""
    engines = list(started(scene))
    if not engines or scene.gateway:
        return
    machine = scene.machine
    host = machine.host_memory_bytes
    if host is None:
        return
    free = host + (0 if machine.is_unified else machine.free_bytes)
    weights = {file: size for engine in engines for file, size in _weights(engine)}
    need = sum(weights.values()) + sum(_cache(engine) for engine in engines)
    where = "of memory, with all cards," if machine.devices else "of memory"
    first = engines[0]
    model = first.headers[0].path
    if need > free:
        yield fault(
            "memory-too-small",
            "memory",
            f"The engines need {need / GB:.1f} GB for weights and caches, and {free / GB:.1f} GB {where} are free.",
            f"{scene.plan_command(model)} finds what fits: take its [[engine]] over; or less --ctx-size, or a "
            "smaller model",
        )
    elif need > 0.9 * free:
        yield warning(
            "memory-scarce",
            "memory",
            f"The engines need {need / GB:.1f} of the {free / GB:.1f} GB {where} that are free.",
            f"{scene.plan_command(model)} plans with room to spare; take its [[engine]] over",
        )
    else:
        yield fine("memory", f"The engines need {need / GB:.1f} of {free / GB:.1f} GB {where}.")


def drafters_fit(scene: Scene) -> Iterator[Finding]:
    """Whether draft models go with their models, and models have the layers that are to draft."""
    for each in started(scene):
        place = scene.place("engine", each.index, "launch")
        if given := each.values.get(DRAFT_MODEL.name):
            try:
                find_drafter(each.headers, Path(given))
            except NoDrafter as error:
                yield fault(
                    "drafter-does-not-fit",
                    each.about,
                    f"{place}: {error}.",
                    f"name a draft model of the same family in {place}, or leave {DRAFT_MODEL.name} out",
                )
            except BadModelFile:
                continue  # it is said where the launch is looked at
        if "draft-mtp" in each.values.get(SPECULATIVE_TYPES_FLAG.name, "") and not mtp_layer_count(each.headers):
            yield fault(
                "no-mtp-layers",
                each.about,
                f"{place}: {each.headers[0].path.name} has no layers for multi-token prediction, so it can't draft "
                "with them, and the engine ends at its start.",
                f"take draft-mtp out of {SPECULATIVE_TYPES_FLAG.name} in {place}, or get a file of the model that has "
                "kept them",
            )


def flags_make_sense(scene: Scene) -> Iterator[Finding]:
    """Threads beyond the cores, contexts beyond what a model was made for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for each in started(scene):
        place = scene.place("engine", each.index, "launch")
        threads = each.number(THREADS.name)
        if threads is not None and threads > cores:
            yield warning(
                "too-many-threads",
                each.about,
                f"{place}: {threads} threads on {cores} cores wait for one another at every step, which makes all of "
                "them several times slower.",
                f"write {THREADS.name} {max(1, cores - 1)} into {place}",
            )
        trained = each.headers[0].own_number("context_length")
        context, slots = each.number(CONTEXT.name), each.number(PARALLEL.name) or 1
        if context and trained and context // slots > trained:
            yield warning(
                "context-beyond-model",
                each.about,
                f"{place}: each request has {context // slots} tokens, and the model was made for {trained}: beyond "
                "that, answers get worse.",
                f"write {CONTEXT.name} {trained * slots} into {place}",
            )


def engine_uses_the_cards(scene: Scene) -> Iterator[Finding]:
    """Whether the engine that was built is the right one for this version, and computes on what is here."""
    latest = scene.builds[0] if scene.builds else None
    if latest and scene.built is None:
        yield warning(
            "old-build",
            "engine build",
            f"What `paceline engine build` has built ({latest.key}) is of another version of Paceline; this one has "
            f"llama.cpp {LLAMA_CPP}.",
            f"paceline engine build --backend {latest.backend}",
        )
    devices = scene.machine.devices
    if devices and scene.built and scene.built.backend == CPU:
        backend = {"rocm": "hip"}.get(devices[0].backend, devices[0].backend)
        yield warning(
            "build-ignores-cards",
            "engine build",
            f"It computes on the processor alone, though there is a {devices[0].name}.",
            f"paceline engine build --backend {backend}",
        )
    if devices and any(each.engine.launch[0] == EMBEDDED for each in started(scene)):
        yield warning(
            "embedded-ignores-cards",
            "engines",
            f"The embedded engine computes on the processor alone, though there is a {devices[0].name}.",
            "paceline engine build --backend cuda, and name its llama-server in launch",
        )
    for warned in scene.machine.warnings:
        yield note("machine", "machine", warned)


def _weights(each: Started) -> Iterator[tuple[Path, int]]:
    """Bytes of each file; engines that have the same file share its pages."""
    for header in each.headers:
        yield header.path.resolve(), header.tensor_bytes
    if given := each.values.get(DRAFT_MODEL.name):
        try:
            for header in read_model(Path(given)):
                yield header.path.resolve(), header.tensor_bytes
        except BadModelFile:
            return


def _cache(each: Started) -> int:
    """Bytes of the caches of all slots."""
    model = model_of(each.headers)
    architecture = model.architecture or assumed_architecture(each.headers)
    settings = Settings(
        context_tokens=each.number(CONTEXT.name) or DEFAULT_CONTEXT_TOKENS, slots=each.number(PARALLEL.name) or 1
    )
    return sum(cache_bytes(layer, architecture, settings) for layer in architecture.layers)
