"""What the machine's power costs: as configured, or as its meters tell."""

from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from paceline.settings import CostSettings

JOULES_PER_KWH = 3.6e6
RAPL = Path("/sys/class/powercap")
"""Where Linux shows the energy meters of processors
(https://docs.kernel.org/power/powercap/powercap.html); mostly for root alone."""
FADING_S = 300.0
"""How long a measured time counts towards the means of power."""
LOOK_INTERVAL_S = 1.0
"""Meters are not read more often, while nothing changes: it may take a millisecond."""
MIN_MEASURED_S = 20.0
"""Of each, idle and busy, before they are believed."""

Meter = Callable[[], float | None]
"""Joules since some moment of its own; ``None`` where it does not tell any more."""


class Power(Struct, frozen=True):
    """Of the machine, in watts."""

    busy: float
    idle: float


def configured_power(settings: CostSettings) -> Power | None:
    """``None`` where it is not configured."""
    return None if settings.watts is None else Power(settings.watts, settings.idle_watts)


def marginal_cost(power: Power | None, price_per_kwh: float, busy_s: float, concurrent: float = 0.0) -> float:
    """What so much work adds to the bill of a machine that is on anyway: the power beyond the idle machine's; 0 where
    that is not known.

    Args:
        busy_s: of work on one request.
        concurrent: other requests that are worked on at the same time, and share the power.
    """
    if power is None:
        return 0.0
    return max(0.0, power.busy - power.idle) * busy_s / (1 + concurrent) / JOULES_PER_KWH * price_per_kwh


class PowerMeter:
    """Mean power of a machine while it works, and while it does not, of the last minutes.

    Args:
        meters: whose energies are added up; none measures nothing.
    """

    def __init__(self, meters: Sequence[Meter]) -> None:
        self._meters = list(meters)
        self._last: tuple[float, list[float | None], bool] | None = None
        self._sums: dict[bool, tuple[float, float]] = {True: (0.0, 0.0), False: (0.0, 0.0)}
        """By whether it worked: joules and seconds, the older ones faded."""

    def look(self, is_busy: bool, now_s: float) -> None:
        """To be called every second or more often. A time counts if the machine worked at both of its ends, or at none.

        Args:
            is_busy: whether it works on requests now.
        """
        if not self._meters:
            return
        if self._last and self._last[2] is is_busy and now_s - self._last[0] < LOOK_INTERVAL_S:
            return
        joules = [meter() for meter in self._meters]
        last, self._last = self._last, (now_s, joules, is_busy)
        if last is None or last[2] is not is_busy or now_s <= last[0]:
            return
        spent = [now - then for now, then in zip(joules, last[1], strict=True) if now is not None and then is not None]
        if len(spent) < len(joules) or min(spent) < 0:  # a counter began anew
            return
        took_s = now_s - last[0]
        fading = max(0.0, 1 - took_s / FADING_S)
        total, seconds = self._sums[is_busy]
        self._sums[is_busy] = fading * total + sum(spent), fading * seconds + took_s

    @property
    def power(self) -> Power | None:
        """``None`` before enough was seen of both."""
        (busy_j, busy_s), (idle_j, idle_s) = self._sums[True], self._sums[False]
        if min(busy_s, idle_s) < MIN_MEASURED_S:
            return None
        return Power(busy_j / busy_s, idle_j / idle_s)


def meters(rapl: Path = RAPL) -> list[Meter]:
    """The meters that can be read here: those of processors, by Linux, and of NVIDIA's cards, where
    ``paceline[power]`` is installed."""
    return [*processors(rapl), *cards()]


def processors(rapl: Path = RAPL) -> list[Meter]:
    """One for each package; what is within a package is counted with it."""
    packages = [folder for folder in sorted(rapl.glob("intel-rapl:*")) if folder.name.count(":") == 1]
    return [meter for folder in packages if (meter := _counter(folder)) is not None]


def _counter(folder: Path) -> Meter | None:
    """A counter of microjoules that begins anew at its end."""
    try:
        last = int((folder / "energy_uj").read_text())
        end = int((folder / "max_energy_range_uj").read_text())
    except (OSError, ValueError):
        return None
    rounds = 0

    def read() -> float | None:
        nonlocal last, rounds
        try:
            now = int((folder / "energy_uj").read_text())
        except (OSError, ValueError):
            return None
        rounds += now < last
        last = now
        return (now + rounds * end) / 1e6

    return read


def cards() -> list[Meter]:
    """One for each NVIDIA card that counts its energy (from Volta on)."""
    try:
        import pynvml
    except ImportError:
        return []
    found: list[Meter] = []
    try:
        pynvml.nvmlInit()
        for number in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(number)

            def read(handle: object = handle) -> float | None:
                try:
                    return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
                except pynvml.NVMLError:
                    return None

            if read() is not None:
                found.append(read)
    except pynvml.NVMLError:
        return []
    return found
