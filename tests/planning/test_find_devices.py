from pathlib import Path

import pytest
from tests.planning import recorded_machines as recorded
from tests.planning.recorded_machines import SERVER, answering

from paceline.planning.device_reports import (
    amd_cards,
    amd_smi_cards,
    engine_devices,
    nvidia_cards,
    nvlinks,
    rocm_cards,
)
from paceline.planning.devices import Device, Machine
from paceline.planning.find_devices import find_machine

MIB = 1 << 20
HOST = 64 << 30
NOWHERE = Path("/nowhere")


def found(system: str = "Linux", program: str | None = SERVER, host: int = HOST, **texts: str) -> Machine:
    return find_machine(program, run=answering(**texts), drm=NOWHERE, system=system, host_memory_bytes=host)


def shown(device: Device) -> tuple[str, int, int]:
    return device.engine_name, device.memory_bytes // MIB, device.free_bytes // MIB


def test_cards_are_as_the_engine_lists_them_with_what_their_names_tell() -> None:
    machine = found(llama_server=recorded.PRO_6000_AND_TWO_4090)
    assert [shown(device) for device in machine.devices] == [
        ("CUDA0", 97886, 97250),
        ("CUDA1", 49139, 48600),  # a modified card: its memory is believed, its bandwidth is its name's
        ("CUDA2", 24563, 24100),
    ]
    assert [device.bandwidth_bytes_per_s for device in machine.devices] == [1792e9, 1008e9, 1008e9]
    assert [device.card_class for device in machine.devices] == ["blackwell", "ada", "ada"]
    assert machine.source == "llama-server --list-devices"
    assert machine.warnings == ()


def test_a_driver_adds_power_and_links() -> None:
    machine = found(llama_server=recorded.TWO_5090, nvidia_smi=recorded.TWO_5090_SMI)
    first, second = machine.devices
    assert (first.power_limit_w, second.power_limit_w, second.default_power_limit_w) == (575, 400, 575)
    assert (first.address, second.address) == ("0000:02:00.0", "0000:03:00.0")
    assert [(link.devices, link.kind, round(link.bytes_per_s / 1e9, 1)) for link in machine.links] == [
        ((0,), "pcie", 31.5),
        ((1,), "pcie", 31.5),
    ]
    assert len(machine.warnings) == 1
    assert "CUDA1 (NVIDIA GeForce RTX 5090) is limited to 400 of 575 W" in machine.warnings[0]


def test_a_narrow_slot_is_said() -> None:
    machine = found(
        llama_server=recorded.TWO_3090, nvidia_smi=recorded.TWO_3090_SMI, nvidia_topo=recorded.TWO_3090_TOPOLOGY
    )
    assert any("CUDA1 (NVIDIA GeForce RTX 3090) is linked to the host at 2.0 GB/s" in said for said in machine.warnings)
    assert not any("CUDA0" in said and "linked" in said for said in machine.warnings)
    assert all(link.kind == "pcie" for link in machine.links)


def test_nvlink_is_found() -> None:
    machine = found(
        program=None,
        nvidia_smi=recorded.TWO_A100_SMI,
        nvidia_topo=recorded.TWO_A100_TOPOLOGY,
        nvidia_nvlink=recorded.TWO_A100_LINKS,
    )
    assert [(link.devices, link.bytes_per_s) for link in machine.links if link.kind == "nvlink"] == [((0, 1), 300e9)]
    assert machine.source == "their drivers"
    assert [device.card_class for device in machine.devices] == ["ampere", "ampere"]


def test_no_more_is_free_than_there_is() -> None:
    assert [shown(device) for device in found(llama_server=recorded.MORE_FREE_THAN_THERE_IS).devices] == [
        ("CUDA0", 32106, 32106)
    ]


def test_windows_pages_silently_and_shows_a_display() -> None:
    machine = found("Windows", llama_server=recorded.WINDOWS, nvidia_smi=recorded.WINDOWS_SMI)
    assert [shown(device) for device in machine.devices] == [("Vulkan0", 12084, 9529)]  # not the processor's graphics
    assert machine.devices[0].display_bytes == (12084 - 9529) * MIB
    assert any("without an error" in said for said in machine.warnings)
    assert any("shows a display, which has 2,555 MiB" in said for said in machine.warnings)


@pytest.mark.parametrize("system", ["Windows", "WSL"])
def test_windows_warns_whatever_its_driver_tells(system: str) -> None:
    assert any("Sysmem Fallback" in said for said in found(system, llama_server=recorded.TWO_5090).warnings)


def test_a_display_is_said_on_linux_too() -> None:
    machine = found(llama_server=recorded.RTX_2080_TI, nvidia_smi=recorded.RTX_2080_TI_SMI)
    assert [shown(device) for device in machine.devices] == [("CUDA0", 10817, 10650)]
    assert machine.devices[0].card_class == "turing"
    assert len(machine.warnings) == 1


def test_unlike_cards_keep_their_own_figures() -> None:
    machine = found(llama_server=recorded.UNLIKE)
    assert [(device.card_class, device.bandwidth_bytes_per_s) for device in machine.devices] == [
        ("ada", 736e9),
        ("ampere", 768e9),
    ]


def test_a_gb10_has_the_host_s_memory() -> None:
    machine = found(llama_server=recorded.GB10, nvidia_smi=recorded.GB10_SMI, host=100 << 30)
    (device,) = machine.devices
    assert (device.card_class, device.is_unified, device.bandwidth_bytes_per_s) == ("gb10", True, 273e9)
    assert device.free_bytes == 100 << 30  # what the host has left, which is less than the engine was told
    assert machine.links == ()  # PCIe 1.0 x1 is what its driver says for want of another word
    assert machine.is_unified


def test_a_gb10_without_an_engine_has_what_the_host_has() -> None:
    (device,) = found(program=None, nvidia_smi=recorded.GB10_SMI, host=100 << 30).devices
    assert (device.free_bytes, device.is_unified) == (100 << 30, True)


def test_strix_halo() -> None:
    (device,) = found(llama_server=recorded.STRIX_HALO, host=120 << 30).devices
    assert (device.card_class, device.is_unified, device.backend) == ("strix-halo", True, "rocm")
    assert device.free_bytes == 120 << 30


def test_apple_s_gpu_may_use_what_metal_lets_it() -> None:
    (device,) = found("Darwin", llama_server=recorded.M4_MAX, host=110 << 30).devices
    assert shown(device) == ("Metal", 98304, 98303)
    assert (device.card_class, device.is_unified, device.backend) == ("apple", True, "metal")


def test_apple_s_owner_may_let_it_use_more() -> None:
    (device,) = found("Darwin", program=None, sysctl=recorded.M1_ULTRA_SYSCTL, host=120 << 30).devices
    assert (device.name, device.memory_bytes, device.bandwidth_bytes_per_s) == ("Apple M1 Ultra", 112640 * MIB, 800e9)
    unset = recorded.M1_ULTRA_SYSCTL.replace("112640", "0")
    (device,) = found("Darwin", program=None, sysctl=unset, host=120 << 30).devices
    assert device.memory_bytes == 96 << 30


def test_amd_s_cards_without_an_engine() -> None:
    (device,) = found(program=None, rocm_smi=recorded.RX_7900_XT_ROCM).devices
    assert (device.name, device.card_class, device.backend) == ("Radeon RX 7900 XT", "rdna3", "rocm")
    assert device.memory_bytes - device.free_bytes == 27856896


@pytest.mark.parametrize("wrapped", ["{}", '{{"gpu_data": {}}}'])
def test_amd_s_newer_tool_is_read_too(wrapped: str) -> None:
    text = wrapped.format(recorded.MI350X_AMD_SMI.strip())
    (device,) = found(program=None, amd_smi=text).devices
    assert (device.name, device.card_class, device.address) == ("AMD Instinct MI350X", "cdna", "0000:05:00.0")
    assert device.bandwidth_bytes_per_s == 8000e9


def test_one_card_of_two_backends_is_there_once() -> None:
    machine = found(llama_server=recorded.TWO_BACKENDS)
    assert [(device.engine_name, device.card_class) for device in machine.devices] == [
        ("CUDA0", "ada"),
        ("Vulkan0", "rdna3"),
    ]


def test_without_devices_there_is_the_host_alone() -> None:
    machine = found(llama_server=recorded.NO_DEVICES)
    assert (machine.devices, machine.host_memory_bytes, machine.source) == ((), HOST, "")


def test_programs_that_print_nonsense_are_passed_over() -> None:
    assert engine_devices("CUDA0: x (1 MiB)\n\x00") == []
    assert nvidia_cards("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.") == []
    assert rocm_cards("ERROR { not json") == []
    assert amd_smi_cards("ERROR [ not json") == amd_smi_cards("") == amd_smi_cards('{"gpu_data": 3}') == []
    assert nvlinks("GPU0 X NV4\n", "") == {}
    assert found(nvidia_smi="\x00,", rocm_smi="{", llama_server="?").devices == ()


def test_the_graphics_of_a_processor_are_told_by_rocm_too() -> None:
    cards = rocm_cards(recorded.RX_6800_AND_RAPHAEL_ROCM)
    assert [(card.name, card.processor) for card in cards] == [
        ("Navi 21 [Radeon RX 6800/6800 XT / 6900 XT]", "gfx1030"),
        ("Raphael", "gfx1036"),
    ]
    machine = found(program=None, rocm_smi=recorded.RX_6800_AND_RAPHAEL_ROCM)
    assert [device.card_class for device in machine.devices] == ["rdna2"]


def card_folder(drm: Path, name: str, address: str, **files: str) -> None:
    """As Linux's amdgpu driver lays it out: a card's folder is a link to its device on the bus."""
    device = drm.parent / "bus" / address
    (device / "hwmon" / "hwmon3").mkdir(parents=True)
    (drm / name).mkdir(parents=True)
    (drm / name / "device").symlink_to(device)
    for file, text in files.items():
        place = device / ("hwmon/hwmon3" if file.startswith("power1") else "") / file
        place.write_text(text + "\n")


def test_linux_tells_of_amd_s_cards_without_any_tool(tmp_path: Path) -> None:
    drm = tmp_path / "drm"
    card_folder(
        *(drm, "card0", "0000:03:00.0"),
        mem_info_vram_total=str(24560 * MIB),
        mem_info_vram_used=str(900 * MIB),
        mem_info_gtt_total=str(15 << 30),
        power1_cap="300000000",
        power1_cap_default="339000000",
        max_link_speed="16.0 GT/s PCIe",
        current_link_width="16",
    )
    (drm / "card0-DP-1").mkdir()
    (drm / "card0-DP-1" / "status").write_text("connected\n")
    (card,) = amd_cards(drm)
    assert (card.memory_bytes, card.free_bytes) == (24560 * MIB, 23660 * MIB)
    assert (card.power_limit_w, card.default_power_limit_w, card.has_display) == (300, 339, True)
    assert card.address == "0000:03:00.0"
    assert card.pcie_bytes_per_s == pytest.approx(31.5e9, rel=0.001)
    listed = "Available devices:\n  Vulkan0: AMD Radeon RX 7900 XTX (RADV NAVI31) (24560 MiB, 24300 MiB free)\n"
    machine = find_machine(SERVER, run=answering(llama_server=listed), drm=drm, system="Linux", host_memory_bytes=HOST)
    assert [shown(device) for device in machine.devices] == [("Vulkan0", 24560, 23660)]
    assert len(machine.warnings) == 2  # its power and its display


def test_linux_tells_of_graphics_that_may_use_the_host_s_memory(tmp_path: Path) -> None:
    drm = tmp_path / "drm"
    card_folder(
        *(drm, "card1", "0000:c4:00.0"),
        mem_info_vram_total=str(512 * MIB),
        mem_info_vram_used=str(100 * MIB),
        mem_info_gtt_total=str(126464 * MIB),
        mem_info_gtt_used=str(200 * MIB),
    )
    (card,) = amd_cards(drm)
    assert card.shares_host_memory
    assert (card.memory_bytes, card.free_bytes) == (126976 * MIB, 126676 * MIB)


def test_memory_that_the_firmware_sets_aside_is_not_the_host_s(tmp_path: Path) -> None:
    drm = tmp_path / "drm"
    card_folder(
        *(drm, "card1", "0000:c4:00.0"),
        mem_info_vram_total=str(98304 * MIB),
        mem_info_vram_used="0",
        mem_info_gtt_total=str(15500 * MIB),
    )
    listed = "Available devices:\n  Vulkan0: Radeon 8060S Graphics (RADV GFX1151) (98304 MiB, 98000 MiB free)\n"
    machine = find_machine(
        SERVER, run=answering(llama_server=listed), drm=drm, system="Linux", host_memory_bytes=20 << 30
    )
    assert [(device.is_unified, device.free_bytes // MIB) for device in machine.devices] == [(False, 98000)]
