"""In what engines that speak one dialect differ, as far as a translated request has to know."""

from msgspec import Struct


class Flavour(Struct, frozen=True, kw_only=True):
    """Of one engine."""

    max_tokens_field: str = "max_tokens"
    """How chat limits the length of an answer: OpenAI's own reasoning models take ``max_completion_tokens`` alone."""
    takes_more: bool = True
    """Whether chat takes fields that OpenAI does not have: ``top_k``, and earlier thinking in ``reasoning_content``."""
    default_max_tokens: int = 16_384
    """Of an answer where the client names no limit, which chat allows and messages do not."""
    caches: bool = False
    """Whether a conversation that goes on is to be put into the provider's cache: chat's engines do that by themselves,
    and messages are to ask for it."""


OPENAI = Flavour(max_tokens_field="max_completion_tokens", takes_more=False)
