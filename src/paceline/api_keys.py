"""API keys: the one that a client shows, and those of a configuration as they are sent."""

import os
import re
from collections.abc import Iterable

from paceline.settings import FROM_ENVIRONMENT, ConfigurationError


def given_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The key in a request's headers, in either of the usual two; empty where there is none.

    Args:
        headers: with names in lower case.
    """
    values = dict(headers)
    scheme, _, token = values.get(b"authorization", b"").partition(b" ")
    bearer_token = token.strip() if scheme.lower() == b"bearer" else b""
    return bearer_token or values.get(b"x-api-key", b"")  # SDKs without a key of that kind send an empty one


def resolved(key: str) -> str:
    """A secret as it is sent: itself, or for ``env:NAME`` the value of the variable NAME.

    Raises:
        ConfigurationError: the variable is not set, or no header could carry the secret. The message does not hold it.
    """
    if not key.startswith(FROM_ENVIRONMENT):
        secret, source = key, "the key"
    else:
        name = key.removeprefix(FROM_ENVIRONMENT)
        if not name:
            raise ConfigurationError("env: names no variable; write it as env:NAME")
        if name not in os.environ:
            raise ConfigurationError(f"the variable {name} is not set")
        secret, source = os.environ[name], f"the variable {name}"
    if not secret:
        raise ConfigurationError(f"{source} is empty")
    if not re.fullmatch(r"[!-~]+", secret):
        raise ConfigurationError(f"{source} holds a space, a line's end or another character that no key may have")
    return secret
