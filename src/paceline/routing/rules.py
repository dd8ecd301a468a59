"""The operator's rules: requests that go down a given lane, whatever is predicted."""

from collections.abc import Sequence
from hmac import compare_digest

from paceline.api_keys import given_key, resolved
from paceline.settings import Rule
from paceline.types import Request, Signals


def fitting(rules: Sequence[Rule], request: Request, signals: Signals) -> Rule | None:
    """The first rule that fits the request."""
    return next((rule for rule in rules if _fits(rule, request, signals)), None)


def _fits(rule: Rule, request: Request, signals: Signals) -> bool:
    if rule.model is not None and rule.model not in (request.model, request.served_model):
        return False
    if rule.task is not None and rule.task is not signals.task:
        return False
    if rule.api_key is not None and not compare_digest(resolved(rule.api_key).encode(), given_key(request.headers)):
        return False
    return rule.header is None or _has_header(rule.header, request)


def _has_header(wanted: str, request: Request) -> bool:
    name, _, value = wanted.partition(": ")
    lower = name.lower().encode()
    return any(header == lower and (not value or content == value.encode()) for header, content in request.headers)


def in_words(rule: Rule) -> str:
    """What the rule looks at, in a few words; without the key itself."""
    given = {"model": rule.model, "task": rule.task, "header": rule.header, "api_key": rule.api_key and "given"}
    return ", ".join(f"{name} {value}" for name, value in given.items() if value)
