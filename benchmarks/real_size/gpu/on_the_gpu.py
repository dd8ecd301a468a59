"""What drafting costs on this machine's GPU at real size: runs on a bare machine, with Python and NumPy alone.

    python3 FOLDER/on_the_gpu.pyz --out OUT [--budget 500] [--shapes NAME ...] [--cpu --server llama-server]

For each shape in the folder: its weights are made up in memory, and one server with the MTP drafter takes everything
from its requests: how far to draft, or the costs and the prior of the draft control, and which share of the drafts is
accepted. For each acceptance and concurrency, plain decoding, every draft length and the control (told the true
acceptance, and a wrong one) take turns, again and again while the time lasts. Then come the same server without a
drafter, and two virtual devices of the one card in layer and in tensor split.

Every sample is a line of ``OUT/results.jsonl``, written at once. What does not fit into the budget is left out and said
in a line; so is a server that does not start, with the end of its log. Texts mean nothing; times and counts are real.
"""

import argparse
import json
import lzma
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.real_size.filling import Hollow, Place, fill
from benchmarks.real_size.gpu.samples import CONTROL, NO_DRAFTER, ONE_DEVICE, PLAIN, STATIC, step_costs
from benchmarks.real_size.gpu.server import NotServed, Server, serving

DRAFTER = "draft-mtp"
LENGTHS = (1, 2, 3, 4, 6, 8)
LONGEST = max(LENGTHS)
ACCEPTANCES = (0.8, 0.5, 0.95, 0.65, 0.35)
"""Probabilities that a drafted token is accepted if all before it were; what matters most first."""
CONCURRENCIES = (1, 4, 16)
FALSE_PRIORS = (0.35, 0.95)
"""What a control is told that is told wrong: the one that is further from the truth."""
PRIOR_WEIGHT = 12
"""Drafted tokens."""
START_TIMEOUT_S = 90.0
REQUEST_TIMEOUT_S = 120.0
SPLITS = ("layer", "tensor")
SPLIT_CONCURRENCIES, SPLIT_LENGTH, SPLIT_ACCEPTANCE = (1, 4), 3, 0.8
CONTEXT_TOKENS = 1024
"""Of each request that is decoded at once."""
GPU_ONLY = ("--n-gpu-layers", "999", "--flash-attn", "on")
CPU_ONLY = ("--threads", "1")
ENDING_S = 5.0
"""Kept of the budget, for the last server to end."""


class Setting(NamedTuple):
    """How the requests of one sample are decoded."""

    way: str
    acceptance: float
    """Of plain decoding: of what takes turns with it."""
    n_max: int = 0
    prior: float = 0.0
    """What a control is told."""

    def fields(self, costs: Sequence[float]) -> dict[str, Any]:
        """Of a request."""
        if self.way == PLAIN:
            return {"speculative.n_max": 0}
        fields: dict[str, Any] = {
            "speculative.n_max": self.n_max,
            "speculative.synthetic": {DRAFTER: [self.acceptance] * LONGEST},
        }
        if self.way == CONTROL:
            told = {"costs": list(costs), "acceptance": [self.prior], "weight": PRIOR_WEIGHT}
            fields["speculative.control"] = {DRAFTER: told}
        return fields


class Run:
    """The whole of it: the time it may take, and where it writes."""

    def __init__(self, out: Path, budget_s: float) -> None:
        self._began_s, self._budget_s = time.monotonic(), budget_s
        self._results = (out / "results.jsonl").open("a", buffering=1)
        self.log = out / "server.log"

    @property
    def left_s(self) -> float:
        return self._budget_s - ENDING_S - (time.monotonic() - self._began_s)

    def note(self, **row: Any) -> None:
        line = json.dumps(row | {"at_s": round(time.monotonic() - self._began_s, 2)})
        self._results.write(line + "\n")
        print(line, flush=True)

    def close(self) -> None:
        self._results.close()


class Part:
    """The samples of one server, until a moment from which on it leaves out the rest."""

    def __init__(self, run: Run, server: Server, known: Mapping[str, Any], tokens: int, keep_s: float) -> None:
        """
        Args:
            known: stands in every line.
            tokens: of each answer.
            keep_s: of the budget, for what comes after.
        """
        self._run, self._server, self._known, self._tokens, self._keep_s = run, server, known, tokens, keep_s
        self._took_s: dict[int, float] = {}
        """By concurrency, the longest sample so far."""
        self.rows: list[dict[str, Any]] = []

    def fits(self, concurrency: int) -> bool:
        """Whether one more sample does."""
        longest = max(self._took_s.values(), default=0.0)
        return self._run.left_s - self._keep_s > self._took_s.get(concurrency, longest)

    def sample(self, setting: Setting, concurrency: int, number: int, costs: Sequence[float] = ()) -> bool:
        """Take one, or say that it was left out; whether it was taken.

        Args:
            number: of the round; in each, requests have seeds of their own, the same for each way.
            costs: as the control is told.
        """
        row = dict(self._known) | setting._asdict() | {"concurrency": concurrency, "round": number}
        if not self.fits(concurrency):
            self._run.note(left_out=row)
            return False
        timeout_s = min(REQUEST_TIMEOUT_S, max(1.0, self._run.left_s))
        answers, wall_s = self._server.together(
            concurrency, self._tokens, setting.fields(costs), 1000 * (number + 1), timeout_s
        )
        self._took_s[concurrency] = max(wall_s, self._took_s.get(concurrency, 0.0))
        row |= {"costs": [round(cost, 4) for cost in costs], "wall_s": round(wall_s, 4), "answers": answers}
        self.rows.append(row)
        self._run.note(**row)
        return True

    def warm_up(self) -> None:
        """Everything is slow the first time: graphs are built, and memory is mapped."""
        for setting in (Setting(PLAIN, 0.0), Setting(STATIC, 0.5, LONGEST)):
            self._server.together(1, 8, setting.fields(()), 0, REQUEST_TIMEOUT_S)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(sys.argv[0]).resolve().parent
    parser.add_argument("--folder", type=Path, default=beside, help="what was prepared; by default beside this program")
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="a folder in memory, for the weights")
    parser.add_argument("--budget", type=float, default=500.0, help="seconds")
    parser.add_argument("--shapes", nargs="+", default=[], help="by default all in the folder")
    parser.add_argument("--tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--rounds", type=int, default=20, help="at most")
    parser.add_argument("--server", type=Path, help="a llama-server; by default the folder's llama-server.xz")
    parser.add_argument("--cpu", action="store_true", help="try everything out on a CPU")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    run = Run(options.out, options.budget)
    program = options.server or _unpacked(options.folder / "llama-server.xz")
    shapes = options.shapes or sorted(file.name.removesuffix(".json") for file in options.folder.glob("*.json"))
    run.note(machine=_machine(options.cpu), shapes=shapes, budget_s=options.budget, arguments=sys.argv[1:])
    for number, shape in enumerate(shapes):
        later_s = run.left_s * (1 - 1 / (len(shapes) - number))
        hollow = _hollow(options.folder, shape)
        model = _with_room(options.memory, hollow.size_bytes) / f"{shape}.gguf"
        try:
            began_s = time.monotonic()
            fill(hollow, model)
            gib = round(model.stat().st_size / 2**30, 2)
            run.note(shape=shape, made_s=round(time.monotonic() - began_s, 2), gib=gib, file=str(model))
            _measure(run, str(program), model, options, shape, later_s)
        except OSError as error:
            run.note(shape=shape, failed=repr(error))
        finally:
            model.unlink(missing_ok=True)
    run.note(done=True)
    run.close()


def _measure(run: Run, program: str, model: Path, options: argparse.Namespace, shape: str, later_s: float) -> None:
    """One shape, in its share of the time.

    Args:
        later_s: of the budget, for other shapes.
    """
    common = [program, "--model", str(model), "--no-webui", "--no-warmup", *(CPU_ONLY if options.cpu else GPU_ONLY)]
    dice = ("--spec-synth-rates", ",".join(["0.5"] * LONGEST))  # which requests replace
    drafting = ("--spec-type", DRAFTER, "--spec-draft-n-max", str(LONGEST), *dice)
    began_s = time.monotonic()

    def part(server: Server, name: str, keep_s: float) -> Part:
        known = {"shape": shape, "server": name, "start_s": round(server.start_s, 2)}
        return Part(run, server, known, options.tokens, later_s + keep_s)

    def failed(name: str, error: NotServed) -> None:
        run.note(shape=shape, server=name, failed=str(error))

    # 1. All that one server tells. Three more starts come after it, each as long as this one, with some samples.
    room = _room(max(CONCURRENCIES))
    start_s = 0.0
    try:
        with serving([*common, *room, *drafting], run.log, min(START_TIMEOUT_S, max(1.0, run.left_s))) as server:
            one = part(server, ONE_DEVICE, 0.0)
            one.warm_up()
            start_s = time.monotonic() - began_s
            one = part(server, ONE_DEVICE, 3 * start_s)
            for number in range(options.rounds):
                if not _round(one, number):
                    break
    except NotServed as error:
        failed(ONE_DEVICE, error)

    # 2. What it costs that a drafter is loaded.
    try:
        if run.left_s - later_s < start_s:
            run.note(left_out={"shape": shape, "server": NO_DRAFTER})
        else:
            with serving([*common, *room], run.log, min(START_TIMEOUT_S, max(1.0, run.left_s))) as server:
                one = part(server, NO_DRAFTER, 2 * start_s)
                server.together(1, 8, {}, 0, REQUEST_TIMEOUT_S)
                for concurrency in CONCURRENCIES:
                    one.sample(Setting(PLAIN, 0.0), concurrency, 0)
    except NotServed as error:
        failed(NO_DRAFTER, error)

    # 3. Two virtual devices; where the drafter is what does not start, without it.
    for split in SPLITS:
        for drafts in (True, False):
            name = f"two devices, {split} split" + ("" if drafts else ", no drafter")
            if run.left_s - later_s < start_s:
                run.note(left_out={"shape": shape, "server": name})
                break
            two = ("--split-mode", split, "--tensor-split", "1,1", "--fit", "off", *_room(max(SPLIT_CONCURRENCIES)))
            words = [*common, *two, *(drafting if drafts else ())]
            try:
                with serving(
                    words, run.log, min(START_TIMEOUT_S, max(1.0, run.left_s)), {"GGML_CUDA_DEVICES": "2"}
                ) as server:
                    one = part(server, name, 0.0)
                    server.together(1, 8, {}, 0, REQUEST_TIMEOUT_S)
                    for concurrency in SPLIT_CONCURRENCIES:
                        one.sample(Setting(PLAIN, 0.0), concurrency, 0)
                        if drafts:
                            one.sample(Setting(STATIC, SPLIT_ACCEPTANCE, SPLIT_LENGTH), concurrency, 0)
                break
            except NotServed as error:
                failed(name, error)


def _round(part: Part, number: int) -> bool:
    """Every setting once; whether there was time for all."""
    complete = True
    for place, acceptance in enumerate(ACCEPTANCES):
        for concurrency in CONCURRENCIES:
            for setting in _settings(acceptance, number + place):
                costs = step_costs(part.rows, concurrency) if setting.way == CONTROL else []
                if setting.way != CONTROL or costs:
                    complete &= part.sample(setting, concurrency, number, costs)
    return complete


def _settings(acceptance: float, turn: int) -> Iterator[Setting]:
    """In another order each time; the control last, since it is told what the others have just cost, with plain
    decoding beside it."""
    fixed = [Setting(PLAIN, acceptance), *(Setting(STATIC, acceptance, length) for length in LENGTHS)]
    turn %= len(fixed)
    yield from fixed[turn:] + fixed[:turn]
    wrong = max(FALSE_PRIORS, key=lambda prior: abs(prior - acceptance))
    yield Setting(CONTROL, acceptance, LONGEST, acceptance)
    yield Setting(PLAIN, acceptance)
    yield Setting(CONTROL, acceptance, LONGEST, wrong)


def _room(slots: int) -> tuple[str, ...]:
    return "--parallel", str(slots), "--ctx-size", str(CONTEXT_TOKENS * slots)


def _hollow(folder: Path, shape: str) -> Hollow:
    places = json.loads((folder / f"{shape}.json").read_text())
    return Hollow(lzma.decompress((folder / f"{shape}.head.xz").read_bytes()), [Place(*place) for place in places])


def _unpacked(packed: Path) -> Path:
    """Not into memory's folder, from which containers often may not run anything."""
    program = Path(tempfile.mkdtemp(prefix="llama-server-")) / "llama-server"
    program.write_bytes(lzma.decompress(packed.read_bytes()))
    program.chmod(0o755)
    return program


def _with_room(memory: Path, size_bytes: int) -> Path:
    """Containers often have little memory there; a disk is slower, but only once."""
    return memory if shutil.disk_usage(memory).free > size_bytes else Path(tempfile.gettempdir())


def _machine(is_cpu: bool) -> str:
    if is_cpu:
        return "a CPU, to try everything out"
    asked = ["nvidia-smi", "--query-gpu=name,memory.total,power.limit,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    except OSError as error:
        return f"unknown: {error}"


if __name__ == "__main__":
    main()
