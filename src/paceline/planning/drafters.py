"""What can draft for a model: found in its file, and in the files beside it."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct


class NoDrafter(Exception):
    """A file can't draft for a model; ``str()`` says why."""


class FoundDrafter(Struct, frozen=True):
    kind: Literal["mtp", "eagle3", "draft"]
    n_max: int
    """Longest draft worth making, in tokens: what llama.cpp's documentation and its users settle on; the lanes' caps
    are this and parts of it."""
    file: Path | None = None
    """Beside the model; ``None`` where the model has it within."""

    def __str__(self) -> str:
        return f"{self.kind} ({self.file.name if self.file else 'in the model'})"


class _Model(Struct, frozen=True):
    """What a model file tells about itself."""

    architecture: str
    hidden: int
    mtp_layers: int
    target_hidden: int
    """Of an EAGLE-3 head: the hidden size of the model that it drafts for."""
    words: tuple[str, int]
    """Kind and size of the vocabulary: a draft model needs its target's."""


MTP_DRAFT, EAGLE3_DRAFT, MODEL_DRAFT = 4, 4, 8


def find_drafter(model: Path, given: Path | None = None) -> FoundDrafter | None:
    """The drafter with a model of its own that fits best: the one that is given, or else the model's MTP layers, an
    EAGLE-3 head beside it, or a draft model beside it (a file with ``draft`` in its name, and the same vocabulary).
    ``None`` where there is none, or the package ``gguf`` is not installed and none is given.

    Raises:
        NoDrafter: the given file does not fit.
    """
    if find_spec("gguf") is None:
        if given:
            raise NoDrafter("the package gguf is needed to see what a draft file is; paceline[embedded] brings it")
        return None
    target = _read(model)
    if given:
        drafter = _fitting(given, _read(given), target)
        if drafter is None:
            raise NoDrafter(f"{given} does not draft for {model.name}: it has another vocabulary or hidden size")
        return drafter
    if target.mtp_layers:
        return FoundDrafter("mtp", MTP_DRAFT)
    beside = [path for path in sorted(model.parent.glob("*.gguf")) if path != model and _may_draft(path)]
    found = [drafter for path in beside if (drafter := _fitting(path, _read(path), target))]
    return min(found, key=lambda drafter: drafter.kind != "eagle3", default=None)


def _may_draft(path: Path) -> bool:
    """By its name: a folder of models is not read through for drafters."""
    return any(word in path.name.lower() for word in ("draft", "eagle"))


def _fitting(path: Path, drafter: _Model, target: _Model) -> FoundDrafter | None:
    if drafter.architecture == "eagle3":
        return FoundDrafter("eagle3", EAGLE3_DRAFT, path) if drafter.target_hidden == target.hidden else None
    return FoundDrafter("draft", MODEL_DRAFT, path) if drafter.words == target.words else None


def _read(path: Path) -> _Model:
    """
    Raises:
        NoDrafter: it is no GGUF file.
    """
    from gguf import GGUFReader

    try:
        reader: Any = GGUFReader(path)
    except (OSError, ValueError) as error:
        raise NoDrafter(f"{path}: {error}") from error

    def value(key: str, otherwise: Any) -> Any:
        field = reader.fields.get(key)
        return otherwise if field is None else field.contents()

    architecture = value("general.architecture", "")
    words = reader.fields.get("tokenizer.ggml.tokens")
    return _Model(
        architecture,
        int(value(f"{architecture}.embedding_length", 0)),
        int(value(f"{architecture}.nextn_predict_layers", 0)),
        int(value(f"{architecture}.target_hidden_size", 0)),
        (value("tokenizer.ggml.model", ""), len(words.data) if words else 0),
    )
