"""What was spent: held ahead, corrected after, kept over restarts, and by the calendar whatever the clock does."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier

import pytest
from tests.patient import wait_until

from paceline.routing.budgets import Budgets, Entry, Held, Ledger
from paceline.settings import BudgetSettings

NOON_S = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
DAY_S = 86_400.0


def budgets(*settings: BudgetSettings, ledger: Ledger | None = None) -> Budgets:
    made = Budgets(ledger)
    made.settings = settings
    return made


def test_what_runs_counts_as_spent_until_it_is_known() -> None:
    one = budgets(BudgetSettings(limit=1.0))
    assert not one.refuses(None, 0.6, NOON_S)
    held = one.hold(None, 0.6, NOON_S)
    assert "the budget of 1 a day is spent (0.6, and this takes 0.6)" in one.refuses(None, 0.6, NOON_S)
    one.settle(held, 0.1)
    assert not one.refuses(None, 0.6, NOON_S)
    assert one.spent(one.settings[0], NOON_S) == pytest.approx(0.1)


def test_days_months_and_keys_are_told_apart() -> None:
    day, month = BudgetSettings(limit=1.0), BudgetSettings(limit=1.5, per="month")
    team = BudgetSettings(limit=0.2, key="team")
    one = budgets(day, month, team)
    one.hold("team", 0.9, NOON_S)
    assert "of team" in one.refuses("team", 0.01, NOON_S) or "a day" in one.refuses("team", 0.01, NOON_S)
    assert not one.refuses("other", 0.05, NOON_S)
    assert "a day" in one.refuses("other", 0.2, NOON_S)
    assert "a month" in one.refuses("other", 0.7, NOON_S - DAY_S)
    assert not one.refuses("other", 0.7, NOON_S + DAY_S), "December has begun"


def test_an_unknown_price_is_refused_where_a_budget_counts() -> None:
    assert "its price is not known" in budgets(BudgetSettings(limit=9.0)).refuses(None, None, NOON_S)
    assert not budgets(BudgetSettings(limit=9.0, key="team")).refuses("other", None, NOON_S)
    assert not budgets().refuses(None, None, NOON_S)


def test_a_clock_that_jumps_gives_no_day_twice() -> None:
    one = budgets(BudgetSettings(limit=1.0))
    one.hold(None, 1.0, NOON_S)
    assert not one.refuses(None, 0.5, NOON_S + DAY_S)
    one.hold(None, 0.9, NOON_S + DAY_S)
    assert one.refuses(None, 0.5, NOON_S), "set back to a day that was spent"
    assert one.refuses(None, 0.5, NOON_S + DAY_S + 10)
    held = one.hold(None, 0.1, NOON_S + 2 * DAY_S)
    one.settle(held, 0.7)  # which ends on the next day, and belongs to the one that it began on
    assert one.spent(one.settings[0], NOON_S + 2 * DAY_S) == pytest.approx(0.7)


@pytest.mark.parametrize("days", [62, 1000])
def test_a_clock_that_is_wrong_for_a_moment_forgets_nothing(days: int, tmp_path: Path) -> None:
    path, limit = tmp_path / "spent.sqlite", BudgetSettings(limit=1.0)
    one = budgets(limit, ledger=(ledger := Ledger(path)))
    one.hold(None, 1.0, NOON_S)
    one.hold(None, 0.1, NOON_S + days * DAY_S)
    assert one.refuses(None, 0.5, NOON_S)
    ledger.close()
    assert budgets(limit, ledger=Ledger(path)).refuses(None, 0.5, NOON_S)


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    path, limit = tmp_path / "state" / "spent.sqlite", BudgetSettings(limit=1.0)
    first = budgets(limit, ledger=(ledger := Ledger(path)))
    first.settle(first.hold("team", 0.5, NOON_S), 0.3)
    first.hold(None, 0.6, NOON_S)  # it still runs when the gateway dies
    ledger.close()
    again = budgets(limit, ledger=Ledger(path))
    assert again.spent(limit, NOON_S) == pytest.approx(0.9)
    assert again.refuses(None, 0.2, NOON_S)
    assert (path.stat().st_mode & 0o077) == 0


def test_what_is_spent_is_on_the_disk_soon(tmp_path: Path) -> None:
    path = tmp_path / "spent.sqlite"
    one = budgets(ledger=Ledger(path))
    one.hold(None, 0.25, NOON_S)
    wait_until(lambda: path.exists() and sum(entry.amount for entry in Ledger(path).before) == 0.25)


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "spent.sqlite"
    path.write_bytes(b"no database" * 1000)
    ledger = Ledger(path)
    assert not ledger.before
    assert (tmp_path / "spent.damaged").exists()
    budgets(ledger=ledger).hold(None, 1.0, NOON_S)
    ledger.close()
    assert [entry.amount for entry in Ledger(path).before] == [1.0]


def test_a_file_that_can_not_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ledger = Ledger(tmp_path / "file" / "spent.sqlite")
    one = budgets(BudgetSettings(limit=1.0), ledger=ledger)
    one.hold(None, 1.0, NOON_S)
    assert one.refuses(None, 0.1, NOON_S)
    ledger.close()


def test_threads_that_ask_at_the_same_time_do_not_exceed_a_budget_together() -> None:
    one = budgets(BudgetSettings(limit=1.0))
    began = Barrier(16)

    def holds(_: int) -> int:
        began.wait()
        return sum(isinstance(one.hold_if_left(None, 0.01, NOON_S), Held) for _ in range(20))

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(holds, range(16))) in (99, 100)  # cents have no exact sum
    assert one.spent(one.settings[0], NOON_S) <= 1.0


async def test_processes_that_know_little_of_each_other_do_not_exceed_a_budget_together() -> None:
    limit = BudgetSettings(limit=1.0)
    keeper, workers = budgets(limit), [budgets(limit) for _ in range(3)]

    async def spend_if_left(entry: Entry) -> str:
        return keeper.spend_if_left(entry)

    for one in workers:
        one.agree = spend_if_left
    held = [(one, one.hold_if_left(None, 0.4, NOON_S)) for one in workers]
    assert all(isinstance(each, Held) and not each.is_agreed for _, each in held), "each thinks that it is left"
    refused = [await one.agreed(each) for one, each in held if isinstance(each, Held)]
    assert refused[:2] == ["", ""] and "the budget of 1 a day is spent" in refused[2]
    assert keeper.spent(limit, NOON_S) == pytest.approx(0.8)
    assert workers[2].spent(limit, NOON_S) == pytest.approx(0.0), "what was refused is not held"


def test_what_was_given_up_before_it_was_agreed_on_counts_with_what_it_cost() -> None:
    one = budgets(BudgetSettings(limit=1.0))

    async def never_asked(entry: Entry) -> str:
        raise AssertionError(entry)

    one.agree = never_asked
    held = one.hold_if_left(None, 0.4, NOON_S)
    assert isinstance(held, Held)
    one.settle(held, 0.1)
    assert one.spent(one.settings[0], NOON_S) == pytest.approx(0.1)
