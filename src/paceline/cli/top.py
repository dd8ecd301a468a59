"""``paceline top``: what a running gateway is doing, in a terminal."""

import argparse
import sys
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from shutil import get_terminal_size
from statistics import median
from typing import Any

from paceline.cli.common import Subparsers, add_command, fail
from paceline.cli.key_presses import key_presses
from paceline.cli.remote import Address, Unanswered, add_address_options, address, ask
from paceline.configuration import ConfigurationError
from paceline.text_table import NEVER_PAYS, UNKNOWN, amount, columns, shown_name, shown_number

INTERVAL_S = 1.0
"""Between two looks at the gateway."""
REPORT_EVERY = 10
"""Looks between two at the report, which costs the gateway more and changes slowly."""
RANGE_S = 3600
"""Of which speeds are told."""
MAX_SHOWN = 8
"""Requests that run, and that have ended."""
MAX_POSITIONS = 8
"""Of drafts."""
MAX_REQUESTS = 1000
"""That are remembered, as many as a gateway remembers (``records/recent.py``)."""
OTHER_SCREEN, OWN_SCREEN, HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[?1049h", "\x1b[?1049l", "\x1b[H", "\x1b[K", "\x1b[J"
"""Of xterm, which all terminals know (https://invisible-island.net/xterm/ctlseqs/ctlseqs.html)."""
QUITTING = ("q", "Q")


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "top",
        "watch a running gateway",
        "Show what a running gateway does, in the order of its dashboard: whether it is up, how fast it "
        "is, what routing brought and what needs attention; then requests, lanes, drafters, tasks, "
        "where requests went and what slots hold. In a terminal it is shown again each second until q "
        "or Ctrl-C, otherwise once.",
    )
    add_address_options(parser)
    parser.add_argument("--once", action="store_true", help="show it once, and end")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        watched = _Watched(address(options))
        watched.update()
    except (ConfigurationError, Unanswered) as error:
        return fail(str(error))
    if options.once or not sys.stdout.isatty():
        print("\n".join(watched.lines()))
        return 0
    print(OTHER_SCREEN, end="")
    try:
        with key_presses() as pressed:
            _draw(watched.lines())
            while pressed(INTERVAL_S) not in QUITTING:
                watched.update_or_say_why_not()
                _draw(watched.lines())
    finally:
        print(OWN_SCREEN, end="", flush=True)
    return 0


def _draw(lines: Sequence[str]) -> None:
    width, height = get_terminal_size()
    shown = [line[: width - 1] + CLEAR_LINE for line in lines[: height - 1]]
    print(HOME + "\n".join(shown) + CLEAR_BELOW, end="", flush=True)


class _Watched:
    """What was heard of a gateway."""

    def __init__(self, gateway: Address) -> None:
        self._gateway = gateway
        self._rounds = 0
        self._last = 0
        self._lanes: dict[str, Any] = {}
        self._report: dict[str, Any] = {}
        self._history: dict[str, Any] = {}
        self._drafting: dict[str, Any] = {}
        self._requests: deque[dict[str, Any]] = deque(maxlen=MAX_REQUESTS)
        self._problem = ""

    def update(self) -> None:
        """
        Raises:
            Unanswered: the gateway does not answer.
        """
        self._lanes = ask(self._gateway, "GET", "/paceline/lanes")
        newer = ask(self._gateway, "GET", f"/paceline/requests?after={self._last}")
        if newer["last"] < self._last:  # it was started again
            self._requests.clear()
            newer = ask(self._gateway, "GET", "/paceline/requests")
        self._last = newer["last"]
        self._requests.extend(newer["requests"])
        if self._rounds % REPORT_EVERY == 0:
            self._history = ask(self._gateway, "GET", f"/paceline/history?range_s={RANGE_S}")
            self._drafting = ask(self._gateway, "GET", "/paceline/drafting")
            self._report = ask(self._gateway, "GET", "/paceline/report")
        self._rounds += 1
        self._problem = ""

    def update_or_say_why_not(self) -> None:
        try:
            self.update()
        except Unanswered as error:
            self._problem = str(error)

    def lines(self) -> list[str]:
        lanes = self._lanes["lanes"]
        up = sum(lane["health"] == "up" for lane in lanes)
        head = f"paceline {self._lanes['version']} at {self._gateway.url}: {up} of {len(lanes)} lanes up, "
        head += f"{self._lanes['in_flight']} requests in flight"
        parts = [
            self._problem or head,
            "\n".join([speeds(self._history["total"]), *need_lines(self._lanes["needs"])]),
            _brought(self._report),
            *request_parts(self._lanes["running"], self._requests),
            lanes_table(lanes),
        ]
        parts += ["\n".join(lines) for lines in [drafter_lines(self._drafting["drafters"])] if lines]
        parts += [*task_tables(self._requests), *money_parts(self._lanes)]
        if contexts := context_lines(lanes):
            parts.append("\n".join(contexts))
        return "\n\n".join(parts).splitlines()


def speeds(total: dict[str, Any]) -> str:
    """How much and how fast lately."""
    requests = total["requests"]
    parts = [f"last hour: {requests} request{'s' * (requests != 1)}, {total['failed']} failed"]
    if total["tokens_per_s"] is not None:
        parts.append(f"{total['tokens_per_s']:.1f} tokens/s")
    if total["first_token_p50_s"] is not None:
        parts.append(f"first token {total['first_token_p50_s']:.2f} s, p95 {total['first_token_p95_s']:.2f} s")
    return "; ".join(parts)


def need_lines(needs: Sequence[dict[str, Any]]) -> list[str]:
    """What needs somebody, with what to do."""
    if not needs:
        return ["nothing needs you"]
    return [f"{need['severity']}, {need['about']}: {need['problem']} {need['action']}" for need in needs]


def request_parts(running: Sequence[dict[str, Any]], ended: deque[dict[str, Any]]) -> list[str]:
    """The requests that run, and the last ones that have ended."""
    parts = []
    if running:
        rows = [
            (one["phase"], f"{one['age_s']:.1f} s", one["lane"] or UNKNOWN, one["task"] or UNKNOWN)
            for one in running[:MAX_SHOWN]
        ]
        parts.append(columns([(f"{len(running)} running", "for", "lane", "task"), *rows]))
    if ended:
        parts.append(decisions(list(ended)[-MAX_SHOWN:]))
    return parts


def drafter_lines(drafters: Sequence[dict[str, Any]]) -> list[str]:
    """For each drafter, whether it pays, what was accepted, and by position."""
    lines = []
    for one in drafters:
        name = one["kind"] + (f" up to {one['n_max']}" if one["n_max"] else "") + f" on {one['engine']}"
        if one["worth"] is None or not one["is_sure"]:
            finding = "it can't be told yet whether it pays"
        else:
            finding = "pays" if one["worth"] > 1 else "costs more than it brings"
            finding += f": its steps are {one['worth']:.2f} times as fast as plain ones"
        line = f"{name}: {finding}"
        if one["drafted"]:
            line += f"; accepted {one['accepted'] / one['drafted']:.0%} of {one['drafted']} tokens"
        shares = [each["accepted"] for each in one["positions"] if each["accepted"] is not None]
        if shares:
            line += f", by position {' '.join(f'{share:.0%}' for share in shares[:MAX_POSITIONS])}"
        lines.append(line)
    return lines


def _brought(report: dict[str, Any]) -> str:
    """The verdict, under what it is about; where there are several, it says that itself."""
    comparisons, verdict = report["comparisons"], str(report["verdict"])
    about = comparisons[0]["about"] if len(comparisons) == 1 else ""
    return verdict if verdict.startswith(about) else f"{about}:\n{verdict}"


def money_parts(document: dict[str, Any]) -> list[str]:
    """Where requests went and why, what that saves, and what is spent of each budget; nothing where there is neither a
    cloud engine nor a price nor a budget."""
    if (money := document["money"]) is None:
        return []
    currency = money["currency"]
    rows = [("engine", "where", "answers", f"paid, {currency}", "why")]
    rows += [
        (
            shown_name(engine["engine"]),
            "a provider's" if engine["is_cloud"] else "one's own",
            str(engine["answers"]),
            _paid(engine),
            "; ".join(f"{why}: {count}" for why, count in engine["why"].items()) or UNKNOWN,
        )
        for engine in money["engines"]
    ]
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(money["since_s"]))
    parts = [money["verdict"], f"where requests went since {since}:\n{columns(rows)}"]
    if document["budgets"]:
        spending = [("budget", f"spent, {currency}", f"limit, {currency}", "share")]
        spending += [
            (
                f"this {budget['per']} (UTC)" + (f", {shown_name(budget['key'])}" if budget["key"] else ""),
                amount(budget["spent"]),
                amount(budget["limit"]),
                f"{budget['spent'] / budget['limit']:.0%}" if budget["limit"] else UNKNOWN,
            )
            for budget in document["budgets"]
        ]
        parts.append(columns(spending))
    return parts


def _paid(engine: dict[str, Any]) -> str:
    """What a provider was paid, and how sure that is."""
    if not engine["is_cloud"]:
        return UNKNOWN
    unsure = [f"{engine['estimates']} estimated"] if engine["estimates"] else []
    unsure += [f"{engine['unpriced']} of unknown price"] if engine["unpriced"] else []
    return amount(engine["paid"]) + (f" ({', '.join(unsure)})" if unsure else "")


def lanes_table(lanes: Sequence[dict[str, Any]]) -> str:
    """A row for each lane; of an engine that serves several models, one for each of them that was asked for."""
    rows = [("lane", "health", "model", "running", "waiting", "requests", "tokens/s", "accepted", "break-even")]
    for lane in lanes:
        for number, of_model in enumerate(lane["by_model"]):
            measured = of_model["measured"]
            rows.append(
                (
                    "" if number else lane["lane"],
                    "" if number else lane["health"],
                    shown_name(of_model["model"] or UNKNOWN),
                    "" if number else str(lane["running"]),
                    "" if number else str(lane["waiting"]),
                    str(measured["requests"]),
                    shown_number(measured["tokens_per_s"], ".1f"),
                    shown_number(measured["acceptance"], ".2f"),
                    shown_number(of_model["step"]["break_even_acceptance"], ".2f"),
                )
            )
    return columns(rows)


def context_lines(lanes: Sequence[dict[str, Any]]) -> list[str]:
    """For each engine that tells, how much of its context each slot holds."""
    engines = {lane["engine"]["name"]: lane["engine"] for lane in lanes}
    lines = []
    for name, engine in engines.items():
        held, most = engine.get("slot_tokens") or (), engine["context_tokens"]
        if held:
            shown = "  ".join(f"{tokens:,}" + (f" ({tokens / most:.0%})" if most else "") for tokens in held)
            of = f" of {most:,} tokens" if most else " tokens"
            lines.append(f"context of {name}, by slot: {shown}{of}")
    return lines


def task_tables(requests: Sequence[dict[str, Any]] | deque[dict[str, Any]]) -> list[str]:
    """A table for each model, of the requests that its lanes served with their latest settings."""
    newest = {
        (request["model"], request["lane"]): request["fingerprint"] for request in requests if request["fingerprint"]
    }
    by_model: dict[str | None, list[dict[str, Any]]] = defaultdict(list)
    for request in requests:
        is_current = newest.get((request["model"], request["lane"])) == request["fingerprint"]
        if request["error"] is None and is_current:
            by_model[request["model"]].append(request)
    return [
        (f"{shown_name(model)}:\n" if model else "") + _tasks_of_one_model(its_requests)
        for model, its_requests in by_model.items()
    ]


def _tasks_of_one_model(requests: Sequence[dict[str, Any]]) -> str:
    by_task: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for request in requests:
        by_task[request["task"]].append(request)
    rows = [("task", "requests", "tokens/s", "with drafts", "accepted", "break-even")]
    for task, alike in sorted(by_task.items(), key=lambda task_and_requests: -len(task_and_requests[1])):
        tokens, seconds, drafted, accepted = (
            sum(request["observed"][name] or 0 for request in alike)
            for name in ("decode_tokens", "decode_s", "drafted", "accepted")
        )
        needed = [request["break_even_share"] for request in alike if request["break_even_share"] is not None]
        rows.append(
            (
                task,
                str(len(alike)),
                shown_number(tokens / seconds if seconds else None, ".1f"),
                f"{sum(request['drafts'] for request in alike) / len(alike):.0%}",
                shown_number(accepted / drafted if drafted else None, ".2f"),
                NEVER_PAYS
                if needed and median(needed) > 1
                else shown_number(median(needed) if needed else None, ".2f"),
            )
        )
    return columns(rows)


def decisions(requests: Sequence[dict[str, Any]] | deque[dict[str, Any]]) -> str:
    """A line for each request, the last one first: what came of it and why in words, what it cost, and which engines
    it could not go to."""
    lines = []
    for request in reversed(requests):
        at = time.strftime("%H:%M:%S", time.localtime(request["at_s"]))
        line = f"{at}  {request['status']}  {request['lane']}  "
        if request["cost"] is not None:
            line += f"{'about ' if request['cost_is_estimate'] else ''}{amount(request['cost'])}  "
        line += request["error"] or request["why"]
        for engine, why in (request["placed"] or {"struck": {}})["struck"].items():
            line += f"; not {engine}: {why}"
        lines.append(line)
    return "\n".join(lines)
