"""The API key that a client shows."""

from collections.abc import Iterable


def given_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The key in a request's headers, in either of the usual two; empty where there is none.

    Args:
        headers: with names in lower case.
    """
    values = dict(headers)
    scheme, _, token = values.get(b"authorization", b"").partition(b" ")
    bearer_token = token.strip() if scheme.lower() == b"bearer" else b""
    return bearer_token or values.get(b"x-api-key", b"")  # SDKs without a key of that kind send an empty one
