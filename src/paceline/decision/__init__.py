"""Signals and lane states -> Decision; Outcome -> better state. Pure: no I/O, no clock, no globals.

>>> from random import Random
>>> from paceline.types import Lane, LaneState, Signals, Strategy, Task
>>> lanes = [LaneState(Lane("plain", "plain", Strategy())), LaneState(Lane("ngram", "ngram", Strategy("ngram")))]
>>> decide(Signals(task=Task.EDIT, evidence="rename + code"), lanes, State(), Random(0)).lane
'ngram'
"""

from paceline.decision.learn import State, learn
from paceline.decision.rules import decide

__all__ = ["State", "decide", "learn"]
