"""Signals and lane states -> Decision; Outcome -> better knowledge. Pure: no I/O, no clock, no globals.

>>> from random import Random
>>> from paceline.types import Lane, LaneState, Signals, Strategy, Task
>>> lanes = [LaneState(Lane("plain", "plain", Strategy())), LaneState(Lane("ngram", "ngram", Strategy("ngram")))]
>>> decide(Signals(tasks={Task.EDIT: 1.0}, copy=0.8), lanes, Knowledge(), Random(0), exploration=0).lane
'ngram'
"""

from paceline.decision.decide import decide
from paceline.decision.knowledge import ENTRY_TYPES, Key, Knowledge, Row
from paceline.decision.learn import learn
from paceline.decision.predict import predict
from paceline.decision.tuning import EXPLORATION

__all__ = ["ENTRY_TYPES", "EXPLORATION", "Key", "Knowledge", "Row", "decide", "learn", "predict"]
