"""The draft control that the patch brings to llama.cpp, without llama.cpp: it chooses as the rule in Python does."""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from paceline.engines.llama_cpp_build import PATCH
from paceline.inside import draft_control

DRIVER = Path(__file__).parent / "draft_control.cpp"
SOURCES = ("common/speculative-control.h", "common/speculative-control.cpp")

Ask = Callable[[Sequence[str]], list[str]]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("clang++")
    if not compiler:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("control")
    for name in SOURCES:
        (folder / Path(name).name).write_text(added_by_the_patch(name))
    program = folder / "control"
    sources = [str(DRIVER), str(folder / "speculative-control.cpp")]
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{folder}"]
    subprocess.run([compiler, *flags, *sources, "-o", str(program)], check=True)

    def ask(commands: Sequence[str]) -> list[str]:
        done = subprocess.run([program], input="\n".join(commands), capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    return ask


def added_by_the_patch(name: str) -> str:
    """A file that is new in the patch."""
    lines = PATCH.read_text("utf-8").split(f"+++ b/{name}\n")[1].split("diff --git")[0].splitlines()
    return "\n".join(line[1:] for line in lines if line.startswith("+")) + "\n"


def listed(values: Sequence[float]) -> str:
    return " ".join(map(str, [len(values), *values]))


@pytest.mark.parametrize("seed", range(12))
def test_it_chooses_as_the_rule_in_python_does(seed: int, ask: Ask) -> None:
    random = Random(seed)
    longest = 8
    steps = [1.0, 1.2, 1.5, 2.0]

    def probabilities() -> list[float]:
        return [round(random.uniform(0.05, 1.0), 3) for _ in range(random.randint(1, 5))]

    drafters = {}
    for name in ("ngram", "mtp", "draft")[: random.randint(1, 3)]:
        cost, more = random.choice(steps), random.uniform(0.02, 0.6)
        costs = [round(cost + more * position, 3) for position in range(longest)]
        is_lookup = name == "ngram"
        by_match = {2: probabilities(), 5: probabilities()} if is_lookup and random.random() < 0.7 else {}
        weight = round(random.uniform(0, 20), 2)
        drafters[name] = draft_control.Drafter(costs, probabilities(), by_match, weight, is_lookup)
    python = draft_control.DraftControl(drafters)
    names = list(drafters)
    commands = [
        f"drafter {int(one.is_watched)} {one.weight} {longest} {listed(one.costs)} {listed(one.acceptance)} "
        f"{len(one.by_match)} " + " ".join(f"{match} {listed(values)}" for match, values in one.by_match.items())
        for one in drafters.values()
    ]
    commands.append("begin")
    expected: list[Any] = []
    good = random.uniform(0.1, 0.95)
    for _ in range(150):
        offers = {name: draft_control.Offer(random.randint(0, longest), random.randint(0, 8)) for name in names}
        commands.append("choose " + " ".join(f"{one.tokens} {one.match}" for one in offers.values()))
        choice = python.choose(offers)
        expected.append((names.index(choice.drafter) if choice.drafter else -1, choice.length, choice.longest))
        expected[-1] += (python.rate,)
        if choice.drafter is None:
            commands.append("decoded 1")
            python.decoded(1)
        else:
            confidences = [round(random.uniform(0.05, 1), 3) for _ in range(random.randint(1, longest))]
            reach = 1.0
            for position, confidence in enumerate(confidences, start=1):
                reach *= (confidence * python.acceptance(choice.drafter, position)) ** 0.5
            commands.append(f"worth {reach!r} {len(confidences)}")
            expected.append(python.goes_on(choice, confidences))
            accepted = 0
            while accepted < choice.length and random.random() < good:
                accepted += 1
            match = offers[choice.drafter].match
            commands.append(f"verified {names.index(choice.drafter)} {choice.length} {accepted} {match}")
            python.verified(choice.drafter, choice.length, accepted, match)
        for number, name in enumerate(names):
            if drafters[name].is_watched and name != choice.drafter and offers[name].tokens:
                accepted = random.randint(0, offers[name].tokens)
                commands.append(f"watched {number} {offers[name].tokens} {accepted} {offers[name].match}")
                python.watched(name, offers[name].tokens, accepted, offers[name].match)
    answers = ask(commands)
    assert len(answers) == len(expected)
    drafted = 0
    for answer, wanted in zip(answers, expected, strict=True):
        if isinstance(wanted, bool):
            assert int(answer) == wanted
            continue
        *numbers, rate = answer.split()
        assert tuple(map(int, numbers)) == wanted[:3]
        assert float(rate) == pytest.approx(wanted[3], rel=1e-5)
        drafted += wanted[0] >= 0
    assert drafted, "a case in which nothing is drafted shows nothing"


@pytest.mark.parametrize("seed", range(20))
def test_a_lookup_finds_the_longest_match_and_the_latest_of_those(seed: int, ask: Ask) -> None:
    random = Random(seed)
    tokens = [random.randint(0, 3) for _ in range(random.randint(0, 60))]
    longest = 5
    best, at = 0, -1
    for end in range(1, len(tokens) - 1):
        match = 0
        while match <= end and tokens[end - match] == tokens[len(tokens) - 1 - match]:
            match += 1
        if match >= max(2, best):
            best, at = match, end
    draft: list[int] = []
    for position in range(longest if best else 0):
        follows = at + 1 + position
        draft.append(tokens[follows] if follows < len(tokens) else draft[follows - len(tokens)])
    (answer,) = ask([f"lookup {longest} {listed(tokens)}"])
    assert list(map(int, answer.split())) == [best, *draft]


COSTS = [1.3, 1.6, 1.9, 2.2]
"""Of steps that draft one to four tokens, where all of a batch do."""


def together(
    ask: Ask,
    acceptances: Sequence[float],
    others: int = 0,
    longest: Sequence[int] = (),
    idle: int = 0,
    behind: float = 0,
) -> list[int]:
    """How far requests draft that are decoded together, each with one acceptance for all positions.

    Args:
        idle: tokens that each has generated without drafts.
        behind: plain steps that it takes until one can draft.
    """
    requests = [f"drafter 0 12 4 {listed(COSTS)} {listed([acceptance] * 4)} 0\nrequest" for acceptance in acceptances]
    limits = " ".join(map(str, longest or [4] * len(acceptances)))
    return list(map(int, ask([*requests, f"decoded {idle}", f"behind {behind}", f"together {others} {limits}"])))


def test_requests_that_are_decoded_together_draft_alike(ask: Ask) -> None:
    assert together(ask, [0.9] * 4) == [4] * 4
    assert together(ask, [0.05] * 4) == [0] * 4
    mixed = together(ask, [0.9, 0.9, 0.9, 0.3])
    assert len(set(mixed)) == 1
    assert mixed[0] > 0, "what three gain is more than what one loses"
    assert together(ask, [0.9, 0.05, 0.05, 0.05]) == [0] * 4, "what one gains is less than what three lose"


def test_those_that_can_not_draft_are_waited_for(ask: Ask) -> None:
    """They are decoded apart, for a step of everybody's time."""
    assert together(ask, [0.95, 0.95]) == [4, 4]
    assert together(ask, [0.95, 0.95], others=1) == [0, 0]
    assert together(ask, [0.95, 0.95], longest=[4, 0]) == [0, 0]
    assert together(ask, [0.95, 0.95], longest=[4, 2]) == [2, 2]


def test_a_drafter_catches_up_where_drafts_save_more_than_that_takes(ask: Ask) -> None:
    """Within as many tokens as it was idle for: with acceptance 0.9 they save a half of every step."""
    assert alone(ask, 0.9, idle=200, behind=60) == 4
    assert alone(ask, 0.9, idle=200, behind=140) == 0
    assert alone(ask, 0.9, idle=2, behind=60) == 0
    assert alone(ask, 0.05, idle=200, behind=60) == 0
    assert together(ask, [0.9, 0.9], idle=200, behind=30) == [4, 4]
    assert together(ask, [0.9, 0.3], idle=200, behind=10) != [0, 0], "what both save pays for both"
    assert together(ask, [0.9, 0.9], idle=200, behind=70) == [0, 0], "each waits for the other too"
    assert together(ask, [0.05, 0.05], idle=200, behind=30) == [0, 0]


def alone(ask: Ask, acceptance: float, idle: int, behind: float) -> int:
    """How far a request drafts that is decoded alone."""
    drafter = f"drafter 0 12 4 {listed(COSTS)} {listed([acceptance] * 4)} 0"
    (answer,) = ask([drafter, "begin", f"decoded {idle}", f"behind {behind}", "choose 4 0"])
    return int(answer.split()[1])


def test_nobody_is_together_with_nobody(ask: Ask) -> None:
    assert together(ask, []) == []
