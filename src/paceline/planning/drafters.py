"""What can draft for a model: found in its file, and in the files beside it."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from paceline.planning.architectures import mtp_layer_count
from paceline.planning.gguf import PART, BadModelFile, Header, read_model

log = logging.getLogger("paceline.planning")


class NoDrafter(Exception):
    """A file can't draft for a model; ``str()`` says why."""


class FoundDrafter(Struct, frozen=True):
    """A drafter that fits a model."""

    kind: Literal["mtp", "eagle3", "draft"]
    n_max: int
    """Longest draft worth making, in tokens: what llama.cpp's documentation and its users settle on; the lanes' caps
    are this and parts of it."""
    file: Path | None = None
    """Beside the model; ``None`` where the model has it within."""

    def __str__(self) -> str:
        return f"{self.kind} ({self.file.name if self.file else 'in the model'})"


MTP_N_MAX, EAGLE3_N_MAX, DRAFT_MODEL_N_MAX = 4, 4, 8
"""Longest drafts in tokens (:attr:`FoundDrafter.n_max`)."""


def find_drafter(headers: Sequence[Header], given: Path | None = None) -> FoundDrafter | None:
    """The drafter with a model of its own that fits best: the one that is given, or else the model's MTP layers, an
    EAGLE-3 head beside it, or a draft model beside it (a file with ``draft`` in its name, and the same vocabulary).
    Files beside it that can't be read are passed over, and said. ``None`` where there is no drafter.

    Args:
        headers: of all parts of the model, as :func:`paceline.planning.gguf.read_model` gives them. MTP layers are
            believed by their tensors: files that were stripped of them keep the key, and an engine that is told to
            draft with them ends.

    Raises:
        NoDrafter: the given file does not fit.
        BadModelFile: the given file can't be used.
    """
    target = headers[0]
    if given:
        drafter = _fitting(read_model(given)[0], target)
        if drafter is None:
            raise NoDrafter(f"{given} does not draft for {target.path.name}: it has another vocabulary or hidden size")
        return drafter
    if mtp_layer_count(headers):
        return FoundDrafter("mtp", MTP_N_MAX)
    drafters = [drafter for path in _beside(target.path) if (drafter := _fitting_or_none(path, target))]
    return min(drafters, key=lambda drafter: drafter.kind != "eagle3", default=None)


def _beside(model: Path) -> list[Path]:
    """Files in the model's folder that draft by their names: a folder of models is not read through for drafters."""
    return [path for path in sorted(model.parent.glob("*.gguf")) if path != model and _may_draft(path)]


def _may_draft(path: Path) -> bool:
    part = PART.search(path.name)
    is_later_part = part is not None and int(part[1]) > 1
    return not is_later_part and any(word in path.name.lower() for word in ("draft", "eagle"))


def _fitting_or_none(path: Path, target: Header) -> FoundDrafter | None:
    try:
        return _fitting(read_model(path)[0], target)
    except BadModelFile as error:
        log.warning("does not draft: %s", error)
        return None


def _fitting(drafter: Header, target: Header) -> FoundDrafter | None:
    if drafter.architecture == "eagle3":
        fits = drafter.own_number("target_hidden_size") == target.own_number("embedding_length")
        return FoundDrafter("eagle3", EAGLE3_N_MAX, drafter.path) if fits else None
    return FoundDrafter("draft", DRAFT_MODEL_N_MAX, drafter.path) if _words(drafter) == _words(target) else None


def _words(header: Header) -> tuple[str, int]:
    """Kind and size of the vocabulary: a draft model needs its target's."""
    return header.text("tokenizer.ggml.model"), header.lengths.get("tokenizer.ggml.tokens", 0)
