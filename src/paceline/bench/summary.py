"""What the samples say: speeds by task and way, what would have been best, and how sure that is.

All averages are weighted by tokens. Every way decodes the same number of tokens of an item: the time per token is what
is compared, and an item weighs as much as the tokens that the first lane decoded of it.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import inf
from random import Random
from statistics import median

from msgspec import Struct

from paceline.bench.results import ROUTED, Results, Sample
from paceline.decision.drafting import acceptance_of

RESAMPLES = 1000
"""Of a bootstrap, as is usual for intervals of 95 %."""
ORACLE = "oracle"
"""The way of the fastest lane of each item, in hindsight."""


class Interval(Struct, frozen=True):
    """A ratio with its 95 % confidence interval, by bootstrap over the items; of a single item there is none."""

    value: float
    low: float = 0.0
    high: float = inf

    @property
    def is_above_one(self) -> bool:
        """Beyond doubt."""
        return self.low > 1

    @property
    def is_bounded(self) -> bool:
        """Whether there is an interval."""
        return self.high < inf

    def __str__(self) -> str:
        return f"{self.value:.2f}" if not self.is_bounded else f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


class Cell(Struct, frozen=True, kw_only=True):
    """One way on one task, or on all."""

    tokens_per_s: float
    speed_up: Interval
    """Over the first lane."""
    acceptance: float | None
    """Accepted per drafted token."""
    tokens_per_step: float | None
    first_token_s: float | None
    """Median."""


class BreakEven(Struct, frozen=True, kw_only=True):
    """What a lane's verification steps cost on this machine, and what they have to bring."""

    draft: float
    """Tokens drafted per verification step, on average."""
    step_cost: float
    """Of a verification step, in plain steps."""
    acceptance: float | None
    """Of each drafted token, at which such drafts are as fast as plain steps; ``None`` where none is enough."""


class Slice(Struct, frozen=True, kw_only=True):
    """One temperature and one concurrency."""

    temperature: float
    concurrency: int
    ways: tuple[str, ...]
    tasks: Mapping[str, Mapping[str, Cell]]
    """By task, then by way; the oracle is one of them."""
    overall: Mapping[str, Cell]
    best_lane: str
    best_by_task: Mapping[str, str]
    routed_of_best: Interval | None
    """Speed of the routing over that of the best fixed lane; ``None`` where nothing was routed."""
    routed_of_oracle: Interval | None
    break_even: Mapping[str, BreakEven]
    left_out: int
    """Items that some way did not answer with a decoding time."""


class _Table(Struct, frozen=True, kw_only=True):
    """Times of the items that all ways have answered."""

    ways: tuple[str, ...]
    task: dict[str, str]
    tokens: dict[str, float]
    s_per_token: dict[tuple[str, str], float]
    """By item and way; the oracle's is that of the best lane."""

    def seconds(self, items: Sequence[str], way: str) -> float:
        return sum([self.tokens[item] * self.s_per_token[item, way] for item in items])

    def ratio(self, items: Sequence[str], way: str, over: str) -> Interval:
        """Of speeds."""
        return interval(items, lambda drawn: self.seconds(drawn, over) / self.seconds(drawn, way))


def interval(items: Sequence[str], value: Callable[[Sequence[str]], float]) -> Interval:
    """A value over items with its interval."""
    if len(items) < 2:
        return Interval(value(items))
    rng = Random(0)
    drawn = sorted(value(rng.choices(items, k=len(items))) for _ in range(RESAMPLES))
    return Interval(value(items), drawn[int(0.025 * RESAMPLES)], drawn[int(0.975 * RESAMPLES)])


def slices(results: Results) -> list[Slice]:
    """One for each temperature and concurrency, in the order measured; none where no item was answered all ways."""
    parts: dict[tuple[float, int], list[Sample]] = defaultdict(list)
    for sample in results.samples:
        parts[sample.temperature, sample.concurrency].append(sample)
    order = results.about["workload"]["tasks"]
    made = [_slice(*about, results.lanes, order, samples) for about, samples in parts.items()]
    return [part for part in made if part is not None]


def _slice(
    temperature: float, concurrency: int, lanes: Sequence[str], order: Sequence[str], samples: Sequence[Sample]
) -> Slice | None:
    # 1. The times of the items that all ways have answered.
    sampled = {sample.way for sample in samples}
    lanes = [lane for lane in lanes if lane in sampled]
    table, left_out = _table(lanes, samples, ROUTED in sampled)
    if not table.task:
        return None
    # 2. The items, tasks and ways to tell of.
    items, first, ways = list(table.task), lanes[0], (*table.ways, ORACLE)
    tasks = [task for task in order if task in table.task.values()]
    by_way: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.item in table.task and sample.error is None:
            by_way[sample.way].append(sample)

    def cells(of_items: Sequence[str]) -> dict[str, Cell]:
        chosen = frozenset(of_items)
        return {
            way: _cell(table, of_items, way, first, [sample for sample in by_way[way] if sample.item in chosen])
            for way in ways
        }

    def best(of_items: Sequence[str]) -> str:
        return min(lanes, key=lambda lane: table.seconds(of_items, lane))

    # 3. Speeds by task and of all, and what would have been best.
    of_task = {task: [item for item in items if table.task[item] == task] for task in tasks}
    is_routed = ROUTED in table.ways
    return Slice(
        temperature=temperature,
        concurrency=concurrency,
        ways=ways,
        tasks={task: cells(its_items) for task, its_items in of_task.items()},
        overall=cells(items),
        best_lane=best(items),
        best_by_task={task: best(its_items) for task, its_items in of_task.items()},
        routed_of_best=table.ratio(items, ROUTED, best(items)) if is_routed else None,
        routed_of_oracle=table.ratio(items, ROUTED, ORACLE) if is_routed else None,
        break_even={
            lane: break_even
            for lane in lanes[1:]
            if (break_even := _break_even(table, items, first, by_way[lane])) is not None
        },
        left_out=left_out,
    )


def _table(lanes: Sequence[str], samples: Sequence[Sample], is_routed: bool) -> tuple[_Table, int]:
    """Also returns how many items some way has not answered with a decoding time."""
    ways = (*lanes, ROUTED) if is_routed else tuple(lanes)
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    tokens: dict[str, list[int]] = defaultdict(list)
    task = {sample.item: sample.task for sample in samples}
    for sample in samples:
        s_per_token = sample.s_per_token
        if sample.error is None and s_per_token is not None and sample.decode_tokens:
            times[sample.item, sample.way].append(s_per_token)
            if sample.way == lanes[0]:
                tokens[sample.item].append(sample.decode_tokens)
    whole = {item: name for item, name in task.items() if all((item, way) in times for way in ways)}
    s_per_token_of = {(item, way): median(times[item, way]) for item in whole for way in ways}
    for item in whole:
        s_per_token_of[item, ORACLE] = min(s_per_token_of[item, lane] for lane in lanes)
    table = _Table(
        ways=ways,
        task=whole,
        tokens={item: median(tokens[item]) for item in whole},
        s_per_token=s_per_token_of,
    )
    return table, len(task) - len(whole)


def _cell(table: _Table, items: Sequence[str], way: str, first: str, samples: Sequence[Sample]) -> Cell:
    waits = [sample.first_token_s for sample in samples if sample.first_token_s is not None]
    acceptance, tokens_per_step = _acceptance(samples)
    return Cell(
        tokens_per_s=sum(table.tokens[item] for item in items) / table.seconds(items, way),
        speed_up=table.ratio(items, way, first),
        acceptance=acceptance,
        tokens_per_step=tokens_per_step,
        first_token_s=median(waits) if waits else None,
    )


def _acceptance(samples: Sequence[Sample]) -> tuple[float | None, float | None]:
    """Accepted per drafted token, and tokens per step: an accepted token has saved a step."""
    counted = [
        sample
        for sample in samples
        if sample.drafted is not None and sample.accepted is not None and sample.decode_tokens
    ]
    drafted, accepted = sum(sample.drafted or 0 for sample in counted), sum(sample.accepted or 0 for sample in counted)
    tokens = sum(sample.decode_tokens or 0 for sample in counted)
    return accepted / drafted if drafted else None, tokens / (tokens - accepted) if tokens > accepted else None


def _break_even(table: _Table, items: Sequence[str], first: str, samples: Sequence[Sample]) -> BreakEven | None:
    """From what a lane's answers took beyond their plain steps, at the first lane's time for those; ``None`` where
    the lane drafted little, or did not tell in how many steps."""
    drafted = verification_steps = 0
    plain_s = verification_s = 0.0
    for sample in samples:
        steps, accepted = sample.drafting_steps, sample.accepted
        if not (sample.drafted and accepted is not None and steps and sample.decode_tokens and sample.decode_s):
            continue
        plain_step_s = table.s_per_token[sample.item, first]
        plain_steps = max(0, sample.decode_tokens - accepted - steps)
        drafted += sample.drafted
        verification_steps += steps
        plain_s += steps * plain_step_s
        verification_s += sample.decode_s - plain_steps * plain_step_s
    if verification_steps < len(items) or plain_s <= 0:
        return None
    draft, step_cost = drafted / verification_steps, verification_s / plain_s
    needed = step_cost - 1
    acceptance = None if needed > draft else acceptance_of(max(0.0, needed), draft)
    return BreakEven(draft=draft, step_cost=step_cost, acceptance=acceptance)


def throughput(results: Results) -> dict[tuple[float, int, str], float]:
    """Tokens of all answers per second of all requests in flight, prefill and waiting included, by temperature,
    concurrency and way."""
    tokens: dict[tuple[float, int, str], int] = defaultdict(int)
    seconds: dict[tuple[float, int, str], float] = defaultdict(float)
    for sample in results.samples:
        if sample.error is None and sample.tokens:
            key = sample.temperature, sample.concurrency, sample.way
            tokens[key] += sample.tokens
            seconds[key] += sample.total_s / sample.concurrency
    return {key: tokens[key] / seconds[key] for key in tokens}


def ratios_of(before: Results, after: Results) -> list[tuple[float, int, dict[str, dict[str, Interval]]]]:
    """For each temperature and concurrency that both have: by task (``all`` is the last) and way, the second's
    speed over the first's, on the items that both have answered."""
    comparisons = []
    times_before, times_after = _times(before), _times(after)
    task = {sample.item: sample.task for sample in before.samples}
    for about in dict.fromkeys(key[:2] for key in times_before):
        ways = list(dict.fromkeys(key[2] for key in times_before if key[:2] == about))
        keys = {way: [key for key in times_before if key[:3] == (*about, way) and key in times_after] for way in ways}
        ways = [way for way in ways if keys[way]]
        ratios: dict[str, dict[str, Interval]] = defaultdict(dict)
        for way in ways:
            items = [key[3] for key in keys[way]]

            def speed(of_items: Sequence[str], about: tuple[float, int] = about, way: str = way) -> float:
                of_keys = [(*about, way, item) for item in of_items]
                return sum(times_before[key] for key in of_keys) / sum(times_after[key] for key in of_keys)

            for name in (*dict.fromkeys(task[item] for item in items), "all"):
                ratios[name][way] = interval([item for item in items if name in (task[item], "all")], speed)
        if ways:
            comparisons.append((*about, dict(ratios)))
    return comparisons


def _times(results: Results) -> dict[tuple[float, int, str, str], float]:
    """Median seconds per token by temperature, concurrency, way and item."""
    times: dict[tuple[float, int, str, str], list[float]] = defaultdict(list)
    for sample in results.samples:
        if sample.error is None and sample.s_per_token is not None:
            times[sample.temperature, sample.concurrency, sample.way, sample.item].append(sample.s_per_token)
    return {key: median(values) for key, values in times.items()}
