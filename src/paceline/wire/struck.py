"""Takes secrets out of an engine's answers: some quote the key that they were shown, and it is not the reader's."""

from collections.abc import Iterable

from paceline.wire.headers import Headers

MIN_SECRET_BYTES = 8
"""A shorter one is no secret, and its letters may stand in any word."""


class Striker:
    """Of one answer. What is struck keeps its length, so that the answer's own and its form stay true.

    Args:
        secrets: as :func:`forms` has them.
    """

    def __init__(self, secrets: tuple[bytes, ...]) -> None:
        self._secrets = secrets
        self._held = b""
        """What may be the beginning of a secret whose rest comes next."""

    def feed(self, piece: bytes) -> bytes:
        """What may be passed on once a piece has come."""
        data = self.whole(self._held + piece if self._held else piece)
        held = max(_begun(data, secret) for secret in self._secrets)
        self._held = data[len(data) - held :]
        return data[: len(data) - held] if held else data

    def end(self) -> bytes:
        """The rest, which is no secret."""
        held, self._held = self._held, b""
        return held

    def whole(self, data: bytes) -> bytes:
        """What comes all at once."""
        for secret in self._secrets:
            if secret in data:
                data = data.replace(secret, b"*" * len(secret))
        return data

    def headers(self, headers: Headers) -> Headers:
        """The headers of the answer."""
        return [(name, self.whole(value)) for name, value in headers]


def forms(secrets: Iterable[str]) -> tuple[bytes, ...]:
    """How secrets may stand in an answer: as they are, and as in JSON whose writer escapes slashes."""
    plain = [secret.encode() for secret in secrets if len(secret) >= MIN_SECRET_BYTES]
    every = {form for secret in plain for form in (secret, secret.replace(b"/", b"\\/"), secret.replace(b'"', b'\\"'))}
    return tuple(sorted(every, key=len, reverse=True))


def _begun(data: bytes, secret: bytes) -> int:
    """How many bytes at the end of some data are the beginning of a secret."""
    tail = data[-(len(secret) - 1) :]
    at = tail.find(secret[:1])
    while at >= 0:
        if secret.startswith(tail[at:]):
            return len(tail) - at
        at = tail.find(secret[:1], at + 1)
    return 0
