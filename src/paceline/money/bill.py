"""What one answer costs."""

from paceline.types import Observation, Price, Tokens


def billed(observed: Observation) -> Tokens | None:
    """The tokens of an answer, as its engine counted them; ``None`` where it did not."""
    if observed.completion_tokens is None or observed.prompt_tokens is None:
        return None
    writes = min(observed.cache_write_tokens or 0, observed.prompt_tokens)
    return Tokens(
        fresh=observed.prompt_tokens - writes,
        generated=observed.completion_tokens,
        cached=observed.cached_tokens or 0,
        cache_writes=writes,
    )


def cost_of(price: Price | None, observed: Observation, expected: Tokens) -> tuple[float | None, bool]:
    """What an answer costs, and whether that is a guess, since the answer does not tell its tokens.

    Args:
        expected: tokens that the answer was expected to have.
    """
    if price is None:
        return None, False
    tokens = billed(observed)
    return (price.of(expected), True) if tokens is None else (price.of(tokens), False)
