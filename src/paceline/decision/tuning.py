"""The numbers that the decision was tuned with: what each means, its unit, its source, and how much it matters.

Beliefs about drafters and tasks stand in ``priors.py``, about machines in ``step_cost.py``, about forgetting in
``cells.py``.

Where a docstring names no source, the number was set by hand and kept because it did well on the machines of
``benchmarks.learning``. *Sensitivity* is what halving and doubling it adds to the share of the oracle's time there
(96.6 %), in points: ``python -m benchmarks.learning.sensitivity``, 5 seeds. Where none is given, both are within 0.1
points, which is chance. Those machines serve one request at a time, without prefills and conversations, so numbers
about these matter more than they show.
"""

# What is predicted (predict.py)

MIN_TASK = 0.15
"""Probability below which a task that a request may be is not considered."""
CHARS_PER_TOKEN = 4.0
"""Characters per token of a prompt whose tokens nobody has counted yet. Source: usual for English text."""
PREFILL_S_PER_TOKEN = 0.001
"""Seconds per prompt token, before a prefill was measured. Sensitivity: halved -0.04, doubled -0.20."""
PRIOR_SPREAD = 0.9
"""Standard deviation, in logits, of the priors of acceptance and coverage."""
TASK_SPREAD = 0.6
"""Standard deviation, in logits, by which a task deviates from a drafter's other tasks. Sensitivity: halved -0.12,
doubled +0.03."""
NEAR_SPREAD = 0.3
"""Standard deviation, in logits, by which an amount to copy deviates from a task's other requests, and a conversation
from its task."""
MISFIT = 0.06
"""Standard deviation of what the model misses in a plain lane's time, and in the cost of a lane's verification step; as
a logarithm. Sensitivity: halved 0.00, doubled -0.11."""
MIN_COST = 0.1
"""Least cost of a verification step, as a share of what was believed."""
UNKNOWN_COST = 0.1
"""Relative standard deviation of a verification step's cost from which on a cap that was never tried teaches about
it."""
PLAIN_GAP = 3.0
"""Standard deviations from which on a lane is believed to deviate by more than :data:`MISFIT`."""
BLIND_MISFIT = 0.25
"""Misfit of a lane whose engine does not report what was accepted, so that the time alone shows how wrong the prior is;
and again by which a task deviates from the lane's others. As a logarithm."""
UNSEEN_SPREAD = 0.25
"""Standard deviation, as a logarithm, of a plain lane's time as long as it follows only from what drafting lanes
took."""
GUESSED_SPREAD = 0.5
"""Standard deviation, as a logarithm, of a plain lane's time as long as it follows only from what drafting lanes took
whose engines do not report what was accepted."""
LOOKUP_COST = 0.02
"""What looking up costs in steps that find nothing, as a share of a plain step. Source: lanes that never drafted were
slower than plain ones by 1 to 2 %, seen at a cap below the engine's shortest draft."""

# What is chosen (decide.py)

EXPLORATION = 0.01
"""Share of decode time that may be spent on lanes that are not predicted to be the fastest. The setting
``routing.exploration`` is for operators to change it. Sensitivity: halved +0.19, doubled -0.35; what it buys is proof,
and that changes are noticed."""
FAR_WORSE = 1.4
"""A lane is not explored that would take so many times the best one's time even if it were a standard deviation faster
than predicted. Sensitivity: halved -0.41, doubled -0.06."""
MAX_PROBED = 0.12
"""Probability, at most, with which a drafter that lost before is tried again to see whether it changed."""
HEAD_START = 0.5
"""Times the set share that may be spent on the first requests, when there is most to learn; it falls off with
:data:`HEAD_START_REQUESTS`. Sensitivity: halved -0.13, doubled -0.05."""
HEAD_START_REQUESTS = 40.0
"""Requests after which half of the head start is over. Sensitivity: halved -0.10, doubled 0.00."""
MAX_COMPARED = 0.05
"""Probability, at most, with which a lane is picked that would be best if it had to serve all requests, as a static
policy: what it takes where another one is predicted to be faster is what shows whether choosing pays. Source:
docs/decisions/0011."""
COMPARING_PART = 0.5
"""Part of the share for exploration that comparing may be expected to cost. Source: docs/decisions/0011."""
NEARLY_BEST = 1.02
"""Lanes that would take so many times as long may be the best static one as well. Source: docs/decisions/0011.
Sensitivity: doubled, so that all lanes are compared, -0.26."""
PATIENCE = 3.0
"""Times the present share that a single decision may be expected to cost. Sensitivity: halved +0.04, doubled +0.13."""
MAX_CANDIDATES = 4
"""Lanes that one choice is made among: the best one, and those that may be tried instead. Sensitivity: halved -0.16,
doubled 0.00."""
MIN_SPREAD = 0.01
"""Standard deviation of a time's logarithm that is assumed at least, where lanes are compared."""
MAX_CONCURRENT_TURNS = 1
"""Requests in flight on a device whose engines take turns, beyond which all go plain and meet in one engine's turn: a
turn that keeps changing costs more than drafts bring. Source: measured, docs/decisions/0003."""

# What is believed of outcomes, and how much (learn.py)

MIN_TOKENS = 4
"""Decoded tokens below which an answer shows nothing about speed."""
MIN_TOKENS_PER_S, MAX_TOKENS_PER_S = 0.01, 100_000.0
"""Between which an engine's speed is believed: slower than any user would wait for, and faster than any hardware."""
MAX_TIMES_CLOCK, CLOCK_SLACK_S = 1.1, 0.05
"""An engine may report to have worked for so many times what passed on the gateway's clock, and so many seconds more,
to be believed: clocks differ a little, and are rounded. Sensitivity: the first halved -2.95, doubled 0.00 (2 seeds)."""
MIN_SHARE_OF_CLOCK = 0.1
"""Share of the time that passed for which an engine must report to have worked, to be believed."""
REQUEST_SPREAD = 0.5
"""Standard deviation, in logits, of acceptance between requests of one task."""
COVERAGE_SPREAD = 0.7
"""Standard deviation, in logits, of coverage between requests of one task."""
TIME_NOISE = 0.15
"""Relative standard deviation of a request's decode time. Sensitivity: halved -0.02, doubled -0.29."""
CORRECTION_NOISE = 0.3
"""Standard deviation that a verification step's cost has beyond :data:`TIME_NOISE`, between tasks, by which the model
errs differently. As a logarithm."""
BLIND_NOISE = 0.5
"""Standard deviation that a plain step's time has beyond :data:`TIME_NOISE` where it follows from verification steps.
As a logarithm."""
MAX_DRAFTING_SHARE = 0.1
"""Share of verification steps beyond which a request does not show what a plain step takes."""
MAX_STEP_COST = 1000.0
"""Plain steps that a step is taken to cost at most: beyond, the machine stood still."""
MAX_MISS = 3.0
"""How far a time is taken to be off the model's, as a logarithm: 20 times as long, or a twentieth."""
LENGTH_SPREAD = 0.8
"""Standard deviation of the logarithm of an answer's length, between requests of one task."""
MIN_PROMPT_TOKENS = 16
"""Processed prompt tokens below which a request does not show what the prefill of a token takes."""
MAX_CONVERSATIONS = 1000
"""Conversations that are remembered. Of more, those that were quiet for longest are forgotten."""
