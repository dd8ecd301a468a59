"""What plans say of memory, beside the engine and the public: ``python -m benchmarks.planning.memory``.

1. Formulas against the real server, on tiny hollow models of 15 families.
2. Formulas against the dry run, on hollow models of real shapes, on cards that are not here, up to 1,048,576 tokens.
3. The dry run against published memory; plans against published set-ups.
4. Plans beside llama.cpp's own ``--fit``.
5. What other tools' formulas say of caches.

Needs the engine of ``paceline engine build``. Nothing is downloaded, no card is needed.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from benchmarks.planning.hollow_models import write
from benchmarks.planning.shapes import REAL, TINY
from paceline.engines.bundled_model import bundled_model
from paceline.engines.llama_cpp_build import Build, usable
from paceline.paths import cache_directory
from paceline.planning.compute_buffers import compute_buffers
from paceline.planning.devices import Device
from paceline.planning.drafters import FoundDrafter
from paceline.planning.dry_run import DryRun, DryRunFailed, dry_run, judge_of
from paceline.planning.gguf import read_model
from paceline.planning.given_devices import given_machine
from paceline.planning.memory import CacheType, Model, Placement, Settings, cache_bytes, model_of, mtp_cache_bytes
from paceline.planning.placing import CONTEXT_BYTES, by_tensor
from paceline.planning.plan import DoesNotFit, Plan, Wish
from paceline.planning.planner import make_plan

MIB, GIB = 1 << 20, 1 << 30
PUBLIC = Path(__file__).with_name("public_memory.toml")
READY = "initializing, n_slots"
START_SECONDS = 60.0
MAX_SERVER_ERROR, MAX_DRY_RUN_ERROR = 0.002, 0.001
"""Of cache, state and weights; the server prints two decimals of a MiB."""
MAX_DIFFERENCE_ERROR, MAX_ABSOLUTE_ERROR = 0.03, 0.05
CARD = Device(name="180 GiB", backend="cuda", memory_bytes=180 * GIB, free_bytes=179 * GIB)
HOST_BYTES = 64 * GIB


class Case(Struct, frozen=True):
    """A server's settings."""

    context: int
    slots: int = 1
    is_unified: bool = False
    cache: CacheType = "f16"
    micro_batch: int = 512
    mtp: int = 0
    cards: int = 1

    @property
    def settings(self) -> Settings:
        return Settings(
            context_tokens=self.context,
            slots=self.slots,
            is_unified=self.is_unified,
            key_type=self.cache,
            value_type=self.cache,
            micro_batch=self.micro_batch,
            draft_tokens=self.mtp,
            loads_mtp=self.mtp > 0,
        )

    @property
    def flags(self) -> list[str]:
        words = ["-c", str(self.context), "-np", str(self.slots), "-kvu" if self.is_unified else "-no-kvu"]
        words += ["-ctk", self.cache, "-ctv", self.cache, "-ub", str(self.micro_batch), "-fa", "on", "--fit", "off"]
        if self.mtp:
            words += ["--spec-type", "draft-mtp", "--spec-draft-n-max", str(self.mtp)]
        return words

    def __str__(self) -> str:
        parts = [f"{self.context:,}", self.cache]
        if self.slots > 1:
            parts.append(f"{self.slots} slots{' unified' if self.is_unified else ''}")
        if self.micro_batch != 512:
            parts.append(f"micro-batch {self.micro_batch}")
        if self.mtp:
            parts.append(f"MTP {self.mtp}")
        return ", ".join(parts)


SERVER_CASES = (
    Case(16384), Case(32768, cache="q8_0"), Case(32768, slots=4), Case(32768, slots=4, is_unified=True),
    Case(100000, slots=3, cache="q4_0"), Case(32768, micro_batch=2048), Case(32768, slots=2, mtp=3),
)  # fmt: skip
REFUSED = {("kimi-linear", 3)}
"""llama.cpp's graph of it can't be built for so many slots (b11434, an assertion in ggml.c)."""
LARGE_CASES: Sequence[tuple[str, Case]] = (
    ("Llama-3.3-70B-Q4_K", Case(131072, cache="q8_0", cards=2)),
    ("Qwen3-32B-Q4_K", Case(40960, slots=4)),
    ("Qwen3-235B-A22B-Q4_K", Case(40960, cards=2)),
    ("gpt-oss-120b", Case(131072)),
    ("gpt-oss-120b", Case(131072, slots=4, is_unified=True, cards=2)),
    ("gpt-oss-20b", Case(131072, cache="q8_0")),
    ("gemma-3-27b-Q4_K", Case(131072)),
    ("gemma-3-27b-Q4_K", Case(131072, slots=4, is_unified=True, cards=2)),
    ("GLM-4.5-Air-Q4_K", Case(131072, mtp=2, cards=2)),
    ("DeepSeek-V3-Q4_K", Case(163840, cache="q8_0", mtp=1, cards=4)),
    ("DeepSeek-V3.2-Q4_K", Case(163840, cards=4)),
    ("Qwen3.6-27B-Q4_K", Case(262144, cache="q4_0", mtp=2)),
    ("Qwen3.6-27B-Q4_K", Case(524288, cache="q8_0", mtp=4, cards=2)),
    ("Qwen3.6-35B-A3B-Q4_K", Case(524288, cache="q8_0")),
    ("granite-4.0-h-micro-Q8_0", Case(131072, slots=4)),
    ("DeepSeek-V4-Flash", Case(524288, cards=2)),
    ("DeepSeek-V4-Flash", Case(1048576, cards=2)),
)


class Bench:
    """Hollow models in a folder, and the engine that tells."""

    def __init__(self, folder: Path, built: Build) -> None:
        self._folder = folder
        self._built = built
        self._models: dict[str, Model] = {}
        self.vocabulary_of = bundled_model(cache_directory(), lambda: None)

    def model(self, name: str) -> Model:
        """A hollow one; tiny ones can be loaded."""
        if name not in self._models:
            tiny = name in TINY
            shape = TINY[name] if tiny else REAL[name]
            path = write(self._folder, name, shape, self.vocabulary_of if tiny else None)
            self._models[name] = model_of(read_model(path))
        return self._models[name]

    def dry(self, model: Model, flags: Sequence[str], cards: Sequence[Device]) -> DryRun:
        return dry_run(self._built.dry_run, ["--model", str(model.header.path), *flags], cards)

    def server_says(self, model: Model, flags: Sequence[str]) -> str:
        """What a server logs until it is ready."""
        log = self._folder / "server.log"
        command = [
            self._built.server,
            "-m",
            str(model.header.path),
            "-t",
            "1",
            "--port",
            "0",
            "--no-warmup",
            "-lv",
            "4",
        ]
        with log.open("w") as file:
            process = subprocess.Popen([*command, *flags], stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        end_s = time.monotonic() + START_SECONDS
        while time.monotonic() < end_s and process.poll() is None and READY not in log.read_text(errors="replace"):
            time.sleep(0.1)
        process.kill()
        process.wait()
        return log.read_text(errors="replace")

    def plan(self, name: str, gpus: str, wish: Wish) -> Plan:
        model = self.model(name)
        drafter = FoundDrafter("mtp", 4) if model.mtp_layers else None
        return make_plan(model, given_machine(gpus, HOST_BYTES), wish, drafter, judge_of(self._built))


def context_bytes(model: Model, settings: Settings) -> int:
    """Of all caches and states of the target."""
    assert model.architecture is not None
    return sum(cache_bytes(layer, model.architecture, settings) for layer in model.architecture.layers)


def drafter_bytes(model: Model, settings: Settings) -> int:
    assert model.architecture is not None
    return sum(mtp_cache_bytes(layer, model.architecture, settings) for layer in model.architecture.mtp_layers)


def weight_bytes(model: Model, loads_mtp: bool) -> int:
    """Of all that cards hold."""
    layers = model.layers if loads_mtp else model.layers[: model.trunk_count]
    return model.output_bytes + sum(layer.shared + layer.experts for layer in layers)


def logged(text: str) -> dict[str, float]:
    """MiB that a server says it allocated."""

    def total(pattern: str, part: str) -> float:
        return sum(map(float, re.findall(pattern + r" buffer size = +([\d.]+) MiB", part)))

    first, *contexts = text.split(READY)[0].split("constructing llama_context")
    found = {"weights": total("model", first)}
    for name, part in zip(("context", "drafter"), contexts, strict=False):
        found[name] = total("(?:KV|RS|state)", part)
    return found


def off(told: float, planned: float) -> float:
    return planned / told - 1 if told else float(planned != 0)


def compare_with_server(bench: Bench, names: Sequence[str]) -> float:
    """Prints a line a family; returns the largest error."""
    print("| family | kind | settings | cache and state, worst | weights, worst |\n|---|---|---|---|---|")
    worst = 0.0
    for name in names:
        model = bench.model(name)
        assert model.architecture is not None
        cases = [case for case in SERVER_CASES if not case.mtp or model.mtp_layers]
        cases = [case for case in cases if (name, case.slots) not in REFUSED]
        context_errors, weight_errors = [], []
        for case in cases:
            text = bench.server_says(model, case.flags)
            if READY not in text:
                raise SystemExit(f"{name}, {case}: the server does not come up:\n{text[-2000:]}")
            said, settings = logged(text), case.settings
            context_errors.append(off(said["context"], context_bytes(model, settings) / MIB))
            if case.mtp:
                context_errors.append(off(said["drafter"], drafter_bytes(model, settings) / MIB))
            # without a card, tied embeddings are there once
            weights = weight_bytes(model, settings.loads_mtp) + model.input_bytes - model.tied_bytes
            weight_errors.append(off(said["weights"], weights / MIB))
        context, weights_off = _largest(context_errors), _largest(weight_errors)
        worst = max(worst, abs(context), abs(weights_off))
        print(
            f"| {name} | {model.architecture.kind} | {len(cases)} | {context:+.3%} | {weights_off:+.3%} |", flush=True
        )
    return worst


def _largest(errors: Sequence[float]) -> float:
    return max(errors, key=abs)


def compare_with_dry_run(bench: Bench) -> float:
    """Prints a line a case; returns the largest error of cache, state and weights."""
    print("| model | cards | settings | weights | cache and state | error | buffers, worst card | dry run |")
    print("|---|---|---|---|---|---|---|---|")
    worst = 0.0
    for name, case in LARGE_CASES:
        model, settings = bench.model(name), case.settings
        blocks = model.header.own_number("block_count") + 1
        counts = [blocks // case.cards + (card < blocks % case.cards) for card in range(case.cards)]
        split = ",".join(map(str, counts))
        began_s = time.monotonic()
        told = bench.dry(model, [*case.flags, "-ngl", "999", "-ts", split], [CARD] * case.cards)
        took_s = time.monotonic() - began_s
        drafted = sum(device.context for device in told.drafter.devices) if told.drafter else 0
        context, weights = (
            sum(device.context for device in told.target.devices),
            sum(device.weights for device in told.target.cards),
        )
        errors = [
            off(context, context_bytes(model, settings)),
            off(weights, weight_bytes(model, settings.loads_mtp)),
            off(drafted, drafter_bytes(model, settings) if settings.loads_mtp else 0),
        ]
        places = tuple(card for card, count in enumerate(counts) for _ in range(count))
        assert model.architecture is not None
        buffers = compute_buffers(
            model, settings, Placement(layers=places, devices=case.cards), model.architecture
        ).devices
        buffer_error = _largest(
            [off(device.compute, mine) for device, mine in zip(told.target.cards, buffers, strict=True)]
        )
        worst = max(worst, *map(abs, errors))
        print(
            f"| {name} | {case.cards} | {case} | {weights / GIB:.1f} GiB | {(context + drafted) / GIB:.2f} GiB | "
            f"{_largest(errors):+.3%} | {buffer_error:+.1%} | {took_s:.1f} s |",
            flush=True,
        )
    return worst


def compare_with_public(bench: Bench) -> bool:
    """Prints what was published beside what is planned; returns whether all of it is within the bounds."""
    public: dict[str, Any] = tomllib.loads(PUBLIC.read_text("utf-8"))
    card = [Device(name="32 GiB", backend="cuda", memory_bytes=32 * GIB, free_bytes=32 * GIB)]
    is_right = True
    print("| published | reported | planned | error |\n|---|---|---|---|")
    for report in public["difference"]:
        model = bench.model("Qwen3.6-27B-Q4_K")
        own = sum(layer.shared for layer in model.layers[model.trunk_count :]) / MIB
        other = report["mtp_weights"] - own if "mtp_weights" in report else 0.0
        if report.get("by_tensor"):
            planned = _by_tensor_mib(model, report["drafted"]) - _by_tensor_mib(model, 0) + other / 2
        else:
            first, second = (
                _total_mib(bench, model, f"{report['flags']} {report[which]}", card) for which in ("first", "second")
            )
            planned = second - first + other
        error = off(report["reported"], planned)
        is_right &= abs(error) <= report.get("allowed", MAX_DIFFERENCE_ERROR)
        print(f"| {report['case']} | +{report['reported']:,} MiB | +{planned:,.0f} MiB | {error:+.1%} |")
    for report in public["absolute"]:
        model = bench.model("Qwen3.6-27B-Q4_K")
        told = bench.dry(model, _usual(report["flags"]), card)
        buffers = sum(part.devices[0].context + part.devices[0].compute for part in told.parts)
        planned = report["weights"] + (buffers + CONTEXT_BYTES) / MIB
        error = off(report["reported"], planned)
        is_right &= abs(error) <= MAX_ABSOLUTE_ERROR
        print(f"| {report['case']} | {report['reported']:,} MiB | {planned:,.0f} MiB | {error:+.1%} |")
    for report in public["buffers"]:
        told = bench.dry(bench.model(report["model"]), _usual(report["flags"]), card)
        planned = sum(device.context for device in told.target.devices) / MIB
        error = off(report["reported"], planned)
        is_right &= abs(error) <= MAX_ABSOLUTE_ERROR
        print(f"| {report['case']} | {report['reported']:,.0f} MiB | {planned:,.0f} MiB | {error:+.1%} |")
    print("\n| set-up | fits, as reported | planned |\n|---|---|---|")
    for report in public["setup"]:
        wish = Wish(context_tokens=report["context"], cache_type=report.get("kv"))
        fits, said = _fits(bench, report["model"], report["gpus"], wish)
        is_right &= fits == report["fits"]
        print(f"| {report['case']} | {'yes' if report['fits'] else 'no'} | {said} |")
    return is_right


def _usual(flags: str) -> list[str]:
    return ["-np", "1", "-no-kvu", "-ngl", "999", "-fa", "on", "--fit", "off", *flags.split()]


def _total_mib(bench: Bench, model: Model, flags: str, card: Sequence[Device]) -> float:
    return sum(part.devices[0].used for part in bench.dry(model, _usual(flags), card).parts) / MIB


def _by_tensor_mib(model: Model, drafted: int) -> float:
    """Of one of two cards that split tensors, of which the dry run tells sums alone."""
    settings = Case(131072, cache="q4_0", mtp=drafted).settings
    return by_tensor(model, settings, [32 * GIB] * 2).devices[0].total / MIB


def _fits(bench: Bench, model: str, gpus: str, wish: Wish) -> tuple[bool, str]:
    """On the cards alone, but for experts."""
    try:
        plan = bench.plan(model, gpus, wish)
    except DoesNotFit as error:
        return False, f"no: {error}"
    used = " and ".join(f"{budget.use.total / GIB:.1f}" for budget in plan.devices)
    on_host = plan.placement.host_experts
    experts = f", experts of {on_host} layers on the host" if on_host else ""
    layers = sum(place < 0 for place in plan.placement.layers)
    fits = plan.fits and not layers
    verdict = (
        "yes" if fits else f"no: {plan.context_tokens:,} tokens" + (f", {layers} layers on the host" * bool(layers))
    )
    return fits, f"{verdict}, {plan.split}, {used} GiB{experts}"


FIT_CASES = (
    ("DeepSeek-V4-Flash", "2x RTX PRO 6000", 524288),
    ("Qwen3.6-27B-Q4_K", "RTX 3090", 131072),
    ("gpt-oss-120b", "2x RTX 3090", 131072),
    ("gpt-oss-120b", "2x RTX 3090", None),
    ("Qwen3.6-35B-A3B-Q4_K", "12", None),
    ("Qwen3.6-27B-Q4_K", "2x RTX 5060 Ti 16GB", 131072),
)


def compare_with_fit(bench: Bench) -> None:
    """Prints what ``--fit`` does with the same wish, and what is planned."""
    print("| model, cards, context | `--fit` | plan |\n|---|---|---|")
    for name, gpus, context in FIT_CASES:
        model, machine = bench.model(name), given_machine(gpus, HOST_BYTES)
        wanted = ["-c", str(context)] if context else []
        mtp = ["--spec-type", "draft-mtp", "--spec-draft-n-max", "2"] if model.mtp_layers else []
        try:
            told = bench.dry(model, ["-np", "1", "-no-kvu", "-fa", "on", *wanted, *mtp], machine.devices)
        except DryRunFailed as error:
            fit = f"fails: {error}"
        else:
            assert told.fit is not None
            on_host = len({words for words in told.fit.overrides if words.endswith("CPU")})
            used = " and ".join(
                f"{sum(part.devices[at].used for part in told.parts) / GIB:.1f}" for at in range(len(machine.devices))
            )
            fit = f"{told.fit.context:,} tokens, {used} GiB"
            fit += f", experts of {on_host} layers on the host" * bool(on_host)
            blocks = model.header.own_number("block_count") + 1
            if 0 <= told.fit.gpu_layers < blocks:
                fit += f", {blocks - told.fit.gpu_layers} of {blocks} layers on the host"
            fit += "" if told.fit.succeeded else ", gives up"
        plan = bench.plan(name, gpus, Wish(context_tokens=context))
        used = " and ".join(f"{budget.use.total / GIB:.1f}" for budget in plan.devices)
        experts = plan.placement.host_experts
        said = f"{plan.context_tokens:,} tokens of {plan.settings.key_type}, {plan.split}, {used} GiB"
        said += f", experts of {experts} layers on the host" * bool(experts)
        print(f"| {name}, {gpus}, {f'{context:,}' if context else 'none given'} | {fit} | {said} |", flush=True)


PEER_CASES = (
    ("Llama-3.3-70B-Q4_K", 131072), ("gpt-oss-120b", 131072), ("gemma-3-27b-Q4_K", 131072),
    ("Qwen3.6-27B-Q4_K", 131072), ("Qwen3.6-35B-A3B-Q4_K", 131072), ("DeepSeek-V3-Q4_K", 131072),
    ("DeepSeek-V4-Flash", 524288),
)  # fmt: skip


def compare_with_peers(bench: Bench) -> None:
    """Prints formulas for caches that calculators use, over what llama.cpp allocates: every layer as if it attended to
    everything, with the head's width from the file (gguf-parser-go, Ollama's GraphSize), or from the hidden size over
    the heads (many web pages)."""
    print("| model, context | cache and state | planned | 2·L·kv·head | 2·L·kv·(d/h) |\n|---|---|---|---|---|")
    for name, context in PEER_CASES:
        model, case = bench.model(name), Case(context)
        cards = [CARD] * 4
        told = bench.dry(model, [*case.flags, "-ngl", "999"], cards)
        true = sum(device.context for device in told.target.devices)
        header = model.header
        heads, kept = header.own_number("attention.head_count"), header.own_number("attention.head_count_kv")
        head = header.own_number("attention.key_length") + header.own_number("attention.value_length")
        derived = 2 * header.own_number("embedding_length") // heads
        rows = model.trunk_count * kept * context * 2
        print(
            f"| {name}, {context:,} | {true / MIB:,.0f} MiB | {off(true, context_bytes(model, case.settings)):+.1%} | "
            f"{off(true, rows * head):+.0%} | {off(true, rows * derived):+.0%} |",
            flush=True,
        )


PARTS = ("server", "dry-run", "public", "fit", "peers")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[], help="all, if none is named")
    parser.add_argument("--families", nargs="*", default=list(TINY), help="of the first part")
    options = parser.parse_args()
    built = usable(cache_directory())
    if built is None or judge_of(built) is None:
        print("needs the engine of `paceline engine build`", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="paceline-planning-") as folder:
        return 0 if all(list(_run(Bench(Path(folder), built), options.parts or PARTS, options.families))) else 1


def _run(bench: Bench, parts: Sequence[str], families: Sequence[str]) -> Iterator[bool]:
    if "server" in parts:
        worst = compare_with_server(bench, families)
        print(f"\nlargest error {worst:.3%}, allowed {MAX_SERVER_ERROR:.1%}\n")
        yield worst <= MAX_SERVER_ERROR
    if "dry-run" in parts:
        worst = compare_with_dry_run(bench)
        print(f"\nlargest error {worst:.3%}, allowed {MAX_DRY_RUN_ERROR:.1%}\n")
        yield worst <= MAX_DRY_RUN_ERROR
    if "public" in parts:
        yield compare_with_public(bench)
        print()
    if "fit" in parts:
        compare_with_fit(bench)
        print()
    if "peers" in parts:
        compare_with_peers(bench)


if __name__ == "__main__":
    sys.exit(main())
