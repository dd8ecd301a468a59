"""Cards by name: how much memory they have, how fast it is, and of which design they are.

Bandwidths are the makers' own, in gigabytes (10⁹) per second, from the data sheets and product pages at nvidia.com,
amd.com, intel.com and apple.com; where a maker gives a bus and a data rate, it is their product. Cards whose makers
name no figure are not in the table.
"""

import re
from difflib import get_close_matches
from functools import cache

from msgspec import Struct

from paceline.planning.devices import Backend, CardClass


class Card(Struct, frozen=True):
    """A card as it is sold.

    Args:
        memory_gib: sizes it is sold with; empty where its memory is the host's.
        bandwidth_gb_per_s: 10⁹ bytes per second.
    """

    name: str
    card_class: CardClass
    memory_gib: tuple[int, ...]
    bandwidth_gb_per_s: float

    @property
    def is_unified(self) -> bool:
        return self.card_class in UNIFIED_CLASSES or self.name.startswith("Jetson")

    @property
    def backend(self) -> Backend:
        """What engines usually compute with on it."""
        if self.card_class == "apple":
            return "metal"
        if self.card_class in {"rdna2", "rdna3", "rdna4", "cdna", "strix-halo"}:
            return "rocm"
        return "sycl" if self.name.startswith("Arc") else "cuda"


UNIFIED_CLASSES = frozenset({"apple", "gb10", "strix-halo"})
APPLE_SIZES = (8, 16, 18, 24, 32, 36, 48, 64, 96, 128, 192, 256, 512)

# fmt: off
_TABLE: dict[CardClass, tuple[tuple[str, tuple[int, ...], float], ...]] = {
    "blackwell": (
        ("RTX 5090", (32,), 1792), ("RTX 5090 Laptop", (24,), 896), ("RTX 5080", (16,), 960),
        ("RTX 5080 Laptop", (16,), 896), ("RTX 5070 Ti", (16,), 896), ("RTX 5070 Ti Laptop", (12,), 672),
        ("RTX 5070", (12,), 672), ("RTX 5070 Laptop", (8,), 384), ("RTX 5060 Ti", (8, 16), 448),
        ("RTX 5060", (8,), 448), ("RTX 5050", (8,), 320),
        ("RTX PRO 6000", (96,), 1792), ("RTX PRO 6000 Max-Q", (96,), 1792), ("RTX PRO 6000 Server", (96,), 1597),
        ("RTX PRO 5000", (48, 72), 1344), ("RTX PRO 4500", (32,), 896), ("RTX PRO 4000", (24,), 672),
        ("RTX PRO 2000", (16,), 288),
        ("B200", (180, 192), 8000), ("B300", (288,), 8000), ("Jetson Thor", (128,), 273),
    ),
    "gb10": (("GB10", (128,), 273), ("DGX Spark", (128,), 273)),
    "hopper": (
        ("H100", (80,), 3350), ("H100 PCIe", (80,), 2000), ("H100 NVL", (94,), 3900),
        ("H200", (141,), 4800), ("H200 NVL", (141,), 4800), ("GH200", (96, 144), 4000),
    ),
    "ada": (
        ("RTX 4090", (24,), 1008), ("RTX 4090 Laptop", (16,), 576), ("RTX 4080 SUPER", (16,), 736),
        ("RTX 4080", (16,), 717), ("RTX 4080 Laptop", (12,), 432), ("RTX 4070 Ti SUPER", (16,), 672),
        ("RTX 4070 Ti", (12,), 504), ("RTX 4070 SUPER", (12,), 504), ("RTX 4070", (12,), 504),
        ("RTX 4070 Laptop", (8,), 256), ("RTX 4060 Ti", (8, 16), 288), ("RTX 4060", (8,), 272),
        ("RTX 4060 Laptop", (8,), 256),
        ("RTX 6000 Ada", (48,), 960), ("RTX 5880 Ada", (48,), 960), ("RTX 5000 Ada", (32,), 576),
        ("RTX 4500 Ada", (24,), 432), ("RTX 4000 Ada", (20,), 360), ("RTX 2000 Ada", (16,), 224),
        ("L40S", (48,), 864), ("L40", (48,), 864), ("L4", (24,), 300),
    ),
    "ampere": (
        ("RTX 3090 Ti", (24,), 1008), ("RTX 3090", (24,), 936), ("RTX 3080 Ti", (12,), 912), ("RTX 3080", (10,), 760),
        ("RTX 3080 12GB", (12,), 912), ("RTX 3080 Laptop", (8, 16), 448), ("RTX 3070 Ti", (8,), 608),
        ("RTX 3070", (8,), 448), ("RTX 3060 Ti", (8,), 448), ("RTX 3060", (12,), 360), ("RTX 3060 Laptop", (6,), 336),
        ("RTX 3050", (8,), 224),
        ("RTX A6000", (48,), 768), ("RTX A5500", (24,), 768), ("RTX A5000", (24,), 768), ("RTX A4500", (20,), 640),
        ("RTX A4000", (16,), 448), ("RTX A2000", (6, 12), 288),
        ("A100", (40,), 1555), ("A100 80GB", (80,), 1935), ("A100 SXM4 80GB", (80,), 2039), ("A40", (48,), 696),
        ("A30", (24,), 933), ("A10", (24,), 600), ("A10G", (24,), 600), ("Jetson AGX Orin", (32, 64), 204.8),
    ),
    "turing": (
        ("RTX 2080 Ti", (11,), 616), ("RTX 2080 SUPER", (8,), 496), ("RTX 2080", (8,), 448),
        ("RTX 2070 SUPER", (8,), 448), ("RTX 2070", (8,), 448), ("RTX 2060 SUPER", (8,), 448),
        ("RTX 2060", (6, 12), 336), ("GTX 1660 Ti", (6,), 288), ("GTX 1660 SUPER", (6,), 336),
        ("TITAN RTX", (24,), 672),
        ("Quadro RTX 8000", (48,), 672), ("Quadro RTX 6000", (24,), 672), ("T4", (16,), 320),
    ),
    "volta": (("V100", (16, 32), 900), ("TITAN V", (12,), 653)),
    "pascal": (
        ("P40", (24,), 346), ("P100", (16,), 732), ("GTX 1080 Ti", (11,), 484), ("GTX 1080", (8,), 320),
        ("GTX 1070", (8,), 256), ("GTX 1060", (6,), 192),
    ),
    "rdna2": (
        ("RX 6950 XT", (16,), 576), ("RX 6900 XT", (16,), 512), ("RX 6800 XT", (16,), 512), ("RX 6800", (16,), 512),
        ("RX 6700 XT", (12,), 384), ("RX 6600 XT", (8,), 256), ("RX 6600", (8,), 224), ("PRO W6800", (32,), 512),
    ),
    "rdna3": (
        ("RX 7900 XTX", (24,), 960), ("RX 7900 XT", (20,), 800), ("RX 7900 GRE", (16,), 576),
        ("RX 7800 XT", (16,), 624), ("RX 7700 XT", (12,), 432), ("RX 7600 XT", (16,), 288), ("RX 7600", (8,), 288),
        ("PRO W7900", (48,), 864), ("PRO W7800", (32,), 576), ("PRO W7700", (16,), 576),
    ),
    "rdna4": (
        ("RX 9070 XT", (16,), 640), ("RX 9070", (16,), 640), ("RX 9070 GRE", (12,), 432), ("RX 9060 XT", (8, 16), 320),
        ("AI PRO R9700", (32,), 640),
    ),
    "cdna": (
        ("MI50", (16, 32), 1024), ("MI60", (32,), 1024), ("MI100", (32,), 1228.8), ("MI210", (64,), 1638.4),
        ("MI250X", (128,), 3276.8), ("MI300X", (192,), 5300), ("MI325X", (256,), 6000), ("MI350X", (288,), 8000),
        ("MI355X", (288,), 8000),
    ),
    "strix-halo": (
        ("Strix Halo", (32, 64, 96, 128), 256), ("8060S", (32, 64, 96, 128), 256), ("8050S", (32, 64, 96, 128), 256),
        ("Ryzen AI Max+ 395", (32, 64, 96, 128), 256),
    ),
    "apple": tuple((name, APPLE_SIZES, bandwidth) for name, bandwidth in (
        ("M1", 68.25), ("M1 Pro", 200), ("M1 Max", 400), ("M1 Ultra", 800),
        ("M2", 100), ("M2 Pro", 200), ("M2 Max", 400), ("M2 Ultra", 800),
        ("M3", 100), ("M3 Pro", 150), ("M3 Max", 400), ("M3 Ultra", 819),
        ("M4", 120), ("M4 Pro", 273), ("M4 Max", 546), ("M5", 153),
    )),
    "unknown": (
        ("Arc Pro B60", (24,), 456), ("Arc Pro B50", (16,), 224), ("Arc B580", (12,), 456), ("Arc B570", (10,), 380),
        ("Arc A770", (8, 16), 560), ("Arc A750", (8,), 512),
    ),
}
# fmt: on
"""M3 Max and M4 Max with fewer cores have 300 and 410 GB/s; which one it is no name tells."""
CARDS = tuple(
    Card(name, card_class, memory, bandwidth) for card_class, rows in _TABLE.items() for name, memory, bandwidth in rows
)

PREFIXED = re.compile(r"\b(rtx|gtx|rx)(?=\d)")
SUFFIXED = re.compile(r"(?<=\d)(ti(?=super)|ti|super|xtx|xt|gre)")
IGNORED = frozenset({"nvidia", "geforce", "tesla", "amd", "radeon", "apple", "intel", "instinct", "graphics", "gpu"})
"""Words of names that tell no card from another."""
TELLING = frozenset({"laptop", "ti", "super", "xtx", "xt", "gre", "ada", "nvl", "pro", "max", "ultra"})
"""Words without which a name means another card: an ``RTX 4090 Laptop`` is no ``RTX 4090``."""
NEAR_NAMES = 3


def card_of(name: str) -> Card | None:
    """The card that a driver's or an engine's name means: ``NVIDIA RTX PRO 6000 Blackwell Workstation Edition``.
    ``None`` where no row of the table does."""
    words = _words(name)
    meant = [card for card in CARDS if _words(card.name) <= words and not _missed(words, card)]
    return max(meant, key=lambda card: len(_words(card.name)), default=None)


def card_meant(name: str) -> Card | None:
    """The card that a person means, who may leave out what tells it from no other: ``3090``, ``PRO 6000``."""
    if exact := card_of(name):
        return exact
    words = _words(name)
    close = sorted((len(_words(card.name)), card.name) for card in CARDS if words and words <= _words(card.name))
    return next((card for card in CARDS if close and card.name == close[0][1]), None)


def nearest_names(name: str) -> list[str]:
    """Names in the table that look like it, the most alike first."""
    by_words = {" ".join(sorted(_words(card.name))): card.name for card in reversed(CARDS)}
    shared = [card.name for card in CARDS if any(word in _words(card.name) for word in _words(name) if len(word) > 2)]
    near = [by_words[key] for key in get_close_matches(" ".join(sorted(_words(name))), by_words, NEAR_NAMES, 0.5)]
    return list(dict.fromkeys(near + shared))[:NEAR_NAMES]


NVIDIA_CLASSES: tuple[tuple[float, CardClass], ...] = (
    (10.0, "blackwell"), (9.0, "hopper"), (8.9, "ada"), (8.0, "ampere"), (7.5, "turing"), (7.0, "volta"),
    (6.0, "pascal"),
)  # fmt: skip
"""From which compute capability on: docs.nvidia.com, CUDA C++ Programming Guide."""
AMD_CLASSES: tuple[tuple[str, CardClass], ...] = (
    ("gfx1151", "strix-halo"), ("gfx12", "rdna4"), ("gfx11", "rdna3"), ("gfx103", "rdna2"), ("gfx9", "cdna"),
)  # fmt: skip
"""By the beginning of LLVM's name of the processor: llvm.org/docs/AMDGPUUsage.html."""


def nvidia_class(compute_capability: float) -> CardClass:
    if compute_capability == 12.1:
        return "gb10"
    return next((found for least, found in NVIDIA_CLASSES if compute_capability >= least), "unknown")


def amd_class(processor: str) -> CardClass:
    return next((found for beginning, found in AMD_CLASSES if processor.lower().startswith(beginning)), "unknown")


@cache
def _words(name: str) -> frozenset[str]:
    text = SUFFIXED.sub(r" \1 ", PREFIXED.sub(r"\1 ", name.lower()))
    text = re.sub(r"\b(\d+) ?g(i?b)?\b", r"\1gb", text)
    return frozenset(re.findall(r"[a-z0-9+]+", text.replace("max-q", "maxq"))) - IGNORED


def _missed(words: frozenset[str], card: Card) -> frozenset[str]:
    """Words of a name that say it is another card than this."""
    return (words & TELLING) - _words(card.name) - ({"max"} if "maxq" in words else frozenset())
