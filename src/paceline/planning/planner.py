"""From a model and a machine to a plan for llama.cpp's server.

The search is arithmetic; what it finds is judged by a dry run of the engine itself, where there is one, until nothing
is over a device's budget by the engine's own figures.
"""

import time

from msgspec.structs import replace

from paceline.engines.llama_cpp_flags import drafting_flags
from paceline.planning import command_line, speed
from paceline.planning.architectures import Architecture, assumed_architecture
from paceline.planning.choices import choices
from paceline.planning.devices import Machine
from paceline.planning.drafters import FoundDrafter
from paceline.planning.dry_run import DryRunFailed, Judge
from paceline.planning.gguf import read_model
from paceline.planning.judging import difference, measured
from paceline.planning.memory import HOST, Model, model_of
from paceline.planning.placing import CONTEXT_BYTES, MARGIN_BYTES, Layout, budget_bytes
from paceline.planning.plan import Budget, DoesNotFit, Judgement, Plan, Wish
from paceline.planning.search import HOST_MARGIN_BYTES, Found, Search, used_machine
from paceline.planning.unknown_architecture import asked_architecture

NAMES = {"cuda": "CUDA", "rocm": "ROCm", "vulkan": "Vulkan", "metal": "MTL", "sycl": "SYCL"}
"""What llama.cpp calls devices of a backend, before their numbers."""
MAX_TRIALS = 6
"""Of the dry run: after the first, what the formulas missed is known, and the next plan leaves room for it."""


def make_plan(
    model: Model, machine: Machine, wish: Wish, drafter: FoundDrafter | None = None, judge: Judge | None = None
) -> Plan:
    """Plan for llama.cpp.

    Args:
        drafter: the one with a model of its own that fits best, from :func:`paceline.planning.drafters.find_drafter`.
        judge: asks the engine that will be started; ``None`` where there is none.

    Raises:
        DoesNotFit: the host and the devices together can't hold the model.
        BadModelFile: the drafter's file can't be used.
    """
    warnings = [*machine.warnings]
    architecture = model.architecture or _asked(model, judge, warnings)
    whole = replace(model, architecture=architecture)
    draft_model = _draft_model(drafter)
    corrections: dict[int, int] = {}
    search = Search(whole, architecture, machine, wish, drafter, draft_model, corrections)
    judgement: Judgement | None = None
    for _ in range(MAX_TRIALS):
        found, steps = search.best()
        caches = command_line.host_caches(found, architecture, machine)
        words = command_line.flags(found, machine, caches)
        drafters = command_line.drafters(found, architecture, drafter, search.draft_tokens(found.candidate))
        if judge is None:
            break
        asked = ["--model", str(model.header.path), *command_line.for_dry_run(words), *drafting_flags(drafters)]
        began_s = time.monotonic()
        try:
            answer = judge(asked, [machine.devices[at] for at in found.candidate.used])
        except DryRunFailed as error:
            warnings.append(f"The dry run failed, so these are the formulas' figures alone: {error}.")
            break
        actual = measured(found.layout, answer, whole, found.settings.loads_mtp)
        judgement = Judgement(
            build=answer.build,
            took_s=time.monotonic() - began_s,
            difference=difference(found.layout, actual) if judgement is None else judgement.difference,
        )
        if not _is_over(found, actual, machine):
            found = Found(found.candidate, found.settings, actual)
            break
        _correct(corrections, found, actual)
    else:
        raise DoesNotFit(f"no plan of {MAX_TRIALS} that were tried fits by the engine's own figures")
    if model.unknown_types:
        kinds = ", ".join(map(str, model.unknown_types))
        warnings.append(f"The file has tensors of types that are not known here ({kinds}); their bytes are missing.")
    wished = wish.context_tokens
    host_free = machine.host_memory_bytes
    if host_free is not None and machine.is_unified:
        host_free -= found.device_bytes
    host = Budget(name="host", free=host_free, use=found.layout.host, reserved=HOST_MARGIN_BYTES)
    largest = search.largest_context(found)
    return Plan(
        model=model.header.path.name,
        architecture=architecture.name,
        is_known=model.architecture is not None,
        fits=wished is None or found.candidate.context_tokens >= wished,
        wish=wish,
        settings=found.settings,
        placement=found.layout.placement,
        split=found.candidate.split,
        devices=_budgets(found, machine),
        host=host,
        flags=words,
        drafters=drafters,
        choices=tuple(choices(whole, architecture, machine, found, steps, search, drafter, drafters, caches)),
        warnings=tuple(warnings),
        judgement=judgement,
        largest_context_tokens=largest,
        checkpoints=caches.checkpoints,
        drafted_token_cost=_token_cost(model, used_machine(machine, found.candidate)),
        used_devices=found.candidate.used,
    )


def _asked(model: Model, judge: Judge | None, warnings: list[str]) -> Architecture:
    """Of a model whose architecture is not known: as the engine has it, or else the most it can be."""
    if judge is not None:
        try:
            return asked_architecture(model, judge)
        except DryRunFailed as error:
            warnings.append(f"The engine does not know the architecture either: {error}.")
    return assumed_architecture(model.headers)


def _draft_model(drafter: FoundDrafter | None) -> Model | None:
    if drafter is None or drafter.file is None:
        return None
    model = model_of(read_model(drafter.file))
    return model if model.architecture else replace(model, architecture=assumed_architecture(model.headers))


def _token_cost(model: Model, machine: Machine) -> float | None:
    if not machine.devices:
        return None
    experts = None
    if model.expert_count:
        share = sum(layer.experts for layer in model.layers) * model.experts_used / model.expert_count
        experts = speed.Experts(model.expert_count, model.experts_used, share / max(1, model.active_bytes))
    return speed.cost_per_drafted_token(machine, experts)


def _budgets(found: Found, machine: Machine) -> tuple[Budget, ...]:
    return tuple(
        Budget(
            name=machine.devices[at].engine_name or f"{NAMES.get(machine.devices[at].backend, 'GPU')}{at}",
            free=machine.devices[at].free_bytes,
            use=use,
            reserved=CONTEXT_BYTES + MARGIN_BYTES,
        )
        for at, use in zip(found.candidate.used, found.layout.devices, strict=True)
    )


def _is_over(found: Found, actual: Layout, machine: Machine) -> bool:
    """Whether the engine's own figures are over what the machine has."""
    pairs = zip(found.candidate.used, actual.devices, strict=True)
    if any(use.total > budget_bytes(machine.devices[at]) for at, use in pairs):
        return True
    host = machine.host_memory_bytes
    needed = actual.host.total + (sum(use.total for use in actual.devices) if machine.is_unified else 0)
    return host is not None and needed > host - HOST_MARGIN_BYTES


def _correct(corrections: dict[int, int], found: Found, actual: Layout) -> None:
    """What the engine takes beyond the formulas is kept free from now on."""
    pairs = list(zip(found.candidate.used, found.layout.devices, actual.devices, strict=True))
    for at, planned, its in [*pairs, (HOST, found.layout.host, actual.host)]:
        corrections[at] = max(corrections.get(at, 0), its.total - planned.total)
