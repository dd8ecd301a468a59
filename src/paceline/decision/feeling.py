"""What lanes feel: which unknowns are in the logarithm of a lane's time, and how much of each."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from paceline.decision.arrays import Floats, Indexes
from paceline.decision.belief import Belief, Name
from paceline.decision.groups import Asked, believed_lookups, believed_strength, groups_of
from paceline.decision.shapes import PLAIN, Shape, load_shape, shape_of
from paceline.decision.tuning import (
    DEPTH_MEAN,
    DEPTH_OF_COST_MEAN,
    LOAD_MEAN,
    LOAD_OF_COST,
    LOAD_OWN,
    LOADS,
    LOOKUP_SHARE,
    MACHINE_MEAN,
    PRIOR,
    SHARED_COST,
    SHARED_JUMP,
    SHARED_LENGTH,
)
from paceline.types import Strategy

Number = TypeVar("Number", np.intp, np.float64)

MACHINE, COST, LENGTH = range(3)
"""Terms of the formula, as they are told apart: a plain step's time; a step's cost, load and content included; the
acceptance length, with strengths and tilts."""
OWN_DRIFTS = {"own cost": 0.2, "own length": 0.3}
CONTENT_DRIFT = 0.2
"""Of an observation's drift, as variance, what a lane's own and a group's content have."""


class LaneId(Struct, frozen=True, array_like=True, cache_hash=True):
    """What the model knows a lane by."""

    fingerprint: str
    """Of the engine and its model."""
    model: str
    """Of that model and the device."""
    strategy: Strategy
    drafted_token_cost: float | None = None
    """As in :class:`LaneState`."""
    machine: str = ""
    """As in :class:`LaneState`."""

    @property
    def kin(self) -> "LaneId":
        """The lane wherever it runs: under this is kept what is the same on all machines of a kind."""
        return structs.replace(self, machine="") if self.machine else self

    @property
    def pace(self) -> Name:
        """The unknown that its machine's speed is told by, and that changes when that does."""
        return ("replica", self.machine) if self.machine else ("machine", self.model)


class Unknown(NamedTuple):
    """One that a lane feels."""

    name: Name
    variance: float
    """Before anything was observed."""
    factor: float
    """How much of it is in the logarithm of time."""
    term: int


@lru_cache(maxsize=1024)
def unknowns_of(lane: LaneId, beside: float) -> tuple[Unknown, ...]:
    """What a lane feels beside a request's groups and its prompt's depth, where so many others are decoded
    meanwhile."""
    shape, engine = shape_of(lane.strategy, lane.drafted_token_cost), lane.fingerprint
    kind, own = shape.kind, str(lane.strategy.n_max)
    # 1. A step's time.
    unknowns = [
        Unknown(("machine",), PRIOR.machine**2, 1.0, MACHINE),
        Unknown(("machine", lane.model), PRIOR.device**2, 1.0, MACHINE),
        Unknown(("engine", engine), PRIOR.engine**2, 1.0, COST),
    ]
    if lane.machine:
        unknowns.append(Unknown(("replica", lane.machine), PRIOR.replica**2, 1.0, MACHINE))
    if shape.drafts:
        cost, jump = PRIOR.cost**2, PRIOR.jump**2
        unknowns += [
            Unknown(("cost", engine), SHARED_COST * cost, shape.cost, COST),
            Unknown(("cost", engine, kind), (1 - SHARED_COST) * cost, shape.cost, COST),
            Unknown(("jump", engine), SHARED_JUMP * jump, 1.0, COST),
            Unknown(("jump", engine, kind), (1 - SHARED_JUMP) * jump, 1.0, COST),
            Unknown(("own cost", engine, kind, own), PRIOR.own_cost**2, 1.0, COST),
        ]
        if lane.machine:
            unknowns.append(Unknown(("replica cost", lane.machine), PRIOR.replica_cost**2, shape.cost, COST))
    # 2. What load adds.
    if beside > 0:
        logarithm, single = load_shape(beside)
        share = _load_share(shape)
        unknowns += [
            Unknown(("load",), PRIOR.load**2, share * logarithm, COST),
            Unknown(("load", engine), PRIOR.load_of_engine**2, share * logarithm, COST),
            Unknown(("load of lane", engine, kind, own), PRIOR.load_of_lane**2, logarithm, COST),
        ]
        unknowns += [
            Unknown(("load at", str(knot)), PRIOR.load**2, share * LOAD_OWN * single[knot], COST)
            for knot in range(LOADS)
        ]
        if shape.drafts:
            cost = PRIOR.load_of_cost**2
            unknowns += [
                Unknown(("load of cost", engine), SHARED_COST * cost, shape.cost * logarithm, COST),
                Unknown(("load of cost", engine, kind), (1 - SHARED_COST) * cost, shape.cost * logarithm, COST),
            ]
            unknowns += [
                Unknown(("load of cost at", str(knot), engine, kind), cost, LOAD_OWN * shape.cost * single[knot], COST)
                for knot in range(LOADS)
            ]
    # 3. The acceptance length.
    if shape.drafts:
        length = PRIOR.length**2
        for knot, factor in enumerate(shape.knots):
            place = str(knot)
            unknowns += [
                Unknown(("length", place, engine), SHARED_LENGTH * length, -factor, LENGTH),
                Unknown(("length", place, engine, kind), (1 - SHARED_LENGTH) * length, -factor, LENGTH),
            ]
        unknowns.append(Unknown(("own length", engine, kind, own), PRIOR.own_length**2, -1.0, LENGTH))
    return tuple([unknown for unknown in unknowns if unknown.factor])


def depth_of(lane: LaneId, depth: float) -> list[Unknown]:
    """What a lane feels of a prompt's depth: each step reads the cache, and one that verifies drafts does it once for
    all of them, in another way on some engines."""
    unknowns = [Unknown(("depth", lane.fingerprint), PRIOR.depth**2, depth, MACHINE)]
    if share := _depth_share(shape_of(lane.strategy)):
        name = ("depth of cost", lane.fingerprint)
        unknowns.append(Unknown(name, PRIOR.depth_of_cost**2, share * depth, COST))
    return unknowns


def _depth_share(shape: Shape) -> float:
    """Of the steps, those that verify drafts."""
    return (LOOKUP_SHARE if shape.looks_up else 1.0) if shape.drafts else 0.0


def _step_cost(shape: Shape, beside: float) -> float:
    """Logarithm of a step's cost, in plain steps made alone, before anything was observed."""
    logarithm, _ = load_shape(beside)
    return shape.cost + LOAD_MEAN * logarithm * _load_share(shape)


def _load_share(shape: Shape) -> float:
    """How much a lane feels of what others cost a plain step: where these fill the free places of a batch, drafts find
    none."""
    return 1.0 + LOAD_OF_COST * shape.cost


# All lanes of a choice


class Lanes:
    """The lanes of one choice, each at its load: what they feel beside a request's groups. Arrays have a row a lane."""

    def __init__(self, ids: Sequence[LaneId], beside: Sequence[float]) -> None:
        self.shapes = [shape_of(lane.strategy, lane.drafted_token_cost) for lane in ids]
        self.kinds = sorted({shape.kind for shape in self.shapes} - {PLAIN})
        self.ids = ids
        felt = [unknowns_of(lane, others) for lane, others in zip(ids, beside, strict=True)]
        columns: dict[Name, int] = {}
        for unknown in (unknown for unknowns in felt for unknown in unknowns):
            columns.setdefault(unknown.name, len(columns))
        self.names = list(columns)
        self.variances = np.zeros(len(columns))
        self.terms = np.zeros((3, len(ids), len(columns)))
        """How much each term feels of the unknowns."""
        for lane, unknowns in enumerate(felt):
            for unknown in unknowns:
                self.variances[columns[unknown.name]] = unknown.variance
                self.terms[unknown.term, lane, columns[unknown.name]] = unknown.factor
        self.factors: Floats = np.concatenate([self.terms.sum(axis=0), self.terms[MACHINE, :1]])
        """How much the logarithm of time does, and in the last row the first lane's machine alone."""
        shapes = self.shapes
        self.means = np.zeros((3, len(ids)))
        """Of the terms, before anything was observed."""
        self.means[MACHINE] = MACHINE_MEAN
        self.means[COST] = [_step_cost(shape, others) for shape, others in zip(shapes, beside, strict=True)]
        self.means[LENGTH] = [-shape.length for shape in shapes]
        self.strength: Floats = np.array([shape.strength for shape in shapes])
        """How much each lane feels of the strength of all drafters."""
        self.lookup: Floats = np.array([shape.feels if shape.looks_up else 0.0 for shape in shapes])
        """How much lookups feel of their own strength."""
        self.groups: Floats = np.array([*([-each.strength, each.cost, -each.tilt] for each in shapes), [0.0, 0.0, 0.0]])
        """How much the logarithm of time feels of a group's strength, content and tilt."""
        self.own: Floats = np.array(
            [*([-each.feels * (each.kind == kind) for kind in self.kinds] for each in shapes), [0.0] * len(self.kinds)]
        )
        """How much of the strength of a group that is about a kind of drafter."""
        self.depth_shares: Floats = np.array([_depth_share(each) for each in shapes])


class Context(NamedTuple):
    """What the lanes of a choice feel of a request."""

    shape: int
    """Of the belief, for which it holds."""
    lanes: Lanes
    indexes: Indexes
    """Of all unknowns; where some are not in the belief, nowhere."""
    pairs: Indexes
    """Of their covariances."""
    factors: Floats
    """Of the logarithm of time: a row a lane, and the last for the machine alone."""
    terms: Floats
    """The same of each term."""
    means: Floats
    """Of the terms by lane, before anything was observed."""
    new: Floats | None
    """Variances of unknowns that are not in the belief; ``None`` where it has all."""


def context_of(lanes: Lanes, asked: Asked, belief: Belief) -> Context:
    """What they feel of a request."""
    # 1. The groups' unknowns: strengths, contents, tilts, and strengths that are about a kind of drafter.
    groups = list(groups_of(asked, lanes.kinds))
    depths = _depths(lanes, asked.depth)
    shared, own = [group for group in groups if not group.kind], [group for group in groups if group.kind]
    names = [
        *lanes.names,
        *((part, *group.key) for part in ("strength", "content", "tilt") for group in shared),
        *(("strength", *group.key) for group in own),
        *(depth.name for depth in depths),
    ]
    variances = np.square(
        [
            *(group.strength for group in shared),
            *(group.content for group in shared),
            *(group.tilt for group in shared),
            *(group.strength for group in own),
            *(depth.variance**0.5 for depth in depths),
        ]
    )
    # 2. How much of them the logarithm of time feels, and which of its terms.
    rows, kinds = len(lanes.groups), lanes.kinds
    of_shared = (lanes.groups[:, :, None] * [group.share for group in shared]).reshape(rows, 3 * len(shared))
    of_own = lanes.own[:, [kinds.index(group.kind) for group in own]] * [group.share for group in own]
    of_depth = np.zeros((rows, len(depths)))
    of_groups = np.concatenate([of_shared, of_own.reshape(rows, len(own)), of_depth], axis=1)
    terms = np.zeros((3, rows - 1, len(names)))
    terms[:, :, : len(lanes.names)] = lanes.terms
    terms[LENGTH, :, len(lanes.names) :] = of_groups[:-1]
    contents = slice(len(lanes.names) + len(shared), len(lanes.names) + 2 * len(shared))
    terms[COST, :, contents] = terms[LENGTH, :, contents]
    terms[LENGTH, :, contents] = 0.0
    for column, depth in enumerate(depths, len(names) - len(depths)):
        terms[depth.term, :, column] = depth.factors
        of_groups[:-1, column - len(lanes.names)] = depth.factors
        if depth.term == MACHINE:
            of_groups[-1, column - len(lanes.names)] = depth.factors[0]
    means = lanes.means.copy()
    means[MACHINE] += DEPTH_MEAN * asked.depth
    means[COST] += DEPTH_OF_COST_MEAN * asked.depth * lanes.depth_shares
    means[LENGTH] -= lanes.strength * believed_strength(asked) + lanes.lookup * believed_lookups(asked)
    # 3. Where they stand in the belief, and what is believed of those that it does not have.
    nowhere = belief.nowhere
    indexes = np.array([belief.numbers.get(name, nowhere) for name in names], np.intp)
    is_new = indexes == nowhere
    return Context(
        shape=belief.shape,
        lanes=lanes,
        indexes=indexes,
        pairs=belief.pairs(indexes),
        factors=np.concatenate([lanes.factors, of_groups], axis=1),
        terms=terms,
        means=means,
        new=np.where(is_new, np.concatenate([lanes.variances, variances]), 0.0) if is_new.any() else None,
    )


class Depth(NamedTuple):
    """An unknown of depth, and how much each lane feels of it."""

    name: Name
    variance: float
    term: int
    factors: Floats


def _depths(lanes: Lanes, depth: float) -> list[Depth]:
    """Those of lanes that are asked for a prompt of some depth."""
    found: dict[Name, Depth] = {}
    for number, lane in enumerate(lanes.ids if depth else ()):
        for unknown in depth_of(lane, depth):
            new = Depth(unknown.name, unknown.variance, unknown.term, np.zeros(len(lanes.ids)))
            found.setdefault(unknown.name, new).factors[number] = unknown.factor
    return list(found.values())


# One lane, to learn of it


class Sum:
    """A weighted sum of unknowns, over a mean."""

    def __init__(self) -> None:
        self.mean = 0.0
        self.numbers: list[int] = []
        self.factors: list[float] = []
        self._arrays: tuple[Indexes, Floats] | None = None

    def plus(self, number: int, factor: float) -> "Sum":
        """The sum with one unknown more."""
        indexes, factors = self.arrays()
        other = Sum()
        other.mean, other.numbers, other.factors = self.mean, [*self.numbers, number], [*self.factors, factor]
        other._arrays = _with(indexes, number), _with(factors, factor)
        return other

    def add(self, number: int, factor: float) -> None:
        self.numbers.append(number)
        self.factors.append(factor)
        self._arrays = None

    def arrays(self) -> tuple[Indexes, Floats]:
        if self._arrays is None:
            self._arrays = np.array(self.numbers, np.intp), np.array(self.factors)
        return self._arrays

    def less(self, other: "Sum") -> tuple[Indexes, Floats]:
        """This sum less another one, which has none of its unknowns."""
        (numbers, factors), (others, less) = self.arrays(), other.arrays()
        return np.concatenate([numbers, others]), np.concatenate([factors, -less])


def _with(values: NDArray[Number], value: float) -> NDArray[Number]:
    longer = np.empty(len(values) + 1, values.dtype)  # in a third of the time that numpy.append takes
    longer[:-1] = values
    longer[-1] = value
    return longer


class Feeling(NamedTuple):
    """What a lane feels of a request."""

    kept: int
    """Of the belief, for which it holds."""
    lane: LaneId
    cost: Sum
    """Time but for the acceptance length."""
    length: Sum
    keys: list[Name]
    """Of the groups."""
    drifting: tuple[Indexes, Floats]
    """Unknowns that may change, and by which variance with each request."""

    def of_conversation(self, number: int) -> "Feeling":
        """What it feels of one in a conversation whose strength stands there."""
        return self._replace(length=self.length.plus(number, shape_of(self.lane.strategy).strength))


def feeling_of(lane: LaneId, kinds: Sequence[str], asked: Asked, beside: float, belief: Belief) -> Feeling:
    """What one lane feels of a request; what is new is added to the belief.

    Args:
        kinds: of all drafters that it was chosen among.
        beside: others that were decoded meanwhile.
    """
    shape = shape_of(lane.strategy, lane.drafted_token_cost)
    cost, length = Sum(), Sum()
    cost.mean = MACHINE_MEAN + _step_cost(shape, beside)
    cost.mean += (DEPTH_MEAN + DEPTH_OF_COST_MEAN * _depth_share(shape)) * asked.depth
    length.mean = shape.length + shape.strength * believed_strength(asked)
    length.mean += shape.feels * believed_lookups(asked) if shape.looks_up else 0.0
    drifting: dict[int, float] = {}
    keys: list[Name] = []
    for unknown in (*unknowns_of(lane, beside), *(depth_of(lane, asked.depth) if asked.depth else ())):
        number = number_of(belief, unknown.name, unknown.variance)
        if unknown.term == LENGTH:
            length.add(number, -unknown.factor)
        else:
            cost.add(number, unknown.factor)
        if unknown.name == lane.pace:
            drifting[number] = PRIOR.machine_drift**2
        elif unknown.name[0] in OWN_DRIFTS:
            drifting[number] = OWN_DRIFTS[unknown.name[0]] * PRIOR.drift**2
    for group in groups_of(asked, kinds):
        if group.kind and group.kind != shape.kind:
            continue
        key, share = group.key, group.share
        keys.append(key)
        strength = number_of(belief, ("strength", *key), group.strength**2)
        content = number_of(belief, ("content", *key), group.content**2) if group.content else None
        tilt = number_of(belief, ("tilt", *key), group.tilt**2) if group.tilt else None
        if not shape.drafts:
            continue
        length.add(strength, share * (shape.feels if group.kind else shape.strength))
        drifting[strength] = share**2 * PRIOR.drift**2
        if content is not None:
            cost.add(content, share * shape.cost)
            drifting[content] = CONTENT_DRIFT * PRIOR.drift**2
        if tilt is not None:
            length.add(tilt, share * shape.tilt)
    return Feeling(
        kept=belief.kept,
        lane=lane,
        cost=cost,
        length=length,
        keys=keys,
        drifting=(np.array(list(drifting), np.intp), np.array(list(drifting.values()))),
    )


def number_of(belief: Belief, name: Name, variance: float) -> int:
    """Where an unknown stands, which is added if it is new."""
    number = belief.numbers.get(name)
    return belief.add(name, variance) if number is None else number
