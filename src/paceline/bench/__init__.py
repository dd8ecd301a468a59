"""Which setting is fastest for which task on this machine: every lane and the routing side by side, on one workload.

A client of a gateway like any other: it knows of engines only what ``/paceline/lanes`` and ``/paceline/requests`` tell.
"""
