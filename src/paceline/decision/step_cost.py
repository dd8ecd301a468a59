"""What a step costs on a machine, in units of a plain step made alone.

    cost = 1 + jump * [batch holds more than one token] + draft * drafted tokens + other * other requests + context * k

where other requests are those that are decoded in the same batch, and ``k`` is the context in thousands of tokens. A
batch of two costs more than one by more than a batch of three than two (on CPUs by far), hence the jump. Linear
regression with a normal prior; its sums fade, and add.
"""

from math import exp2

from msgspec import Struct

PRIOR_MEAN = (0.4, 0.12, 0.2, 0.01)
PRIOR_DEVIATION = (0.5, 0.12, 0.2, 0.02)
"""Of jump, draft, other and context, in plain steps: between a GPU, where a batch of eight costs little more than one
token, and a small quantized model on a CPU, where it costs three times as much."""
HALF_LIFE_S = 8 * 3600.0
"""After which a request counts half; set by hand."""
NOISE = 0.15
"""Relative standard deviation of a request's mean step time; set by hand, as ``TIME_NOISE`` in ``tuning.py``."""
SIZE = len(PRIOR_MEAN)
"""Coefficients."""
_PRIOR_PRECISION = [deviation**-2 for deviation in PRIOR_DEVIATION]
_PRIOR_PRODUCTS = [precision * mean for precision, mean in zip(_PRIOR_PRECISION, PRIOR_MEAN, strict=True)]


class StepCost(Struct, frozen=True):
    """The regression's sums, and the coefficients that follow from them."""

    at_s: float
    squares: tuple[float, ...]
    """Sums of products of the inputs, row by row."""
    products: tuple[float, ...]
    """Sums of products of the inputs and the outcome."""
    coefficients: tuple[float, ...]
    drafting: tuple[float, float, float] = (PRIOR_DEVIATION[0] ** 2, 0.0, PRIOR_DEVIATION[1] ** 2)
    """Variance of the jump, covariance of jump and drafted token, variance of the drafted token: as long as all drafts
    had one length, it is not known which of the two they cost."""

    @property
    def is_sound(self) -> bool:
        """Whether its parts fit one another."""
        return (len(self.squares), len(self.products), len(self.coefficients)) == (SIZE**2, SIZE, SIZE)


NOTHING = StepCost(at_s=0.0, squares=(0.0,) * SIZE**2, products=(0.0,) * SIZE, coefficients=PRIOR_MEAN)


def cost(coefficients: tuple[float, ...], drafted: float, concurrent: float, context_k: float) -> float:
    """Of a step that verifies ``drafted`` tokens while ``concurrent`` other requests are decoded in it."""
    jump, draft, other, context = coefficients
    return 1 + jump * min(1.0, drafted + concurrent) + draft * drafted + other * concurrent + context * context_k


def drafting_variance(step_cost: StepCost, drafted: float) -> float:
    """Of the cost of a step that verifies ``drafted`` tokens."""
    jump, both, draft = step_cost.drafting
    return jump + (2 * both + draft * drafted) * drafted


def inputs(
    steps: float, verification_steps: float, drafted: float, concurrent: float, context_k: float
) -> tuple[float, ...]:
    """The regression's inputs for a request of ``steps`` steps, ``verification_steps`` of which verified ``drafted``
    tokens in all."""
    shared = min(1.0, concurrent)
    return shared + (1 - shared) * verification_steps / steps, drafted / steps, concurrent, context_k


def with_request(past: StepCost, given: tuple[float, ...], relative_cost: float, at_s: float) -> StepCost:
    """The sums with one more request, whose steps took ``relative_cost`` plain steps on average."""
    weight = 1 / (NOISE * max(1.0, relative_cost)) ** 2
    squares = tuple([weight * a * b for a in given for b in given])
    products = tuple([weight * a * (relative_cost - 1) for a in given])
    return merged(past, StepCost(at_s=at_s, squares=squares, products=products, coefficients=PRIOR_MEAN))


def merged(first: StepCost, second: StepCost) -> StepCost:
    """Both sums. Commutative and associative, up to rounding."""
    early, late = (first, second) if first.at_s <= second.at_s else (second, first)
    fade = exp2(-(late.at_s - early.at_s) / HALF_LIFE_S)
    squares = tuple([a * fade + b for a, b in zip(early.squares, late.squares, strict=True)])
    products = tuple([a * fade + b for a, b in zip(early.products, late.products, strict=True)])
    coefficients, drafting = _solved(squares, products)
    return StepCost(at_s=late.at_s, squares=squares, products=products, coefficients=coefficients, drafting=drafting)


def _solved(
    squares: tuple[float, ...], products: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, float, float]]:
    """The posterior: its mean (squares + P)^-1 (products + P m), and of its covariance (squares + P)^-1 what drafting
    needs, by elimination; the prior P is diagonal, so no pivot is 0. Costs are not negative."""
    rows: list[list[float]] = []
    for i in range(SIZE):
        rows.append([*squares[SIZE * i : SIZE * (i + 1)], products[i] + _PRIOR_PRODUCTS[i], i == 0, i == 1])
        rows[i][i] += _PRIOR_PRECISION[i]
    for i, row in enumerate(rows):
        pivot = row[i]
        for below in rows[i + 1 :]:
            if factor := below[i] / pivot:
                below[i:] = [low - factor * high for low, high in zip(below[i:], row[i:], strict=True)]
    mean, jump, draft = [_substituted(rows, column) for column in (SIZE, SIZE + 1, SIZE + 2)]
    return tuple([max(0.0, value) for value in mean]), (jump[0], jump[1], draft[1])


def _substituted(rows: list[list[float]], column: int) -> list[float]:
    solution = [0.0] * SIZE
    for i in reversed(range(SIZE)):
        row = rows[i]
        solution[i] = (row[column] - sum([row[j] * solution[j] for j in range(i + 1, SIZE)])) / row[i]
    return solution
