"""Prices, bills and power."""

from importlib.util import find_spec

import pytest

from paceline.money.bill import billed, cost_of
from paceline.money.power import Power, configured_power, marginal_cost
from paceline.money.prices import Prices
from paceline.settings import CloudModel, CostSettings
from paceline.types import Observation, Price, Tokens

PRICE = Price(input=3.0, output=15.0, cached_input=0.3, cache_write=3.75)
needs_published = pytest.mark.skipif(find_spec("genai_prices") is None, reason="needs paceline[prices]")


def test_a_bill_by_hand() -> None:
    assert PRICE.of(Tokens(fresh=1_000, generated=500, cached=19_000, cache_writes=2_000)) == pytest.approx(
        0.003 + 0.0075 + 0.0057 + 0.0075
    )


def test_long_prompts_may_cost_more() -> None:
    price = Price(1.0, 2.0, 0.1, 1.0, above=((1_000, Price(2.0, 4.0, 0.2, 2.0)), (5_000, Price(3.0, 6.0, 0.3, 3.0))))
    assert price.of(Tokens(fresh=1_000, generated=100)) == pytest.approx(0.0012)
    assert price.of(Tokens(fresh=901, generated=100, cached=100)) == pytest.approx((901 * 2 + 400 + 20) / 1e6)
    assert price.of(Tokens(fresh=5_001, generated=0)) == pytest.approx(0.015003)


def test_what_is_configured_goes_before_what_is_published() -> None:
    prices = Prices([CloudModel(name="GPT-5.5", input_price=1.0, output_price=2.0)])
    assert prices.of("gpt-5.5") == Price(1.0, 2.0, 1.0, 1.0)
    assert prices.of("a-model-that-nobody-sells") is None


@needs_published
def test_published_prices_are_known_with_their_tiers() -> None:
    price = Prices().of("claude-sonnet-4-5")
    assert price is not None
    assert 0 < price.cached_input < price.input < price.cache_write < price.output
    assert price.above, "above 200,000 tokens it costs more"
    limit, long = price.above[0]
    assert limit == 200_000
    assert long.input > price.input
    in_euro = Prices(usd=0.9).of("claude-sonnet-4-5")
    assert in_euro is not None
    assert in_euro.output == pytest.approx(0.9 * price.output)


@needs_published
def test_bills_are_those_of_the_package() -> None:
    from genai_prices import Usage, calc_price

    for model in ("gpt-4o", "claude-sonnet-4-5", "gemini-2.5-pro"):
        for fresh, cached, generated in ((1_000, 0, 500), (10_000, 150_000, 100), (100_000, 180_000, 1_000)):
            usage = Usage(input_tokens=fresh + cached, cache_read_tokens=cached, output_tokens=generated)
            price = Prices().of(model)
            assert price is not None
            own = price.of(Tokens(fresh=fresh, generated=generated, cached=cached))
            assert own == pytest.approx(float(calc_price(usage, model).total_price))


def test_an_answer_that_does_not_tell_its_tokens_is_guessed() -> None:
    told = Observation(prompt_tokens=100, completion_tokens=10, cached_tokens=50)
    expected = Tokens(fresh=1_000_000, generated=0)
    assert billed(told) == Tokens(fresh=100, generated=10, cached=50)
    written = Observation(prompt_tokens=100, completion_tokens=10, cache_write_tokens=60)
    assert billed(written) == Tokens(fresh=40, generated=10, cache_writes=60)
    cost, is_estimate = cost_of(PRICE, told, expected)
    assert cost == pytest.approx((300 + 150 + 15) / 1e6)
    assert not is_estimate
    assert cost_of(PRICE, Observation(), expected) == (3.0, True)
    assert cost_of(None, told, expected) == (None, False)


def test_power_beyond_the_idle_machine_counts() -> None:
    power = configured_power(CostSettings(watts=400, idle_watts=40))
    assert marginal_cost(power, 0.5, 10.0) == pytest.approx(0.0005)
    assert marginal_cost(power, 0.5, 10.0, concurrent=1) == pytest.approx(0.00025)
    assert marginal_cost(configured_power(CostSettings()), 0.5, 10.0) == 0.0
    assert marginal_cost(Power(busy=10, idle=40), 1.0, 10.0) == 0.0
