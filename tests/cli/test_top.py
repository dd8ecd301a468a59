"""``paceline top``: what it shows of placement and money. The rest is in ``tests/records/test_watching.py``."""

from collections import deque
from typing import Any

from paceline.cli.top import decisions, drafter_lines, money_parts, need_lines, request_parts, speeds

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
    request: dict[str, Any] = {"at_s": 0.0, "status": 200, "lane": "cloud", "error": None, "why": "because"}
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


def test_what_matters_is_told_in_few_words() -> None:
    total = {"requests": 1, "failed": 0, "tokens_per_s": None, "first_token_p50_s": None, "first_token_p95_s": None}
    assert speeds(total) == "last hour: 1 request, 0 failed"
    known = {"requests": 9, "tokens_per_s": 47.25, "first_token_p50_s": 0.052, "first_token_p95_s": 0.17}
    assert speeds(total | known) == ("last hour: 9 requests, 0 failed; 47.2 tokens/s; first token 0.05 s, p95 0.17 s")
    assert need_lines([]) == ["nothing needs you"]
    need = {"severity": "critical", "about": "gateway", "problem": "No engine serves.", "action": "Mend one."}
    assert need_lines([need]) == ["critical, gateway: No engine serves. Mend one."]


def test_drafters_are_judged_only_where_that_is_sure() -> None:
    position = {"accepted": 0.8, "verified": 10, "adds": 0.2}
    drafter: dict[str, Any] = {
        "kind": "mtp", "engine": "gpu", "n_max": 3, "worth": 1.4, "is_sure": True, "drafted": 30, "accepted": 24,
        "positions": [position, position | {"accepted": None}],
    }  # fmt: skip
    told, unsure, unused = drafter_lines(
        [drafter, drafter | {"is_sure": False}, drafter | {"worth": None, "drafted": 0, "positions": []}]
    )
    assert told == (
        "mtp up to 3 on gpu: pays: its steps are 1.40 times as fast as plain ones; "
        "accepted 80% of 30 tokens, by position 80%"
    )
    assert "it can't be told yet whether it pays" in unsure
    assert unused == "mtp up to 3 on gpu: it can't be told yet whether it pays"
    assert "costs more than it brings" in drafter_lines([drafter | {"worth": 0.7}])[0]


def test_running_requests_come_before_those_that_have_ended() -> None:
    running = [{"phase": "answers", "age_s": 1.25, "lane": "gpu", "task": "code"}]
    ended = {"at_s": 0.0, "status": 200, "lane": "gpu", "error": None, "why": "because", "cost": None, "placed": None}
    first, last = request_parts(running, deque([ended] * 20))
    assert [line.split() for line in first.splitlines()] == [
        ["1", "running", "for", "lane", "task"],
        ["answers", "1.2", "s", "gpu", "code"],
    ]
    assert len(last.splitlines()) == 8
    assert request_parts([], deque()) == []
