"""What is kept of requests.

:class:`~paceline.records.record.Record` is the noun for what happened; :mod:`~paceline.records.kept` makes it and says
what may be in it; :mod:`~paceline.records.sinks` gives it to each of those that keep something, guarded from one
another: the decision log, metrics, the last requests, spans, and lines for the terminal. :mod:`~paceline.records.read`
gets it back from the log, :mod:`~paceline.records.state_file` says how files are.
"""
