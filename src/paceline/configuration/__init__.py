"""The configuration file: read, checked, and described. What it is read into are the types of ``paceline.settings``.

``toml.py`` reads, ``check.py`` finds contradictions, ``reference.py`` writes the tables of ``docs/configuration.md``.
"""

from paceline.addresses import is_address, is_loopback, url_problem
from paceline.configuration.check import check_usable, has_keys
from paceline.configuration.places import KeyPath, Problem
from paceline.configuration.toml import load, located_in, parse
from paceline.settings import ConfigurationError

__all__ = [
    "ConfigurationError",
    "KeyPath",
    "Problem",
    "check_usable",
    "has_keys",
    "is_address",
    "is_loopback",
    "load",
    "located_in",
    "parse",
    "url_problem",
]
