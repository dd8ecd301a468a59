"""Results of a bench: a file of JSON lines, the first of which tells how they came about."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct, field

ROUTED = "routed"
"""The way of requests that leave the lane to the gateway."""


class BadResults(Exception):
    """The file can't be read, or belongs to something else; ``str()`` says why."""


class Key(NamedTuple):
    """What was sent which way under which circumstances."""

    item: str
    way: str
    temperature: float
    concurrency: int
    round: int


class Sample(Struct, frozen=True, omit_defaults=True):
    """One answer. ``None`` where nobody reported the number."""

    item: str
    task: str
    way: str
    """A lane's name, or :data:`ROUTED`."""
    temperature: float
    concurrency: int = field(name="at_once")
    """Requests that are kept in flight. Results files have it under an older name."""
    round: int
    lane: str = ""
    """That served."""
    tokens: int | None = None
    """Of the answer."""
    decode_tokens: int | None = None
    """Of them, those that ``decode_s`` counts."""
    decode_s: float | None = None
    drafted: int | None = None
    accepted: int | None = None
    drafting_steps: int | None = None
    first_token_s: float | None = None
    """From sending the request to its first token, by the client's clock."""
    total_s: float = 0.0
    text: str = ""
    """Only where texts are compared."""
    error: str | None = None

    @property
    def key(self) -> Key:
        return Key(
            item=self.item,
            way=self.way,
            temperature=self.temperature,
            concurrency=self.concurrency,
            round=self.round,
        )

    @property
    def s_per_token(self) -> float | None:
        """Seconds of decoding per token."""
        return self.decode_s / self.decode_tokens if self.decode_s and self.decode_tokens else None


class Results(Struct, frozen=True):
    """A whole results file."""

    about: dict[str, Any]
    """Versions, machine, lanes with their engines, workload and settings: what is needed to repeat it."""
    samples: list[Sample]

    @property
    def lanes(self) -> list[str]:
        """Names, those that draft nothing first."""
        return [lane["lane"] for lane in sorted(self.about["lanes"], key=lambda lane: lane["strategy"]["drafts"])]


def read(path: Path) -> Results:
    """A results file; a last line that was cut off is passed over.

    Raises:
        BadResults: it is none.
    """
    try:
        lines = path.read_bytes().splitlines()
        about = json.loads(lines[0]) if lines else None
        if not isinstance(about, dict) or "lanes" not in about:
            raise ValueError("its first line does not tell about a bench")
        samples = []
        for number, line in enumerate(lines[1:], 2):
            try:
                samples.append(msgspec.json.decode(line, type=Sample))
            except msgspec.MsgspecError:
                if number < len(lines):
                    raise
    except OSError as error:
        raise BadResults(f"{path}: {error.strerror}") from error
    except (ValueError, msgspec.MsgspecError) as error:
        raise BadResults(f"{path} is no file of results that `bench run --results` wrote: {error}") from error
    return Results(about, samples)


class Writer:
    """Appends samples to a results file as they come.

    Args:
        about: the first line.
        resume: go on with a file that was written with the same settings.

    Raises:
        BadResults: the file can't be written; it exists and is not to be resumed, or tells of other settings.
    """

    def __init__(self, path: Path, about: dict[str, Any], resume: bool) -> None:
        self.measured: list[Sample] = []
        """Those that stood in the file already."""
        try:
            if path.exists():
                if not resume:
                    raise BadResults(f"{path} exists; --resume goes on with it")
                earlier = read(path)
                for name in ("settings", "workload"):
                    if earlier.about.get(name) != about[name]:
                        raise BadResults(f"{path} was measured with other {name}: {earlier.about.get(name)}")
                self.measured = [sample for sample in earlier.samples if sample.error is None]
                whole = [json.dumps(earlier.about).encode(), *(msgspec.json.encode(sample) for sample in self.measured)]
                path.write_bytes(b"\n".join(whole) + b"\n")
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(about) + "\n")
            self._file = path.open("ab")
        except OSError as error:
            raise BadResults(f"{path}: {error}") from error

    def add(self, sample: Sample) -> None:
        """Append one, at once: nothing is lost where the bench is broken off."""
        self._file.write(msgspec.json.encode(sample) + b"\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
