"""What models cost: as configured, or else as published by the package genai-prices, where that is installed."""

import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from paceline.settings import CloudModel
from paceline.types import Price

HOUR_S = 3600.0
"""Some prices differ by the time of day, so that they are looked up anew each hour."""
_PARTS = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")
"""Of genai-prices, per million tokens: in the order of :class:`~paceline.types.Price`."""


class Prices:
    """By the models' names at their providers.

    Args:
        models: whose configured prices go before published ones.
        usd: what a US dollar costs in the currency of the configuration.
    """

    def __init__(self, models: Iterable[CloudModel] = (), usd: float = 1.0) -> None:
        self._configured = {model.name.casefold(): price for model in models if (price := configured(model))}
        self._usd = usd

    def of(self, model: str, url: str | None = None) -> Price | None:
        """What a model costs now; ``None`` where that is not known.

        Args:
            url: of the provider, where it is known: different ones ask different prices for the same model.
        """
        own = self._configured.get(model.casefold())
        return own or published(model, url, self._usd, int(time.time() // HOUR_S))


def configured(model: CloudModel) -> Price | None:
    """The prices of a ``[[cloud]]`` table, if it has some."""
    if model.input_price is None or model.output_price is None:
        return None
    cached, write = model.cached_input_price, model.cache_write_price
    return Price(
        input=model.input_price,
        output=model.output_price,
        cached_input=model.input_price if cached is None else cached,
        cache_write=model.input_price if write is None else write,
    )


@lru_cache(maxsize=256)
def published(model: str, url: str | None, usd: float, hour: int) -> Price | None:
    """The published price of a model in the hour of so many since 1970; ``None`` where none is known, or
    genai-prices is not installed."""
    try:
        from genai_prices import Usage, calc_price
    except ImportError:
        return None
    for provider_url in dict.fromkeys((url, None)):
        try:
            found = calc_price(Usage(input_tokens=1, output_tokens=1), model, provider_api_url=provider_url).model_price
        except LookupError:
            continue
        return _price(found, usd)
    return None


def is_published_known() -> bool:
    """Whether published prices can be looked up."""
    try:
        import genai_prices  # noqa: F401
    except ImportError:
        return False
    return True


def _price(found: Any, usd: float) -> Price | None:
    """A price of genai-prices as ours. There, a part is a number, or a ``base`` with ``tiers`` that hold for requests
    with more prompt tokens than their ``start``."""
    parts = [getattr(found, part, None) for part in _PARTS]
    starts = sorted({tier.start for part in parts for tier in getattr(part, "tiers", ())})

    def at(start: int | None) -> Price | None:
        read, generated, cached, write = (_at(part, start) for part in parts)
        if read is None or generated is None:
            return None
        return Price(
            input=read * usd,
            output=generated * usd,
            cached_input=(read if cached is None else cached) * usd,
            cache_write=(read if write is None else write) * usd,
        )

    base = at(None)
    if base is None:
        return None
    above = tuple((start, price) for start in starts if (price := at(start)) is not None)
    return Price(base.input, base.output, base.cached_input, base.cache_write, above)


def _at(part: Any, start: int | None) -> float | None:
    """The number that holds from a tier's start on; ``None`` for the base."""
    if part is None:
        return None
    tiers = getattr(part, "tiers", None)
    if tiers is None:
        return float(part)
    number = part.base
    for tier in tiers:
        if start is not None and tier.start <= start:
            number = tier.price
    return float(number)
