"""The machine's power, by meters."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from paceline.money.power import MIN_MEASURED_S, PowerMeter, cards, processors


def test_busy_and_idle_power_are_told_apart() -> None:
    joules = 0.0
    meter = PowerMeter([lambda: joules, lambda: 2 * joules])
    for second in range(200):
        is_busy = second // 20 % 2 == 1
        meter.look(is_busy, float(second))
        joules += 100.0 if is_busy else 10.0
    power = meter.power
    assert power is not None
    assert power.busy == pytest.approx(300.0)
    assert power.idle == pytest.approx(30.0)


def test_nothing_is_told_before_enough_was_seen_or_without_meters() -> None:
    joules = 0.0
    meter = PowerMeter([lambda: joules])
    for second in range(int(MIN_MEASURED_S)):
        joules += 1
        meter.look(False, float(second))
    assert meter.power is None
    nothing = PowerMeter(())
    nothing.look(True, 0.0)
    assert nothing.power is None


def test_a_counter_that_begins_anew_or_fails_is_left_out() -> None:
    told: list[float | None] = [1000.0, 1010.0, 5.0, None, 15.0, 25.0]
    meter = PowerMeter([lambda: told.pop(0)])
    for second in range(6):
        meter.look(False, float(second))
    joules, seconds = meter._sums[False]
    assert joules == pytest.approx(20.0, rel=0.01)
    assert seconds == pytest.approx(2.0, rel=0.01)


def test_processors_are_read_and_their_counters_wrap(tmp_path: Path) -> None:
    for name, energy in (("intel-rapl:0", "900000"), ("intel-rapl:0:1", "1"), ("intel-rapl:1", "no number")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(energy)
        (tmp_path / name / "max_energy_range_uj").write_text("1000000")
    (meter,) = processors(tmp_path)
    assert meter() == pytest.approx(0.9)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("100000")
    assert meter() == pytest.approx(1.1)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert meter() is None


def test_cards_are_read_where_the_library_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    class NVMLError(Exception):
        pass

    def energy(handle: int) -> int:
        if handle == 1:
            raise NVMLError  # an older card
        return 5000

    fake = ModuleType("pynvml")
    for name, value in {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda number: number,
        "nvmlDeviceGetTotalEnergyConsumption": energy,
    }.items():
        setattr(fake, name, value)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    (meter,) = cards()
    assert meter() == 5.0

    def no_driver() -> None:
        raise NVMLError

    fake.nvmlInit = no_driver  # type: ignore[attr-defined]
    assert cards() == []
