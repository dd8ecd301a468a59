"""Paceline: a gateway that picks, for every request, the decoding strategy that is fastest on this machine."""

from importlib.metadata import version

__version__ = version("paceline")
