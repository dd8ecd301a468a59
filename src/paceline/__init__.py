"""Paceline: a gateway that picks, for every request, the decoding strategy that is fastest on this machine."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("paceline")
except PackageNotFoundError:  # run from its source, without being installed
    __version__ = "from source"
