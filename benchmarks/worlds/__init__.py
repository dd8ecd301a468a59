"""Simulated worlds made from published measurements, and policies that choose lanes in them.

A world draws requests with the time that every lane would take, so the best lane of each request is known. Nothing in
it follows Paceline's own formulas: acceptance falls by position as published curves do, steps cost what cards were
measured to cost (``published.toml`` has every number with its source).

Seeds 0 to 19 are for reporting, 1000 and above for tuning: what a policy was tuned on is not what is reported.
"""

REPORTING_SEEDS = range(20)
TUNING_SEEDS = range(1000, 1020)
