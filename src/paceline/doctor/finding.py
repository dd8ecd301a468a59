"""What a look finds."""

from enum import StrEnum

from msgspec import Struct


class Severity(StrEnum):
    """How bad it is."""

    FAULT = "fault"
    """It keeps Paceline, or an engine, from working."""
    WARNING = "warning"
    """It works, but worse, less safely, or not for long."""
    NOTE = "note"
    """It is worth knowing."""
    FINE = "fine"


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that was looked at.

    Args:
        kind: names the sort of finding, and stays the same from version to version: ``port-taken``.
        about: what was looked at: ``engine gpu``.
        message: what there is, in whole sentences.
        mend: a command, or a sentence that says what to do; ``None`` where there is nothing to do.
    """

    severity: Severity
    kind: str
    about: str
    message: str
    mend: str | None = None


def fault(kind: str, about: str, message: str, mend: str) -> Finding:
    return Finding(severity=Severity.FAULT, kind=kind, about=about, message=message, mend=mend)


def warning(kind: str, about: str, message: str, mend: str) -> Finding:
    return Finding(severity=Severity.WARNING, kind=kind, about=about, message=message, mend=mend)


def note(kind: str, about: str, message: str, mend: str | None = None) -> Finding:
    return Finding(severity=Severity.NOTE, kind=kind, about=about, message=message, mend=mend)


def fine(about: str, message: str) -> Finding:
    return Finding(severity=Severity.FINE, kind="fine", about=about, message=message)
