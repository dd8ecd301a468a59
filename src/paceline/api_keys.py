"""API keys: the one that a client shows, and those of a configuration as they are sent."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from paceline.settings import FROM_ENVIRONMENT, FROM_FILE, ConfigurationError


def given_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The key in a request's headers, in either of the usual two; empty where there is none.

    Args:
        headers: with names in lower case.
    """
    values = dict(headers)
    scheme, _, token = values.get(b"authorization", b"").partition(b" ")
    bearer_token = token.strip() if scheme.lower() == b"bearer" else b""
    return bearer_token or values.get(b"x-api-key", b"")  # SDKs without a key of that kind send an empty one


def resolved(key: str, *, may_have_spaces: bool = False) -> str:
    """A secret as it is sent: itself, or for ``env:NAME`` the value of the variable NAME, for ``file:PATH`` what stands
    in a file, but for the space around it.

    Args:
        may_have_spaces: as the values of most headers may, and keys may not.

    Raises:
        ConfigurationError: there is no such variable or file, or no header could carry the secret. The message does
            not hold it.
    """
    secret, source = _looked_up(key)
    if not secret:
        raise ConfigurationError(f"{source} is empty")
    if not re.fullmatch(r"[!-~]+(?: +[!-~]+)*" if may_have_spaces else r"[!-~]+", secret):
        raise ConfigurationError(f"{source} holds a space, a line's end or another character that no key may have")
    return secret


def _looked_up(key: str) -> tuple[str, str]:
    """The secret, and what it comes from."""
    if key.startswith(FROM_ENVIRONMENT):
        name = key.removeprefix(FROM_ENVIRONMENT)
        if not name:
            raise ConfigurationError("env: names no variable; write it as env:NAME")
        if name not in os.environ:
            raise ConfigurationError(f"the variable {name} is not set")
        return os.environ[name], f"the variable {name}"
    if key.startswith(FROM_FILE):
        name = key.removeprefix(FROM_FILE)
        try:
            return Path(name).expanduser().read_text("utf-8").strip(), f"the file {name}"
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is no text"
            raise ConfigurationError(f"the file {name} can't be read: {reason}") from error
    return key, "the key"
