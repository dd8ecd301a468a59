"""The numbers that the decision was tuned with: what each means, its unit, its source, and how much it matters.

*Sensitivity*: half or twice any of the deviations changes the means over all worlds of ``benchmarks/worlds`` by 0.002
or less, unless it is said (docs/decisions/0017). They were chosen on the tuning seeds, and none on a single world.
"""

from collections.abc import Mapping

from msgspec import Struct

from paceline.types import Task

# What is believed before anything was measured here (shapes.py, groups.py)


class Prior(Struct, frozen=True):
    """Standard deviations, unless they are said to be something else. Logarithms are natural: 0.1 is a tenth of the
    time. A strength is in logarithms of the acceptance length at 3 drafted tokens; 0.3 of it is a logit of acceptance.
    """

    # What is shared by all requests.
    machine: float = 3.0
    """Of a plain step's seconds, as a logarithm, about :data:`MACHINE_MEAN`."""
    device: float = 0.7
    """Of another device's plain step beside the first one's, or another model's."""
    replica: float = 0.15
    """Of one machine's plain step beside others of its kind: cards of one make differ by some percent, by what cools
    them and what else they do more. Guessed."""
    replica_cost: float = 0.15
    """The same of what drafts add to its steps, beside a tenth of a plain step for each token. Guessed."""
    engine: float = 0.15
    """Of an engine's time beside others of the same model and device."""
    cost: float = 0.6
    """Of a step cost's logarithm, as a share of it: published cards have 0.5 to 2.5 times the mean (published.toml)."""
    jump: float = 0.45
    """Of what verifying costs at all: 1.1 for a mixture of experts (GLM-4.5-Air), 0.5 on an R9700, 0 on most; most of
    it common to all drafters, which also stands for a plain lane that is slower or faster than its engine could be.
    With 0.2 a mixture of experts is not understood (0.8 instead of 0.97)."""
    own_cost: float = 0.05
    """Of a lane's step cost beside its neighbours': what the published costs deviate from a smooth curve."""
    length: float = 0.35
    """Of a drafter's acceptance length at 3 tokens: published heads have 2.5 to 3.4 for code."""
    own_length: float = 0.03
    """Of a lane's acceptance length beside its neighbours'."""
    load: float = 0.2
    """Of what each doubling of concurrency adds to any lane's time, over its mean."""
    load_of_engine: float = 0.1
    """The same of one engine beside others."""
    load_of_cost: float = 0.3
    """The same of a step's cost, as a share of it."""
    load_of_lane: float = 0.02
    depth: float = 0.35
    """Of what a unit of a prompt's depth adds to an engine's time, about :data:`DEPTH_MEAN`. Models keep 7 KiB to 320
    KiB of cache a token."""
    depth_of_cost: float = 0.25
    """The same of what it adds to a step that verifies drafts, about :data:`DEPTH_OF_COST_MEAN`."""

    # What groups of requests have in common.
    task: float = 0.17
    """Strength of a task: deviations of mtp-bench.py's prompts, half of which the mean has. With twice as much the
    first 50 requests lose 0.006."""
    application: float = 0.16
    """Of a program at one place in its loop. Guessed, as the next two."""
    language: float = 0.08
    """Of people who ask by themselves what can't be recognised. Where tasks are recognised, it would take the blame for
    their changes (rises-from-nothing: -0.039)."""
    reasoning: float = 0.14
    drafter: float = 0.15
    """Strength of a task for one kind of drafter, beside the others: Spec-Bench's table."""
    lookup: float = 0.5
    """The same for a lookup, which depends on what the answer copies: with 0.3, one that is good at one task alone is
    not tried enough there (Spec-Bench: 0.960 instead of 0.984)."""
    lookup_of_application: float = 0.15
    """Of a lookup's strength in one program beside others (docs/learning.md, "Lookups")."""
    repeats: float = 0.2
    """Of what one unit of ``Signals.repeats`` adds to a lookup's strength, about :data:`REPEATS_STRENGTH`."""
    conversation: float = 0.3
    """Of a conversation's strength: a logit."""
    tilt: float = 0.35
    """Of a group's tilt, which lookups alone feel, as a share of its strength's deviation. Without it the embedded
    engine's lookups lose 0.012; with one for heads, too, nothing is gained."""
    content: float = 0.9
    """Of how much dearer a group's verification is, as a share of both its strength's deviation and the step cost's
    logarithm: 0.15 for a task, as ggml-org/llama.cpp #22673 implies on a laptop."""

    # What is left.
    residual: float = 0.03
    """Of a task's time on a lane. With 0.05 there is too much to explore (-0.001)."""
    spread: float = 0.15
    """By which requests alike differ in strength, then learned: half a logit. Half or twice as much costs 0.003."""
    time_noise: float = 0.07
    """Of a measured time, then learned: 4 to 8 % (published.toml)."""

    control: float = 0.1
    """Of a controlled lane's time beside what its drafters' lengths let expect, and the same again by task. Guessed."""

    control_step: float = 0.2
    """Of its steps' time beside what its drafters' costs let expect: a drafter that follows while nothing is drafted
    costs 0.07 to 0.2 (published.toml, ``idle``), and a draft model that catches up far more."""

    # What changes.
    machine_drift: float = 0.02
    """By request."""
    machine_changed: float = 0.5
    """By which a machine is slower or faster when it throttles or others compute."""
    machine_unseen: float = 50.0
    """Requests that others serve, after which a machine may be slower or faster by that. Guessed."""
    cost_unseen: float = 0.05
    """Of what verifying costs at all, by each answer of which a drafter was left alone though it might have drafted.
    Guessed."""
    drift: float = 0.003
    """Of what an observation tells of, each time. With none nothing changes: changes are told apart."""
    residual_drift: float = 0.001
    changed: float = 0.4
    """Of a group's strength when it changes: from stories to math, or to nothing."""
    unseen_change: float = 1600.0
    """Requests of a task in which it changes once, where only plain is taken, which shows no drafts. With half, changes
    from nothing are found sooner and those to nothing cost more; with twice the other way round."""


PRIOR = Prior()
MACHINE_MEAN = -3.5
"""Logarithm of a plain step's seconds before one was measured: 33 tokens per second; the first request tells."""
ACCEPTED_FIRST, ACCEPTED_LESS, ACCEPTED_LAST = 0.80, 0.045, 0.3
"""Probability that a drafted token is accepted if all before it were: of the first, how much less of each further one,
and the least. About the middle of published heads (published.toml) over all tasks."""
ACCEPTED_AT = 0.72
"""Acceptance at which the lengths' sensitivity to a logit is taken: long drafts feel one twice as much. At 0.5 it
costs 0.001."""
STEP_COST_SLOPE = 0.3
"""Of the logarithm of a step's cost: log(1 + 0.3 n) of n drafted tokens, an RTX 3090's."""
SHARED_COST, SHARED_JUMP, SHARED_LENGTH = 0.3, 0.7, 0.2
"""Parts of these variances that all drafters of an engine have in common."""
NEAR = 0.6
"""Distance of logarithms of draft lengths at which lanes have little in common."""
LONGEST_FEELING = 1.5
"""How much, at most, a lane feels of what its drafter's length is off by: long drafts have an end."""
TILT_MIDDLE, TILT_SCALE = 1.35, 0.45
"""Logarithm of 1 + the drafted tokens at which a tilt changes nothing, and its unit."""
LOOKUP_SHARE = 0.3
"""Lookups find nothing to draft in most steps: of the logarithm of a draft's cost, and of what a task's strength does
to its length, this share is felt."""
LOOKUP_LENGTHS: Mapping[int, tuple[float, float]] = {
    1: (0.233, 0.34),
    2: (0.338, 0.55),
    3: (0.396, 0.67),
    4: (0.436, 0.76),
    8: (0.518, 1.0),
    12: (0.548, 1.09),
}
"""By drafted tokens: mean logarithm of a lookup's acceptance length over all steps, and how much of its strength is
felt. Source: 768 recorded turns of agents, assistants and chats, played with matches of 3 tokens
(``python -m benchmarks.lookups``)."""
LOOKUP_TASKS: Mapping[Task, float] = {
    Task.EDIT: 0.25,
    Task.EXTRACT: 0.1,
    Task.TOOL_CALL: 0.1,
    Task.CODE: 0.05,
    Task.SUMMARISE: -0.05,
    Task.RETRIEVE: -0.05,
    Task.MATH: -0.15,
    Task.REASON: -0.2,
    Task.ANSWER: -0.25,
    Task.CHAT: -0.3,
    Task.CREATE: -0.3,
    Task.TRANSLATE: -0.3,
    Task.UNKNOWN: 0.0,
}
"""Mean of a lookup's strength by task. Source: as above, edits of code have 1.9 to 2.1 tokens a step, tool calls and
commands 1.4 to 1.6, and chats 1.2, against 1.5 in the mean; those in between are guesses."""
LOOKUP_ACCEPTED = (0.49, 0.66, 0.75, 0.81, 0.83, 0.86, 0.88, 0.91)
"""Probability that a token which was looked up is accepted if all before it were, by position; the last one holds from
there on. It rises: what was copied so far is copied on. Source: the same turns, matches of 2 tokens and more
(``python -m benchmarks.lookups.by_match``)."""
LOOKUP_ACCEPTED_BY_MATCH: Mapping[int, tuple[float, ...]] = {
    2: (0.41, 0.56, 0.64, 0.72, 0.75, 0.78, 0.79, 0.82, 0.85),
    3: (0.59, 0.67, 0.69, 0.76, 0.78, 0.80, 0.86, 0.88),
    4: (0.61, 0.75, 0.80, 0.80, 0.80, 0.80, 0.82, 0.86, 0.88),
    7: (0.66, 0.82, 0.84, 0.84, 0.85, 0.85, 0.85, 0.94),
    11: (0.84, 0.93, 0.95, 0.95, 0.95, 0.95, 0.96),
}
"""The same where so many tokens, or more, matched. Source: as above, what is uneven made smooth. Answers of a small
model to 251 prompts had more: 0.69 at the first position with a match of 4, and 0.92 from 11 on."""
REPEATS_STRENGTH, USUAL_REPEATS = 0.6, 0.35
"""What a unit of ``Signals.repeats`` adds to a lookup's strength, and its usual value. Source: as above."""
DEPTH_TOKENS = 131_072
"""Of a prompt, at which its steps are about twice as slow as those of a short one: caches of 2.3 GB in 4 bits (two 5060
Ti, 27B) and of 8 GB in 16 (a V100, by what 31,000 tokens cost there). The logarithm is of 1 + tokens over these."""
DEPTH_MEAN, DEPTH_OF_COST_MEAN = 0.6, -0.1
"""What a unit of depth adds to the logarithm of any step's time: 0.55 to 0.85 at 16,000 to 130,000 tokens; and beside
that to a step's that verifies drafts: -0.36 on CUDA with a cache in 4 bits, -0.2 on a V100, above 0 on Vulkan. Source:
sudoingX/qwen38-mtp, sweeps."""
LOADS = 7
"""Concurrencies that are told apart: 1, 3, 7 ... 127 others."""
LOAD_OF_COST = 0.6
"""With each logarithm by which others slow a plain step, the logarithm of what drafts cost grows by this share of
itself, since both come from a batch whose free places are filled. Measured on two cores at 16 at once, it was 0.1 to
0.6; published were 0.7 to 3 (TensorRT-LLM, MI355X), and less than 0 on one card. In the published worlds, 0.3 to 1 are
the same within 0.002."""
LOAD_MEAN, LOAD_OWN = 0.1, 0.3
"""What load adds to the logarithm of time, for each logarithm of concurrency, and how far single concurrencies deviate
from what all have in common, as a share."""
TASK_LOGITS: Mapping[Task, float] = {
    Task.CODE: 0.0,
    Task.EDIT: 0.4,
    Task.MATH: 0.37,
    Task.SUMMARISE: 0.26,
    Task.EXTRACT: 0.2,
    Task.TOOL_CALL: 0.2,
    Task.RETRIEVE: 0.16,
    Task.ANSWER: -0.22,
    Task.REASON: -0.3,
    Task.TRANSLATE: -0.47,
    Task.CHAT: -0.4,
    Task.CREATE: -0.79,
    Task.UNKNOWN: -0.1,
}
"""Acceptance by task over code's: of mtp-bench.py's prompts (published.toml); edits, extracts, calls and chat are
guesses, and what can't be told is in the middle."""
LOGIT = 0.3
"""Strength of one logit."""
PUBLISHED_SHARE = 0.5
"""Of what was published of a task that is believed of another model's: models differ as much as tasks do."""
USUAL_LENGTHS: Mapping[str, int] = {"ngram": 8, "mtp": 3, "eagle3": 4, "draft": 8, "dflash": 8, "dspark": 8}
"""Drafted tokens by kind where the engine's cap is not known: the usual settings of engines."""
USUAL_LENGTH = 4
"""The same of other kinds."""
ANSWER_TOKENS: Mapping[Task, float] = {
    Task.CODE: 350.0,
    Task.EDIT: 400.0,
    Task.EXTRACT: 150.0,
    Task.TOOL_CALL: 80.0,
    Task.MATH: 250.0,
    Task.REASON: 250.0,
    Task.ANSWER: 250.0,
    Task.RETRIEVE: 80.0,
    Task.SUMMARISE: 120.0,
    Task.TRANSLATE: 100.0,
    Task.CHAT: 120.0,
    Task.CREATE: 500.0,
    Task.UNKNOWN: 200.0,
}
"""Guesses."""
CHARS_PER_TOKEN = 4.0
"""Characters per token of a prompt whose tokens nobody has counted yet. Source: usual for English text."""
PREFILL_S_PER_TOKEN = 0.001
"""Seconds per prompt token, before a prefill was measured."""

# How it learns (belief.py, changes.py, time_model.py)

TAILS = 4.0
"""Degrees of freedom of Student's t: how far off single requests may be. Between 3 and 8 nothing changes."""
USUAL_SCORE = 1.5
"""Standard deviations within which an observation is taken at its word."""
SLACK = 0.5
"""Standard deviations by which a miss may be off to one side again and again: half of the shift that is to be told."""
CHANGE_INTERVAL = 6.0
"""Standard deviations of misses to one side, summed up, that tell a change. With 5 false ones cost 0.001."""
MAX_SCORE = 7.0
"""Standard deviations that one miss counts as at most; a single one of so many tells a change."""
MAX_MISS = 3.0
"""Standard deviations of a miss beyond which it teaches residuals and variances no more."""
VARIANCE_WEIGHT, VARIANCE_FADING = 10.0, 0.99
"""Squares that a believed variance counts as, and what is left of them after each new one."""
MIN_TASK = 0.1
"""Probability from which on a task that may be meant counts."""
MAX_GROUPS, MAX_CONVERSATIONS, MAX_LANES = 60, 24, 64
"""That are told apart; what was longest not met gives way. Bounds the time that learning takes."""
MAX_MACHINES = 64
"""The same of machines of a kind: of more, those met again start from what is known of all."""
MAX_UNKNOWNS = 512
"""Some three times as many as a model has; of more, those that no lane feels are forgotten."""
MAX_KEYS = 4096
"""Numbers that are remembered by names that clients can choose."""
MAX_MODELS = 64
"""Sets of lanes that are compared with each other, of which something is known."""
LENGTH_WEIGHT, LENGTH_FADING = 4.0, 0.98
"""Answers that the length of a wider group's count as, and what is left of one after each new one."""

LOAD_WEIGHT, LOAD_FADING = 10.0, 0.95
"""Requests that the belief counts as, that as many are decoded over a request's life as at its start; and what is left
of one after each new one. Guessed."""

# What an engine's control starts from (controlled.py, control.py)

CONTROL_LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)
"""Draft lengths, in tokens, at which a drafter is looked at; what is between them is interpolated."""
CONTROL_LOOKUPS = (2, 4, 8, 16, 32, 64)
"""The same of lookups, whose tokens cost the least alone."""
IDLE_CHEAPER = 0.01
"""By which part a drafter's costs are told lower with each answer of which its control left it alone: what seemed too
dear once would else never be seen again. Guessed: after 70 such answers it is told to cost half, and tried."""
TRIES_COST = 0.01
"""Of plain steps' time, what an engine's control spends on tries where drafting does not pay: it bounds that at 1 to
2 %."""
MIN_CONTROL_WEIGHT, MAX_CONTROL_WEIGHT = 2.0, 16.0
"""Drafted tokens that a prior counts for, at least and at most."""
LOOKUP_WEIGHT = 4.0
"""The same of lookups, of which requests of one task differ much more than tasks do."""
MAX_HAZARD = 3.0
"""How many times as often as believed, or as seldom, tokens may be rejected: what is drafted at all is a choice of the
control's, and not all that there is."""
DRAFTED_FADING = 0.99
"""What is left, after each answer, of what a drafter was seen to do, where it is asked whether it works."""
HAZARD_WEIGHT, HAZARD_FADING = 8.0, 0.98
"""Rejected tokens that the believed acceptance of looked-up tokens counts as, and what is left of what was seen after
each answer."""

# What is tried (exploring.py, decide.py)

EXPLORATION = 0.01
"""Share of decode time that may be spent on lanes that are not predicted to be the fastest. The setting
``routing.exploration`` is for operators to change it."""
HEAD_START = 300.0
"""Requests that count as served already where it is asked how much may be spent: there is most to learn at first."""
MAX_COMPARED = 0.05
"""Probability, at most, with which a lane is picked that would be best if it had to serve all requests, as a static
policy: what it takes where another one is predicted to be faster is what shows whether choosing pays. Source:
docs/decisions/0011."""
COMPARING_PART = 0.2
"""Part of the share for exploration that comparing may be expected to cost."""
NEARLY_BEST = 1.02
"""Lanes that would take so many times as long may be the best static one as well. Source: docs/decisions/0011."""
ALWAYS_FADING = 0.999
"""What is left, after each request, of what static policies would have taken."""
RECENT_REQUESTS = 16
"""By which it is judged which lane is best for all that are decoded together."""
WORTH_A_CHANGE = 1.15
"""Times as long as the best lane that the lane of a batch may take before the next requests of the batch leave it."""
PLAIN_AGAIN = 200
"""Outcomes after which plain steps are measured again under a load, where all that are decoded together go down one
lane."""
MEASURED_FIRST = 3
"""Outcomes within which the plain lane is to be measured: every other lane's cost is told over its."""
MAX_EXPLORED = 0.5
"""Of requests alike that may explore."""
MAX_BEHIND = 5.0
"""Standard deviations behind the best from which on a lane is not looked at."""
MAX_CONCURRENT_TURNS = 1
"""Requests in flight on a device whose engines take turns, beyond which all go plain and meet in one engine's turn: a
turn that keeps changing costs more than drafts bring. Source: measured, docs/decisions/0003."""


class Horizon(Struct, frozen=True):
    """How many requests profit from what is learned now; nothing of it is known, so it grows with what was seen."""

    share: float = 0.3
    """Of the requests of a group, or all, that are counted: later ones would have taught the same. Half or twice as
    much costs 0.001."""
    at_first: float = 8.0
    """Requests of a new group that are expected."""
    all_at_first: float = 20.0
    """Requests of all groups that are expected."""
    of_all: float = 0.5
    """Of all requests seen so far, that so many more may follow."""
    lane_share: float = 0.1
    """The same for a lane whose drafter is known at other lengths."""
    longest: float = 200.0

    def of_group(self, alike: int, requests: int) -> float:
        """For what an observation teaches of requests alike."""
        return self.share * self.of_change(alike, requests)

    def of_change(self, alike: int, requests: int) -> float:
        """For what is found out of a change: all requests alike that are expected."""
        return min(self.longest, self.at_first + alike, self.all_at_first + self.of_all * requests)

    def of_drafter(self, requests: int) -> float:
        """For what the first try of a kind of drafter teaches of all requests; after n tries, by 1 + n^2 less."""
        return min(self.longest, self.all_at_first + self.of_all * requests)

    def of_lane(self, requests: int) -> float:
        """For what the first try of a lane does, beside that; likewise."""
        return min(self.longest, self.lane_share * requests)


HORIZON = Horizon()

# What is believed of outcomes (reports.py)

MIN_TOKENS = 4
"""Decoded tokens below which an answer shows nothing about speed."""
MAX_TOKENS = 10**9
"""Counts of tokens from which on no report is believed: more than any context holds."""
MAX_ANSWER_TOKENS = 10**7
"""Tokens from which on no answer's length is believed: days of decoding on most machines."""
MIN_TOKENS_PER_S, MAX_TOKENS_PER_S = 0.01, 100_000.0
"""Between which an engine's speed is believed: slower than any user would wait for, and faster than any hardware."""
MAX_TIMES_CLOCK, CLOCK_SLACK_S = 1.1, 0.05
"""An engine may report to have worked for so many times what passed on the gateway's clock, and so many seconds more,
to be believed: clocks differ a little, and are rounded."""
MIN_SHARE_OF_CLOCK = 0.1
"""Share of the time that passed for which an engine must report to have worked, to be believed."""
MIN_PROMPT_TOKENS = 16
"""Processed prompt tokens below which a request does not show what the prefill of a token takes."""
MAX_SERVED = 1000
"""Conversations whose prompts engines are taken to hold. Of more, those that were quiet for longest are forgotten."""
