"""What is kept of requests: which parts may be, where, and how each place is guarded.

:mod:`~paceline.records.kept` says what may be kept, :mod:`~paceline.records.state_file` how files are, and
:mod:`~paceline.records.sinks` how those that keep something are told of it.
"""
