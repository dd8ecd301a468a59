"""What was spent on cloud engines, by day and by whom, and whether more may be.

What a request is expected to cost is spent when it is sent, and corrected when it has ended: so requests that run at
the same time don't exceed a budget together, and one that was cut off by a crash stays paid for. Days are those of the
calendar by UTC: a clock that is set back finds what was spent on that day.
"""

import logging
import queue
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from paceline.records.state_file import FILE_ERRORS, error_line, is_damaged, make_private, set_aside
from paceline.settings import BudgetSettings

KEPT_DAYS = 400
"""Days whose sums stay in the file."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS spent (day TEXT, client TEXT, amount REAL NOT NULL, PRIMARY KEY (day, client)) WITHOUT ROWID
"""
_ADD = "INSERT INTO spent VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount"
_CLOSE_S = 10.0
"""How long closing waits for what is to be written."""

log = logging.getLogger("paceline.routing")


class Entry(Struct, frozen=True):
    """Something spent; less than nothing where it corrects what was expected."""

    day: str
    """``2026-11-30``, by UTC."""
    client: str
    """The name of the client's key; empty without one."""
    amount: float


class Book(Protocol):
    """Where what is spent is kept."""

    before: Sequence[Entry]
    """What stood there at the beginning."""

    def add(self, entry: Entry, /) -> None:
        """Keep an entry; returns at once. Calls don't come at the same time."""

    def close(self) -> None:
        """Keep what waits."""


class Ledger:
    """A file of what was spent; :meth:`add` never waits for the disk. Whatever befalls the file, the gateway serves;
    one that is damaged is set aside.

    Args:
        path: of the file; created with its folder, for its owner only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._has_said = False
        self._thread: threading.Thread | None = None
        """From the first entry on."""
        self.before: Sequence[Entry] = self._read() if path.exists() else []
        """What stands in the file."""

    def add(self, entry: Entry) -> None:
        """Write an entry soon. Calls must not come at the same time."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
            self._thread.start()
        self._entries.put(entry)

    def close(self) -> None:
        """Write what waits."""
        if self._thread is not None:
            self._entries.put(None)
            self._thread.join(_CLOSE_S)
            self._thread = None

    def _read(self) -> list[Entry]:
        for _ in range(2):
            try:
                with closing(self._open()) as connection:
                    return [Entry(*row) for row in connection.execute("SELECT day, client, amount FROM spent")]
            except FILE_ERRORS as error:
                self._say(f"can't be read: {error_line(error)}")
                if not is_damaged(error):
                    break
                try:
                    log.warning("it is set aside as %s, and nothing counts as spent", set_aside(self.path, "damaged"))
                except OSError:
                    break
        return []

    def _open(self) -> sqlite3.Connection:
        make_private(self.path)
        connection = sqlite3.connect(self.path, timeout=5.0)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            with connection:
                connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection

    def _run(self) -> None:
        """Write what comes, in the order in which it comes; what can't be written is tried again with the next."""
        waiting: list[Entry] = []
        is_open = True
        while is_open:
            entry = self._entries.get()
            is_open = entry is not None
            if entry is not None:
                waiting.append(entry)
            if waiting and (self._entries.empty() or not is_open):
                try:
                    self._write(waiting)
                    waiting = []
                    self._has_said = False
                except FILE_ERRORS as error:
                    self._say(f"can't be written, so that a restart would forget it: {error_line(error)}")

    def _write(self, entries: Sequence[Entry]) -> None:
        with closing(self._open()) as connection, connection:
            connection.executemany(_ADD, [(entry.day, entry.client, entry.amount) for entry in entries])
            connection.execute(
                "DELETE FROM spent WHERE day NOT IN (SELECT DISTINCT day FROM spent ORDER BY day DESC LIMIT ?)",
                (KEPT_DAYS,),
            )

    def _say(self, problem: str) -> None:
        if not self._has_said:
            log.warning("what was spent (%s) %s", self.path, problem)
            self._has_said = True


class Held(Struct):
    """What a request is expected to cost, while it runs."""

    day: str
    client: str
    amount: float
    is_agreed: bool = True
    """Whether it counts everywhere; else, by this process alone."""


class Budgets:
    """What was spent, against the budgets in force. Its methods may be called from any thread.

    Args:
        ledger: where it is kept; ``None`` keeps it in memory alone.
    """

    def __init__(self, ledger: Book | None = None) -> None:
        self.settings: Sequence[BudgetSettings] = ()
        """The budgets in force; they may be replaced, and what was spent stays."""
        self.agree: Callable[[Entry], Awaitable[str]] | None = None
        """Has whoever keeps what several processes spend count an entry, or tell why that may not be; ``None`` where
        this process spends alone. It does not raise; given up before it has returned, it takes the entry back."""
        self._ledger = ledger
        self._lock = threading.RLock()
        self._spent: dict[str, dict[str, float]] = {}
        """By day, and by client. None is forgotten: a clock that is wrong for a moment must not make it so."""
        for entry in ledger.before if ledger else ():
            self._spent.setdefault(entry.day, {})[entry.client] = entry.amount

    def refuses(self, client: str | None, amount: float | None, now_s: float) -> str:
        """Why so much may not be spent for a client now; empty where it may.

        Args:
            amount: ``None`` where it is not known; then nothing may be, where a budget counts.
            now_s: in seconds since 1970.
        """
        return self._refuses(client, amount, _day(now_s))

    def _refuses(self, client: str | None, amount: float | None, today: str) -> str:
        for budget in self.settings:
            if budget.key is not None and budget.key != client:
                continue
            name = f"the budget of {budget.limit:g} a {budget.per}{f' of {budget.key}' if budget.key else ''}"
            if amount is None:
                return f"its price is not known, and {name} counts"
            spent = self._spent_of(budget, today)
            if spent + amount > budget.limit:
                return f"{name} is spent ({spent:.4g}, and this takes {amount:.4g})"
        return ""

    def spent(self, budget: BudgetSettings, now_s: float) -> float:
        """What was spent of a budget in the present day or month, with what running requests are expected to cost."""
        return self._spent_of(budget, _day(now_s))

    def _spent_of(self, budget: BudgetSettings, today: str) -> float:
        period = today if budget.per == "day" else today[:7]
        with self._lock:
            return sum(
                amount
                for day, spent in self._spent.items()
                if day.startswith(period)
                for client, amount in spent.items()
                if budget.key in (None, client)
            )

    def hold(self, client: str | None, amount: float, now_s: float) -> Held:
        """Spend what a request is expected to cost."""
        held = Held(_day(now_s), client or "", amount)
        self._add(held.day, held.client, amount)
        return held

    def hold_if_left(self, client: str | None, amount: float | None, now_s: float) -> Held | str:
        """Spend what a request is expected to cost, or tell why that may not be, as :meth:`refuses` does; in one step,
        so that requests of several threads don't exceed a budget together.

        Args:
            amount: ``None`` where it is not known.
        """
        with self._lock:
            if refused := self.refuses(client, amount, now_s):
                return refused
            if self.agree is None or not self.settings:
                return self.hold(client, amount or 0.0, now_s)
            held = Held(_day(now_s), client or "", amount or 0.0, is_agreed=False)
            self._count(Entry(held.day, held.client, held.amount))
            return held

    async def agreed(self, held: Held) -> str:
        """Have what is held count everywhere, before it is spent. Returns why it may not be; then it is not held any
        more. Empty where it may."""
        if held.is_agreed or self.agree is None:
            return ""
        refused = await self.agree(Entry(held.day, held.client, held.amount))
        if refused:
            self.settle(held, 0.0)
        else:
            held.is_agreed = True
        return refused

    def spend_if_left(self, entry: Entry) -> str:
        """Count an entry of another process, and have it kept, or tell why it may not be spent."""
        with self._lock:
            if not (refused := self._refuses(entry.client or None, entry.amount, entry.day)):
                self.spend(entry)
            return refused

    def settle(self, held: Held, cost: float) -> None:
        """Correct what was held for a request to what it cost."""
        if held.is_agreed:
            self._add(held.day, held.client, cost - held.amount)
        else:
            with self._lock:
                self._count(Entry(held.day, held.client, -held.amount))
                self._add(held.day, held.client, cost)

    def learn(self, entry: Entry) -> None:
        """Count what another process has spent, which has it kept."""
        with self._lock:
            self._count(entry)

    def entries(self) -> list[Entry]:
        """All that was spent."""
        with self._lock:
            return [
                Entry(day, client, amount)
                for day, by_client in self._spent.items()
                for client, amount in by_client.items()
            ]

    def _add(self, day: str, client: str, amount: float) -> None:
        if amount:
            self.spend(Entry(day, client, amount))

    def spend(self, entry: Entry) -> None:
        """Count an entry, and have it kept."""
        with self._lock:
            self._count(entry)
            if self._ledger:
                self._ledger.add(entry)

    def _count(self, entry: Entry) -> None:
        spent = self._spent.setdefault(entry.day, {})
        spent[entry.client] = spent.get(entry.client, 0.0) + entry.amount


def _day(now_s: float) -> str:
    return datetime.fromtimestamp(now_s, UTC).date().isoformat()
