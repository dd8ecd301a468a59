"""``paceline lanes``: what a running gateway can choose among, as a table."""

import argparse
from typing import Any

from paceline.cli.common import Subparsers, add_command, fail
from paceline.cli.remote import Unanswered, add_address_options, address, ask
from paceline.configuration import ConfigurationError
from paceline.text_table import NEVER_PAYS, UNKNOWN, columns, shown_name, shown_number

COLUMNS = (
    "lane", "health", "decodes", "chosen", "engine", "slots", "context",
    "model", "requests", "failed", "tokens/s", "plain step", "step cost", "accepted", "break-even",
)  # fmt: skip
ABOUT_LANE = 7
"""Of them, those that are the same for all models of a lane."""


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "lanes",
        "show a running gateway's lanes",
        "Show the lanes of a running gateway: each lane's engine as it was found to be, and what was "
        "measured. `chosen` says whether the drafting is decided by the engine at each step, by each "
        "request, or when the engine is started.",
    )
    add_address_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        document = ask(address(options), "GET", "/paceline/lanes")
        lanes = document["lanes"]
    except (ConfigurationError, Unanswered) as error:
        return fail(str(error))
    print(columns([COLUMNS, *(row for lane in lanes for row in rows_of(lane))]))
    for lane in lanes:
        for note in (lane["problem"], *lane["engine"]["warnings"]):
            if note:
                print(f"{lane['lane']}: {note}")
    for engine, fault in dict.fromkeys((lane["engine"]["name"], fault) for lane in lanes for fault in faults_of(lane)):
        print(f"{engine}: {fault}")
    if sharing := document.get("sharing"):
        print(f"sharing: {in_words(sharing)}")
    return 0


def in_words(sharing: dict[str, Any]) -> str:
    """How it is to share what is learned with other gateways."""
    if sharing["problem"]:
        return f"not for now: {sharing['problem']}"
    refused = sum(sharing["refused"].values())
    left_out = f", and {refused} were left out" if refused else ""
    return f"{sharing['peers']} others are there; {sharing['learned']} messages of theirs were learned{left_out}"


def faults_of(lane: dict[str, Any]) -> list[str]:
    """What is wrong with a lane's drafters; nothing that gateways of older versions tell."""
    faults = lane.get("faults", [])
    return faults if isinstance(faults, list) else []


def rows_of(lane: dict[str, Any]) -> list[tuple[str, ...]]:
    """One; of an engine that serves several models, one for each of them that was asked for."""
    engine, strategy = lane["engine"], lane["strategy"]
    about = (
        lane["lane"],
        lane["health"],
        _decodes(strategy),
        "by step" if strategy.get("among") else "by request" if engine["drafters"] else "at start",
        " ".join(filter(None, (engine["kind"], engine["build"]))),
        shown_number(engine["slots"]),
        shown_number(engine["context_tokens"]),
    )
    rows = []
    for number, of_model in enumerate(lane["by_model"]):
        measured, step = of_model["measured"], of_model.get("step", {})
        cost, break_even = step.get("drafting_cost_in_plain_steps"), step.get("break_even_acceptance")
        rows.append(
            (
                *(about if number == 0 else [""] * ABOUT_LANE),
                shown_name(of_model["model"] or UNKNOWN),
                shown_number(measured["requests"]),
                shown_number(measured.get("failures")),
                shown_number(measured["tokens_per_s"], ".1f"),
                shown_number(step.get("plain_ms"), ".1f", UNKNOWN) + (" ms" if step.get("plain_ms") else ""),
                shown_number(cost, ".2f"),
                shown_number(measured["acceptance"], ".0%"),
                NEVER_PAYS if cost is not None and break_even is None else shown_number(break_even, ".0%"),
            )
        )
    return rows


def _decodes(strategy: dict[str, Any]) -> str:
    """A strategy in words."""
    if among := strategy.get("among"):
        return ", ".join(
            one["kind"] if one["n_max"] is None else f"{one['kind']} up to {one['n_max']}" for one in among
        )
    if strategy["kind"] == "autoregressive" or strategy["n_max"] == 0:
        return "plain"
    return str(strategy["kind"]) if strategy["n_max"] is None else f"{strategy['kind']} up to {strategy['n_max']}"
