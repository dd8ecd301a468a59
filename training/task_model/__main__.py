"""Train the task model, or tell how well it can be trained.

    python -m training.task_model                      write src/paceline/inspection/task_model.json
    python -m training.task_model --evaluate           cross-validate
    python -m training.task_model --evaluate FILE      the same with the prompts of FILE beside our own; or, where FILE
                                                       holds recorded requests, what is found in them, by source

Multinomial logistic regression on the features of ``paceline.inspection.features``. A word that stands in one of the
lexicons has, in training, the lexicon as a feature too; the lexicon's weights are added to those of its words when the
model is written, so serving knows words that no prompt held, and looks up nothing more for it.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from sklearn.model_selection import GroupKFold

import paceline.inspection
from paceline.inspection.features import features
from paceline.inspection.task_model import PLACES
from paceline.types import Task
from training.task_model.prompts import Prompt, lexicons, own_prompts, read_prompts
from training.task_model.traffic import holds_traffic, inspected, report

OUTPUT = Path(paceline.inspection.__file__).parent / "task_model.json"
STRENGTH = 10.0
"""Inverse of the L2 penalty; found by cross-validation, flat between 6 and 60; the lower, the less sure of itself."""
MIN_INSTRUCTIONS = 2
"""A feature that fewer instructions have is not learned."""
FOLDS = 10
SCALE = 100
"""Weights are written as integers, in hundredths."""
MASKED = 0.5
"""Share of the prompts of which a masked copy is learned as unknown. Chosen by hand."""
KEPT_WORDS = (0.0, 0.0, 0.1, 0.2)
"""Shares of its words that such a copy keeps, one of them by chance. Chosen by hand."""
WORDS = (*PLACES, "lexicon", "asks", "ends")
"""Features that a masked copy loses."""
Feature = tuple[str | int, ...]
"""A place and a word, a property of the whole, or a lexicon at a place."""
Row = Mapping[Feature, float]

_lexicons_of: dict[str, list[str]] = {}
for _name, _words in lexicons().items():
    for _word in sorted(_words):
        _lexicons_of.setdefault(_word, []).append(_name)


def row(text: str) -> Row:
    """Features and lexicon counts of a text, over the square root of how many features it has."""
    text_features = features(text)
    counted: Counter[Feature] = Counter(dict.fromkeys(text_features.others, 1))
    for place in PLACES:
        for word in getattr(text_features, place):
            counted[place, word] = 1
            for name in _lexicons_of.get(word, ()):
                counted["lexicon", place, name] += 1
    return {feature: count / text_features.size**0.5 for feature, count in counted.items()}


def masked(prompts: Sequence[Prompt], rows: Sequence[Row]) -> tuple[list[Prompt], list[Row]]:
    """Copies of every second prompt without most of its words, which nobody could tell the task of: what the model
    does not know, it is to call unknown."""
    random = Random(1)
    copies: list[Prompt] = []
    kept: list[Row] = []
    for prompt, features_of in zip(prompts, rows, strict=True):
        if prompt.task == Task.UNKNOWN or random.random() > MASKED:
            continue
        share = random.choice(KEPT_WORDS)
        copies.append(Prompt(Task.UNKNOWN, prompt.text, f"masked {prompt.instruction}"))
        in_order = sorted(features_of, key=repr)  # sets have another order in every run
        stays = [key for key in in_order if key[0] not in WORDS or random.random() < share]
        kept.append({key: features_of[key] for key in stays})
    return copies, kept


class Trained:
    """A fitted model with its vocabulary."""

    def __init__(self, prompts: Sequence[Prompt], rows: Sequence[Row]) -> None:
        copies, kept = masked(prompts, rows)
        prompts, rows = [*prompts, *copies], [*rows, *kept]
        instructions: dict[Feature, set[str]] = {}
        for prompt, features_of in zip(prompts, rows, strict=True):
            for feature in features_of:
                instructions.setdefault(feature, set()).add(prompt.instruction)
        learned = sorted((feature for feature, held in instructions.items() if len(held) >= MIN_INSTRUCTIONS), key=repr)
        self.vocabulary = {feature: index for index, feature in enumerate(learned)}
        forms = Counter(prompt.instruction for prompt in prompts)
        in_task: dict[str, float] = defaultdict(float)
        for prompt in prompts:
            in_task[prompt.task] += 1 / forms[prompt.instruction]
        # Every instruction counts once, and a task with many instructions less than in proportion to them.
        weights = np.array([in_task[prompt.task] ** -0.7 / forms[prompt.instruction] for prompt in prompts])
        self.model = LogisticRegression(C=STRENGTH, max_iter=300)
        self.model.fit(self._matrix(rows), [prompt.task for prompt in prompts], sample_weight=weights / weights.mean())

    def predict(self, rows: Sequence[Row]) -> list[str]:
        return [str(task) for task in self.model.predict(self._matrix(rows))]

    def _matrix(self, rows: Sequence[Row]) -> csr_matrix:
        entries = [
            (number, self.vocabulary[feature], value)
            for number, features_of in enumerate(rows)
            for feature, value in features_of.items()
            if feature in self.vocabulary
        ]
        at, column, values = zip(*entries, strict=True)
        return csr_matrix((values, (at, column)), shape=(len(rows), len(self.vocabulary)))

    def write(self, path: Path) -> int:
        """Write the weights for serving; returns the number of bytes."""
        of_feature = {feature: self.model.coef_[:, index] for feature, index in self.vocabulary.items()}
        weights = {feature: weight for feature, weight in of_feature.items() if feature[0] != "lexicon"}
        for word, names in _lexicons_of.items():
            for place in PLACES:
                shared = [of_feature[key] for name in names if (key := ("lexicon", place, name)) in of_feature]
                if shared:
                    weights[place, word] = weights.get((place, word), np.zeros(len(self.model.classes_))) + sum(shared)
        rounded = {
            feature: np.rint(weights[feature] * SCALE).astype(int).tolist()
            for feature in sorted(weights, key=repr)
            if np.abs(weights[feature]).max() * SCALE >= SCALE // 10 - 0.5
        }
        document = {
            "scale": SCALE,
            "tasks": self.model.classes_.tolist(),
            "bias": np.rint(self.model.intercept_ * SCALE).astype(int).tolist(),
            "words": {
                place: {feature[1]: weight for feature, weight in rounded.items() if feature[0] == place}
                for place in PLACES
            },
            "others": [[feature, weight] for feature, weight in rounded.items() if feature[0] not in PLACES],
        }
        encoded = msgspec.json.encode(document).replace(b"],", b"],\n")
        return path.write_bytes(encoded + b"\n")


def evaluate(prompts: Sequence[Prompt], others: Sequence[Prompt]) -> None:
    """Cross-validation in which no instruction stands on both sides, and our prompts alone tried on the others."""
    everything = [*prompts, *others]
    rows = [row(prompt.text) for prompt in everything]
    predicted: Any = np.empty(len(everything), dtype=object)
    folds = GroupKFold(FOLDS, shuffle=True, random_state=0)
    for train, test in folds.split(rows, groups=[prompt.instruction for prompt in everything]):
        trained = Trained([everything[i] for i in train], [rows[i] for i in train])
        predicted[test] = trained.predict([rows[i] for i in test])
    print(f"{FOLDS}-fold cross-validation, no instruction in two folds, every instruction counted once\n")
    _report("all", everything, predicted)
    if others:
        _report("the given file's part", everything[len(prompts) :], predicted[len(prompts) :])
        alone = Trained(prompts, rows[: len(prompts)]).predict(rows[len(prompts) :])
        print("trained on our own prompts alone, tried on the given file\n")
        _report("the given file", others, np.array(alone, dtype=object))


def _report(name: str, prompts: Sequence[Prompt], predicted: np.ndarray) -> None:
    forms = Counter(prompt.instruction for prompt in prompts)
    weights = [1 / forms[prompt.instruction] for prompt in prompts]
    truth = [prompt.task for prompt in prompts]
    labels = sorted(set(truth))
    accuracy = accuracy_score(truth, predicted, sample_weight=weights)
    f1 = f1_score(truth, predicted, labels=labels, average="macro", sample_weight=weights)
    print(
        f"**{name}**: {len(prompts)} prompts of {len(forms)} instructions, accuracy {accuracy:.3f}, macro-F1 {f1:.3f}\n"
    )
    columns = sorted(set(truth) | set(predicted))
    table = confusion_matrix(truth, predicted, labels=columns, sample_weight=weights)
    print("| is \\ told | " + " | ".join(columns) + " | right |")
    print("|---" * (len(columns) + 2) + "|")
    for task, counts in zip(columns, table, strict=True):
        if counts.sum():
            right = counts[columns.index(task)] / counts.sum()
            print(f"| {task} | " + " | ".join(f"{n:.0f}" if n >= 0.5 else "" for n in counts) + f" | {right:.2f} |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluate", nargs="?", const="", metavar="FILE", help="cross-validate instead")
    options = parser.parse_args()
    if options.evaluate and holds_traffic(Path(options.evaluate)):
        report(inspected(Path(options.evaluate)))
        return
    prompts = own_prompts()
    if options.evaluate is None:
        size_bytes = Trained(prompts, [row(prompt.text) for prompt in prompts]).write(OUTPUT)
        print(f"{OUTPUT}: {size_bytes:,} bytes, from {len(prompts)} prompts")
    else:
        evaluate(prompts, read_prompts(Path(options.evaluate)) if options.evaluate else [])


if __name__ == "__main__":
    main()
