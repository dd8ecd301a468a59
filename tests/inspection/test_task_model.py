"""The shipped task model, and the prompts that it was made of."""

from collections import defaultdict
from math import exp, sqrt

import msgspec
import pytest
from training.task_model.prompts import lexicons, own_prompts

from paceline.inspection.features import features, instruction_of
from paceline.inspection.task_model import PLACES, WEIGHTS, TaskModel, tasks_of
from paceline.types import Task


def test_the_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size < 1_000_000


def test_it_tells_the_prompts_it_was_made_of() -> None:
    right: dict[str, list[bool]] = defaultdict(list)
    for prompt in own_prompts():
        right[prompt.task].append(next(iter(tasks_of(prompt.text))) == prompt.task)
    assert set(right) == set(Task)
    del right[Task.UNKNOWN]  # a text alone, without an instruction, may well be taken for something
    for task, hits in right.items():
        assert sum(hits) / len(hits) > 0.95, task


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("Could you put together a recipe app in Svelte?", Task.CODE),
        ("Give the tldr of this long read:\n\n" + "The council met again on Monday. " * 30, Task.SUMMARISE),
        ("Please render the next line in Swedish: the shop is closed", Task.TRANSLATE),
        ("Compose a ballad about a stubborn mule", Task.CREATE),
        ("who invented the zipper", Task.ANSWER),
        ("A crate holds 18 jars. How many jars are in 7 crates?", Task.MATH),
    ],
)
def test_it_tells_instructions_that_it_never_saw(text: str, task: Task) -> None:
    assert text not in {prompt.text for prompt in own_prompts()}
    assert next(iter(tasks_of(text))) is task


def test_packed_weights_add_up_like_plain_ones() -> None:
    file = msgspec.json.decode(WEIGHTS.read_bytes())
    weights = {tuple(feature): numbers for feature, numbers in file["others"]}
    weights |= {(place, word): numbers for place in PLACES for word, numbers in file["words"][place].items()}
    model = TaskModel()
    for prompt in own_prompts()[::97]:
        found = features(prompt.text)
        every = [*found.others, *((place, word) for place in PLACES for word in getattr(found, place))]
        sums = [sum(weights[one][task] for one in every if one in weights) for task in range(len(file["tasks"]))]
        norm = sqrt(len(every))
        scores = [(bias + total / norm) / file["scale"] for bias, total in zip(file["bias"], sums, strict=True)]
        odds = {task: exp(score - max(scores)) for task, score in zip(file["tasks"], scores, strict=True)}
        for task, probability in model.probabilities(found).items():
            assert probability == pytest.approx(odds[task] / sum(odds.values()), rel=0.2, abs=0.01)


def test_the_instruction_stands_before_or_after_what_is_pasted() -> None:
    pasted = "word " * 200
    assert instruction_of(f"Sum this up.\n\n{pasted}")[0] == "Sum this up."
    assert instruction_of(f"{pasted}\n\nSum this up.")[1] == "Sum this up."
    assert instruction_of("Sum this up.") == ("Sum this up.", "")
    assert len("".join(instruction_of("x" * 10_000_000))) < 1000


def test_every_lexicon_has_words() -> None:
    assert all(len(words) > 5 for words in lexicons().values())
