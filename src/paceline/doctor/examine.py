"""All looks, and how they are done: what one of them fails by hides nothing that the others find."""

import asyncio
from collections.abc import Callable, Iterator, Sequence

from paceline.doctor import configured, files, host, models, running, service
from paceline.doctor.finding import Finding, Severity, note
from paceline.doctor.scene import Scene

Look = Callable[[Scene], Iterator[Finding]]

LOOKS: Sequence[Look] = (
    configured.file_can_be_used,
    configured.engines_can_be_started,
    configured.drafting_is_as_configured,
    configured.secrets_are_private,
    configured.gateway_is_closed,
    configured.what_it_wants_is_installed,
    configured.budgets_can_be_held,
    running.port_is_free,
    running.gateway_is_well,
    running.reachable_by_others,
    service.service_is_current,
    models.models_fit,
    models.drafters_fit,
    models.flags_make_sense,
    models.engine_uses_the_cards,
    files.folders_can_be_used,
    files.there_is_room,
    files.databases_are_whole,
    files.log_is_not_from_the_future,
    host.clock_is_right,
    host.files_can_be_opened,
    host.variables_are_meant,
    host.processor_runs_free,
    host.swap_is_not_needed,
)
ORDER = (Severity.FAULT, Severity.WARNING, Severity.NOTE, Severity.FINE)


async def examine(scene: Scene, say: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """What is found, the worst first. Nothing is changed, started or sent but small questions to engines.

    Args:
        say: told what is being looked at.
    """
    findings: list[Finding] = []
    for look in LOOKS:
        say(look.__name__.replace("_", " "))
        findings += await asyncio.to_thread(_guarded, look, scene)
    say("engines answer")
    try:
        findings += await running.engines_answer(scene)
    except Exception as error:
        findings.append(_could_not("engines answer", error))
    return sorted(findings, key=lambda finding: ORDER.index(finding.severity))


def _guarded(look: Look, scene: Scene) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(look(scene))
    except Exception as error:
        found.append(_could_not(look.__name__.replace("_", " "), error))
    return found


def _could_not(what: str, error: Exception) -> Finding:
    """A look that fails is a defect of ours, or of this machine's; the others go on."""
    return note("look-failed", "doctor", f'Whether "{what}" could not be seen: {type(error).__name__}: {error}.')
