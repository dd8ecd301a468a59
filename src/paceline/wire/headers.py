"""The headers of a message: names and values, in their order."""

from collections.abc import Sequence

Headers = Sequence[tuple[bytes, bytes]]
