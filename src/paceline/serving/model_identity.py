"""What tells one model of an engine from another: what its entry in ``/v1/models`` says for good."""

from collections.abc import Mapping, Sequence
from typing import Any

VOLATILE = frozenset(
    "active at available created date downloaded expires expiry free last loaded loading memory modified now pid "
    "port progress ram ready requests running slots state status time timestamp ttl updated uptime usage used "
    "vram".split()
)
"""Words in the names of fields that change while the model stays the same: ``created_at``, ``size_vram``."""
MAX_DEPTH = 8
"""Of what is looked at of an entry."""


def lasting_description(entry: Mapping[str, Any], before: Sequence[Any] | None) -> Sequence[Any]:
    """A model's name, what ``meta`` says of it for good (llama.cpp), and where the entry has them, the weights behind
    the name and the model that they adapt (``root`` and ``parent``, vLLM).

    Args:
        before: what this told of the model the last time. An engine that describes a model only while it is loaded (a
            router) has not changed it by unloading it.
    """
    meta = _lasting(entry.get("meta")) or (before[1] if before else None)
    weights = [entry[key] for key in ("root", "parent") if isinstance(entry.get(key), str)]
    return [entry.get("id"), meta, *weights]


def _lasting(value: Any, depth: int = 0) -> Any:
    if not isinstance(value, Mapping | list):
        return value
    if depth == MAX_DEPTH:
        return None
    if isinstance(value, list):
        return [_lasting(element, depth + 1) for element in value]
    return {key: _lasting(member, depth + 1) for key, member in value.items() if not is_volatile(str(key))}


def is_volatile(field: str) -> bool:
    """Whether a field's name says that it changes while the model stays the same."""
    words = field.lower().replace("-", "_").split("_")
    return not VOLATILE.isdisjoint(words)
