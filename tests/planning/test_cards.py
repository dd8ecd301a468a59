import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.planning.cards import CARDS, amd_class, card_meant, card_of, nearest_names, nvidia_class


@pytest.mark.parametrize(
    ("name", "card", "gb_per_s"),
    [
        # As drivers and engines have them: ggml-org/llama.cpp #22319, #17536, #8964, #21801; rossumai/nvgpu #37.
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX PRO 6000", 1792),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "RTX PRO 6000 Max-Q", 1792),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000 Server", 1597),
        ("NVIDIA GeForce RTX 5090", "RTX 5090", 1792),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "RTX 4090 Laptop", 576),
        ("NVIDIA GeForce RTX 4080 SUPER", "RTX 4080 SUPER", 736),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada", 960),
        ("NVIDIA RTX A6000", "RTX A6000", 768),
        ("Quadro RTX 6000", "Quadro RTX 6000", 672),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM4 80GB", 2039),
        ("NVIDIA A100-PCIE-40GB", "A100", 1555),
        ("NVIDIA H100 80GB HBM3", "H100", 3350),
        ("NVIDIA H100 PCIe", "H100 PCIe", 2000),
        ("NVIDIA H200", "H200", 4800),
        ("Tesla V100-SXM2-32GB", "V100", 900),
        ("NVIDIA GB10", "GB10", 273),
        ("AMD Radeon RX 7900 XTX (RADV NAVI31)", "RX 7900 XTX", 960),
        ("Radeon RX 7900 XT", "RX 7900 XT", 800),
        ("Radeon 8060S Graphics (RADV GFX1151) (radv)", "8060S", 256),
        ("Apple M3 Ultra", "M3 Ultra", 819),
    ],
)
def test_cards_are_known_by_the_names_that_drivers_give(name: str, card: str, gb_per_s: float) -> None:
    found = card_of(name)
    assert found is not None
    assert (found.name, found.bandwidth_gb_per_s) == (card, gb_per_s)


@pytest.mark.parametrize("name", ["Intel(R) UHD Graphics 770", "NVIDIA GeForce RTX 9090", "", "llvmpipe (LLVM 20.1.2)"])
def test_what_is_not_in_the_table_is_not_guessed(name: str) -> None:
    assert card_of(name) is None


def test_a_laptop_s_chip_is_no_desktop_s_card() -> None:
    assert card_of("NVIDIA GeForce RTX 5060 Laptop GPU") is None  # not in the table, and not an RTX 5060


@pytest.mark.parametrize(
    ("name", "card"),
    [("3090", "RTX 3090"), ("pro 6000", "RTX PRO 6000"), ("RTX4070TiSuper", "RTX 4070 Ti SUPER"), ("M4 Max", "M4 Max")],
)
def test_people_may_leave_out_what_tells_a_card_from_no_other(name: str, card: str) -> None:
    meant = card_meant(name)
    assert meant is not None
    assert meant.name == card


def test_each_card_is_found_by_its_own_name() -> None:
    for card in CARDS:
        assert card_of(card.name) == card, card.name


def test_unknown_names_have_near_ones() -> None:
    assert "RTX 5090" in nearest_names("RTX 9090")
    assert nearest_names("RX 7900 XTXX")[0] == "RX 7900 XTX"
    assert nearest_names("banana") == []


@given(st.text(max_size=40))
def test_any_name_is_looked_up(name: str) -> None:
    card_meant(name)
    nearest_names(name)


def test_classes_follow_from_what_drivers_tell() -> None:
    told = (12.0, 12.1, 10.0, 9.0, 8.9, 8.6, 7.5, 7.0, 6.1, 5.2)
    assert [nvidia_class(number) for number in told] == [
        *("blackwell", "gb10", "blackwell", "hopper", "ada", "ampere", "turing", "volta", "pascal", "unknown")
    ]
    told_by_rocm = ("gfx1151", "gfx1201", "gfx1100", "gfx1030", "gfx942", "other")
    assert [amd_class(name) for name in told_by_rocm] == ["strix-halo", "rdna4", "rdna3", "rdna2", "cdna", "unknown"]
