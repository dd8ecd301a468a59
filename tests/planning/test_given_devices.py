from pathlib import Path

import msgspec
import pytest

from paceline.planning.given_devices import GIB, BadDevices, given_machine


def shown(gpus: str) -> list[tuple[str, int]]:
    return [(device.name, device.memory_bytes // GIB) for device in given_machine(gpus).devices]


@pytest.mark.parametrize(
    ("gpus", "devices"),
    [
        ("2x RTX PRO 6000", [("RTX PRO 6000", 96)] * 2),
        ("24,24", [("24 GiB card", 24)] * 2),
        ("2x24", [("24 GiB card", 24)] * 2),
        ("24 + 16GB", [("24 GiB card", 24), ("16 GiB card", 16)]),
        ("RTX 3090, RTX 5090", [("RTX 3090", 24), ("RTX 5090", 32)]),
        ("3x3090", [("RTX 3090", 24)] * 3),
        ("4090", [("RTX 4090", 24)]),
        ("RTX 5060 Ti 16GB", [("RTX 5060 Ti", 16)]),
        ("RTX 3080 12GB", [("RTX 3080 12GB", 12)]),
        ("M3 Ultra 96GB", [("M3 Ultra", 72)]),  # Metal lets a GPU use three quarters of the memory
    ],
)
def test_cards_are_read_by_name_number_and_memory(gpus: str, devices: list[tuple[str, int]]) -> None:
    assert shown(gpus) == devices


def test_names_bring_bandwidth_and_class_and_numbers_do_not() -> None:
    known, unknown = given_machine("RTX 3090, 24").devices
    assert (known.bandwidth_bytes_per_s, known.card_class, known.backend) == (936e9, "ampere", "cuda")
    assert (unknown.bandwidth_bytes_per_s, unknown.card_class, unknown.backend) == (None, "unknown", "other")


def test_never_is_more_free_than_there_is() -> None:
    for device in given_machine("2x RTX 5090, 24, GB10, M1 16GB, Strix Halo 128GB").devices:
        assert 0 < device.free_bytes < device.memory_bytes


def test_unified_memory_is_the_host_s() -> None:
    machine = given_machine("GB10")
    assert machine.is_unified
    assert machine.host_memory_bytes == machine.free_bytes
    assert given_machine("RTX 3090").host_memory_bytes is None
    assert given_machine("RTX 3090", 64 * GIB).host_memory_bytes == 64 * GIB


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        ("RTX 9090", "like it are RTX 5090"),
        ("banana", "gives cards by their memory"),
        ("RTX 5060 Ti", "comes with 8 or 16 GB"),
        ("M3 Ultra", "or 512 GB; say which: 'M3 Ultra 512GB'"),
        ("", "names no card"),
        ("0", "no card's memory"),
        ("0x 3090", "1 to 64"),
        ("65x 3090", "1 to 64"),
        ("40x 3090, 40x 24", "names 80 devices"),
        ("missing.json", "no file"),
    ],
)
def test_what_can_t_be_is_said(gpus: str, said: str) -> None:
    with pytest.raises(BadDevices, match=said):
        given_machine(gpus)


def test_a_file_describes_a_machine(tmp_path: Path) -> None:
    machine = given_machine("2x RTX 3090", 64 * GIB)
    path = tmp_path / "machine.json"
    path.write_bytes(msgspec.json.encode(machine))
    assert given_machine(str(path)) == machine
    path.write_bytes(msgspec.json.encode({"machine": machine, "plan": {}}))
    assert given_machine(str(path)) == machine
    path.write_text("[]")
    with pytest.raises(BadDevices, match="describes no machine"):
        given_machine(str(path))


@pytest.mark.parametrize(("free", "memory"), [(-1, GIB), (2 * GIB, GIB), (0, 0), (-2, -1)])
def test_a_file_with_memory_that_can_not_be_is_refused(free: int, memory: int, tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    device = {"name": "a card", "backend": "cuda", "memory_bytes": memory, "free_bytes": free}
    path.write_bytes(msgspec.json.encode({"devices": [device]}))
    with pytest.raises(BadDevices, match="a card can't have"):
        given_machine(str(path))
