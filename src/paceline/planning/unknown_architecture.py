"""What a model keeps of a sequence where no formula is known: asked of the engine, at two lengths of context."""

from msgspec.structs import replace

from paceline.planning.architectures import Architecture, Cache, Layer, assumed_architecture
from paceline.planning.devices import Device
from paceline.planning.dry_run import Judge
from paceline.planning.memory import STATE_BYTES, Model, value_bytes

SHORT_TOKENS, LONG_TOKENS = 8_192, 65_536
"""Both longer than the windows in use, so that what grows between them grows on."""
LARGE = Device(name="any card", backend="cuda", memory_bytes=1 << 44, free_bytes=1 << 44)
"""Holds whatever there is."""


def asked_architecture(model: Model, judge: Judge) -> Architecture:
    """Layers that all keep the same: so many values a token, and so many whatever the length. Their sum is the
    engine's; which layer keeps what is not known.

    Raises:
        DryRunFailed: the engine does not know the model either.
    """
    assumed = assumed_architecture(model.headers)
    short, long = (_context_bytes(model, judge, tokens) for tokens in (SHORT_TOKENS, LONG_TOKENS))
    growing = (long - short) / (LONG_TOKENS - SHORT_TOKENS)
    fixed = max(0.0, short - growing * SHORT_TOKENS)
    count = max(1, len(assumed.layers))
    layer = Layer(
        caches=(Cache(keys=round(growing / count / value_bytes("f16"))),) if growing else (),
        state_values=round(fixed / count / STATE_BYTES),
    )
    return replace(assumed, layers=(layer,) * count)


def _context_bytes(model: Model, judge: Judge, tokens: int) -> int:
    words = ["--model", str(model.header.path), "--ctx-size", str(tokens), "--parallel", "1", "--no-kv-unified"]
    answer = judge([*words, "--n-gpu-layers", "999", "--flash-attn", "on", "--fit", "off"], [LARGE])
    return sum(device.context for device in answer.target.devices)
