"""What programs printed on real machines, as people posted it. Where only figures were posted, they stand in the
program's documented form. Each has its source."""

from collections.abc import Callable, Sequence

SERVER = "llama-server"


def answering(**texts: str) -> Callable[[Sequence[str]], str]:
    """Runs nothing: answers with the text of the program, and of ``nvidia-smi`` by its first argument."""

    def run(command: Sequence[str]) -> str:
        name = command[0].rsplit("/", 1)[-1].replace("-", "_")
        if name == "nvidia_smi" and command[1] in ("topo", "nvlink"):
            name = f"nvidia_{command[1]}"
        return texts.get(name, "")

    return run


# ggml-org/llama.cpp #22319: a workstation card, a 4090 with its memory doubled, and a usual one.
PRO_6000_AND_TWO_4090 = """\
Available devices:
  CUDA0: NVIDIA RTX PRO 6000 Blackwell Workstation Edition (97886 MiB, 97250 MiB free)
  CUDA1: NVIDIA GeForce RTX 4090 (49139 MiB, 48600 MiB free)
  CUDA2: NVIDIA GeForce RTX 4090 (24563 MiB, 24100 MiB free)
"""

# ggml-org/llama.cpp #23676: 33,670,758,400 and 33,661,911,040 bytes, 33,124,450,304 and 33,040,105,472 free.
TWO_5090 = """\
Available devices:
  CUDA0: NVIDIA GeForce RTX 5090 (32110 MiB, 31589 MiB free)
  CUDA1: NVIDIA GeForce RTX 5090 (32102 MiB, 31509 MiB free)
"""
TWO_5090_SMI = """\
NVIDIA GeForce RTX 5090, 00000000:02:00.0, 32607, 32100, 575.00, 575.00, 5, 8, Disabled, [N/A], 12.0
NVIDIA GeForce RTX 5090, 00000000:03:00.0, 32607, 32020, 400.00, 575.00, 5, 8, Disabled, [N/A], 12.0
"""

# ggml-org/llama.cpp #17536: a build that told of more free memory than there is.
MORE_FREE_THAN_THERE_IS = """\
Available devices:
  CUDA0: NVIDIA GeForce RTX 5090 (32106 MiB, 55372 MiB free)
"""

# noonghunna/club-3090 #178: two 3090s on an old board, set to 280 of 350 W; #1229: topology.
TWO_3090 = """\
Available devices:
  CUDA0: NVIDIA GeForce RTX 3090 (24126 MiB, 23306 MiB free)
  CUDA1: NVIDIA GeForce RTX 3090 (24126 MiB, 23306 MiB free)
"""
TWO_3090_SMI = """\
NVIDIA GeForce RTX 3090, 00000000:09:00.0, 24576, 24238, 280.00, 350.00, 3, 16, Disabled, [N/A], 8.6
NVIDIA GeForce RTX 3090, 00000000:41:00.0, 24576, 24238, 280.00, 350.00, 2, 4, Disabled, [N/A], 8.6
"""
TWO_3090_TOPOLOGY = """\
\x1b[4mGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m
GPU0\t X \tSYS\t0-7,16-23\t\tN/A\t\tN/A
GPU1\tSYS\t X \t8-15,24-31\t1\t\tN/A

Legend:

  X    = Self
  NV#  = Connection traversing a bonded set of # NVLinks
"""

# NVIDIA/nccl #1505: an A100 node; here two of its eight cards. Links of 25 GB/s a direction: the A100's data sheet.
TWO_A100_SMI = """\
NVIDIA A100-SXM4-40GB, 00000000:07:00.0, 40960, 40400, 400.00, 400.00, 4, 16, Disabled, [N/A], 8.0
NVIDIA A100-SXM4-40GB, 00000000:0F:00.0, 40960, 40400, 400.00, 400.00, 4, 16, Disabled, [N/A], 8.0
"""
TWO_A100_TOPOLOGY = """\
        GPU0    GPU1    NIC0    NIC1    CPU Affinity    NUMA Affinity   GPU NUMA ID
GPU0     X      NV12    PXB     PXB     48-63,176-191   3               N/A
GPU1    NV12     X      PXB     PXB     48-63,176-191   3               N/A
"""
TWO_A100_LINKS = "GPU 0: NVIDIA A100-SXM4-40GB\n" + "".join(f"\t Link {link}: 25 GB/s\n" for link in range(12))

# LostRuins/koboldcpp #1609: unlike cards.
UNLIKE = """\
Available devices:
  CUDA0: NVIDIA GeForce RTX 4080 SUPER (16375 MiB, 13599 MiB free)
  CUDA1: NVIDIA RTX A6000 (48669 MiB, 48259 MiB free)
"""

# HilbertraumAI/HilbertRaum #318: Windows, Vulkan; free is a budget there, and nvidia-smi told of 9,529 MiB.
WINDOWS = """\
Available devices:
  Vulkan0: NVIDIA GeForce RTX 3080 Ti (12084 MiB, 11316 MiB free)
  Vulkan1: Intel(R) UHD Graphics 770 (32606 MiB, 48060 MiB free)
"""
WINDOWS_SMI = """\
NVIDIA GeForce RTX 3080 Ti, 00000000:01:00.0, 12288, 9529, 350.00, 350.00, 4, 16, Enabled, WDDM, 8.6
"""

# ggml-org/llama.cpp #21801: Strix Halo whose graphics may use nearly all memory.
STRIX_HALO = """\
Available devices:
  ROCm0: Radeon 8060S Graphics (126976 MiB, 126500 MiB free)
"""

# mostlygeek/llama-swap #782, leptonai/gpud #1170: a DGX Spark of 128,501,256,192 bytes, whose memory no tool tells.
GB10 = """\
Available devices:
  CUDA0: NVIDIA GB10 (122548 MiB, 118000 MiB free)
"""
GB10_SMI = "NVIDIA GB10, 0000000F:01:00.0, [N/A], [N/A], [N/A], [N/A], 1, 1, Disabled, [N/A], 12.1\n"

# ardanlabs/kronk #10: an M4 Max with 128 GB.
M4_MAX = """\
ggml_metal_device_init: GPU name:   Apple M4 Max
ggml_metal_device_init: recommendedMaxWorkingSetSize  = 103079.22 MB
Available devices:
  Metal: Apple M4 Max (98304 MiB, 98303 MiB free)
  BLAS: Accelerate (0 MiB, 0 MiB free)
"""
# antirez/ds4 #706: an M1 Ultra with 128 GB whose owner lets the GPU use 112,640 MB.
M1_ULTRA_SYSCTL = """\
machdep.cpu.brand_string: Apple M1 Ultra
hw.memsize: 137438953472
iogpu.wired_limit_mb: 112640
"""

# marimo-team/marimo #9237.
RX_7900_XT_ROCM = """\
{"card0": {"GPU use (%)": "0", "VRAM Total Memory (B)": "21458059264", "VRAM Total Used Memory (B)": "27856896",
 "Card Series": "Radeon RX 7900 XT", "Card Model": "0x744c", "GFX Version": "gfx1100", "GUID": "26967"}}
"""
# mudler/LocalAI #7761: a card, and the graphics of the processor beside it.
RX_6800_AND_RAPHAEL_ROCM = """\
WARNING: AMD GPU device(s) is/are in a low-power state. Check power control/runtime_status
{"card0": {"VRAM Total Memory (B)": "17163091968", "VRAM Total Used Memory (B)": "692142080",
 "Card Series": "Navi 21 [Radeon RX 6800/6800 XT / 6900 XT]", "GFX Version": "gfx1030"},
 "card1": {"VRAM Total Memory (B)": "67108864", "VRAM Total Used Memory (B)": "26079232",
 "Card Series": "Raphael", "GFX Version": "gfx1036"}, "system": {"Driver version": "6.8"}}
"""

# ROCm/rocm-systems #2987: fields of an MI350X, as the tool writes them in JSON; memory by its data sheet.
MI350X_AMD_SMI = """\
[{"gpu": 0, "asic": {"market_name": "AMD Instinct MI350X", "vendor_id": "0x1002", "num_compute_units": 128,
 "target_graphics_version": "gfx950"}, "bus": {"bdf": "0000:05:00.0", "max_pcie_width": 16,
 "max_pcie_speed": {"value": 32, "unit": "GT/s"}, "pcie_interface_version": "Gen 5", "slot_type": "OAM"},
 "vram": {"type": "HBM3E", "size": {"value": 294896, "unit": "MB"}}}]
"""

# ggml-org/llama.cpp #27428: a build with two backends lists one card twice.
TWO_BACKENDS = """\
Available devices:
  CUDA0: NVIDIA GeForce RTX 4090 Laptop GPU (16376 MiB, 15900 MiB free)
  Vulkan0: AMD Radeon RX 7900 XTX (RADV NAVI31) (24560 MiB, 24300 MiB free)
  Vulkan1: NVIDIA GeForce RTX 4090 Laptop GPU (16376 MiB, 15900 MiB free)
"""

# spiritbuun/buun-llama-cpp #59: the processor is listed, too.
RTX_2080_TI = """\
Available devices:
  CUDA0: NVIDIA GeForce RTX 2080 Ti (10817 MiB, 10650 MiB free)
"""
RTX_2080_TI_SMI = (
    "NVIDIA GeForce RTX 2080 Ti, 00000000:26:00.0, 11264, 10950, 250.00, 250.00, 3, 16, Enabled, [N/A], 7.5\n"
)
NO_DEVICES = "Available devices:\n  (none)\n"
