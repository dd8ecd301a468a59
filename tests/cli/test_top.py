"""``paceline top``: what it shows of placement and money. The rest is in ``tests/records/test_watching.py``."""

from typing import Any

from paceline.cli.top import decisions, money_parts

ENGINES = [
    {"engine": "gpu", "is_cloud": False, "answers": 3, "paid": None, "estimates": 0, "unpriced": 0, "why": {}},
    {
        "engine": "cloud",
        "is_cloud": True,
        "answers": 2,
        "paid": 0.01234,
        "estimates": 1,
        "unpriced": 1,
        "why": {"all others are down": 2},
    },
]
MONEY = {"currency": "EUR", "since_s": 1.0, "engines": ENGINES, "baseline": None, "verdict": "It saves."}


def test_nothing_of_money_where_nothing_costs_anything() -> None:
    assert money_parts({"money": None, "budgets": []}) == []


def test_where_requests_went_and_what_is_spent() -> None:
    budgets = [
        {"key": None, "per": "day", "spent": 0.5, "limit": 2.0},
        {"key": "team", "per": "month", "spent": 30.0, "limit": 20.0},
        {"key": None, "per": "month", "spent": 0.0, "limit": 0.0},
    ]
    verdict, engines, spending = money_parts({"money": MONEY, "budgets": budgets})
    assert verdict == "It saves."
    rows = [" ".join(line.split()) for line in engines.splitlines()[1:]]
    assert rows == [
        "engine where answers paid, EUR why",
        "gpu one's own 3 - -",
        "cloud a provider's 2 0.012 (1 estimated, 1 of unknown price) all others are down: 2",
    ]
    assert [" ".join(line.split()) for line in spending.splitlines()] == [
        "budget spent, EUR limit, EUR share",
        "this day (UTC) 0.50 2.00 25%",
        "this month (UTC), team 30.00 20.00 150%",
        "this month (UTC) 0.00 0.00 -",
    ]
    assert len(money_parts({"money": MONEY, "budgets": []})) == 2


def test_a_line_of_a_request_has_its_cost_and_the_engines_that_were_struck() -> None:
    request: dict[str, Any] = {"at_s": 0.0, "status": 200, "lane": "cloud", "error": None, "reason": "because"}
    placed = {"struck": {"gpu": "needs images"}}
    lines = decisions(
        [
            request | {"cost": None, "cost_is_estimate": False, "placed": None},
            request | {"cost": 0.01234, "cost_is_estimate": False, "placed": placed},
            request | {"cost": 2.5, "cost_is_estimate": True, "placed": placed, "error": "it broke off"},
        ]
    ).splitlines()
    assert [line[10:] for line in lines] == [
        "200  cloud  about 2.50  it broke off; not gpu: needs images",
        "200  cloud  0.012  because; not gpu: needs images",
        "200  cloud  because",
    ]
