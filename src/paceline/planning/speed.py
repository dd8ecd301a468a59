"""How fast a plan decodes and reads prompts, as far as public measurements tell, and what verifying drafts costs.

Nothing here is a promise: each answer says how it came about and within what it was right, and where no measurement
supports a figure, none is given. ``python -m benchmarks.planning.speed`` compares all of it with the public cases.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from paceline.planning.cards import card_of
from paceline.planning.devices import CardClass, Device, Machine

Split = Literal["none", "layer", "tensor"]

SPARSE_ATTENTION = frozenset(
    {"deepseek32", "deepseek4", "glm-dsa", "glm5-next", "hy-v4", "minimax-m3", "qwen4exp", "kimi-k3"}
)
"""Architectures of llama.cpp whose kernels, not their bytes, set the pace: DeepSeek-V4-Flash reaches 0.07 to 0.19 of
what bandwidth allows on six of seven public machines."""
SHARE_LOW, SHARE, SHARE_HIGH = 0.50, 0.68, 0.80
"""Of bandwidth over bytes that decoding reaches, one stream: 35 public cases of dense models on 18 kinds of cards had
0.48 to 0.83, 29 of them between these two."""
APPLE_LOW, APPLE, APPLE_HIGH = 0.28, 0.52, 0.62
"""The same on Metal, by quantization: 0.54 to 0.60 of four files, 0.41 of a Q3_K_M and 0.29 of a Q4_K_XL."""
PAIR_LOW, PAIR, PAIR_HIGH = 0.50, 0.68, 0.75
"""The same of two cards that split tensors, over the sum of their bandwidths: 0.69 and 0.70 (two 5060 Ti), and 0.50 of
twice the slower one's (5080 and 3090)."""
MANY_LOW, MANY, MANY_HIGH = 0.30, 0.36, 0.50
"""Of three and more: 0.36, the one public case (three 3090)."""
CACHE_SHARE: Mapping[str, float] = {"f16": 0.37, "bf16": 0.37, "f32": 0.37}
"""Of bandwidth at which a cache is read at each step, by its type: a V100 at 31,000 tokens."""
QUANTIZED_CACHE_SHARE = 0.18
"""Of a quantized one on CUDA, two 5060 Ti from 4,000 to 130,000 tokens: a plain step takes the slower of two kernels,
a verification step of more than two tokens the faster one. So drafts gain more the longer the context is."""
EFFECTIVE_TFLOPS: Mapping[str, tuple[float, str]] = {
    "RTX 3080": (61, "1,132 tokens/s of a 27B (sudoingX/qwen38-mtp), 3,807 of an 8B (dmatora/LLM-inference-... #12)"),
    "RTX 3090": (58, "3,655 tokens/s of an 8B at 512 a batch (ggml-org/llama.cpp #7676)"),
    "RTX 4090": (166, "10,359 tokens/s of an 8B at 512 a batch (ggml-org/llama.cpp #7676)"),
    "RTX 5060 Ti": (50, "927 tokens/s of a 27B (sudoingX/qwen38-mtp)"),
    "V100": (36, "a prompt of 30,906 tokens of a 27B in 52.5 s (sudoingX/qwen38-mtp)"),
    "P40": (13, "831 tokens/s of an 8B (ggml-org/llama.cpp #7716)"),
    "MI50": (17, "1,083 tokens/s of an 8B (ggml-org/llama.cpp #27841)"),
    "RX 6800": (11, "700 tokens/s of an 8B (ggml-org/llama.cpp #8416)"),
    "RTX 2080 Ti": (28, "4,418 tokens/s of a 3B, Vulkan (geerlingguy/ai-benchmarks #46)"),
    "M1 Max": (8.0, "500 tokens/s of an 8B (brand-o/normiebench #40)"),
    "M1 Ultra": (13.8, "2,143 tokens/s of a 3B (geerlingguy/ai-benchmarks #48)"),
    "M2 Ultra": (15.7, "1,164 tokens/s of a 7B (ggml-org/llama.cpp #3084)"),
    "M4": (3.6, "225 tokens/s of an 8B (brand-o/normiebench #3)"),
    "Strix Halo": (16, "some 300 tokens/s of a 27B in Q8_0 (kyuz0/amd-strix-halo-toolboxes #111)"),
    "8060S": (16, "some 300 tokens/s of a 27B in Q8_0 (kyuz0/amd-strix-halo-toolboxes #111)"),
    "Ryzen AI Max+ 395": (16, "some 300 tokens/s of a 27B in Q8_0 (kyuz0/amd-strix-halo-toolboxes #111)"),
    "RX 7900 GRE": (28, "461 tokens/s over 20,265 tokens of a 27B (sudoingX/qwen38-mtp)"),
}
"""By card: operations per second while prompts are read, two per weight and token, and where that comes from."""
TENSOR_PREFILL_GAIN = 1.11
"""Two cards that split tensors, over one: 1,028 and 927 tokens/s (two 5060 Ti)."""
LAYER_PREFILL_GAIN, PIPELINED_TOKENS = 0.6, 2_048
"""What each further card that has layers of its own adds once a prompt is long enough for several batches to be under
way at once: 354 tokens/s over 20,000 tokens of a 27B where one P40 would read 219."""
ATTENTION_SHARE = 0.75
"""Of that rate while a prompt attends to what stands before it: an RTX 3090 at 32,768 tokens (#17505)."""
PREFILL_ERROR = 0.35
"""Set by hand: prompts that were filled with one repeated text were read up to twice as fast."""
VERIFY: Mapping[CardClass, tuple[float, str]] = {
    "blackwell": (0.08, "RTX 5090, PRO 6000, two 5060 Ti: 0.06 to 0.12"),
    "gb10": (0.08, "taken as Blackwell's; no public pair"),
    "hopper": (0.10, "taken as Ada's; no public pair"),
    "ada": (0.10, "RTX 4090: 0.08 to 0.1, one pair"),
    "ampere": (0.20, "RTX 3080, 3090, 3090 Ti, a CMP 170HX: 0.13 to 0.31; 0.1 for models without recurrent layers"),
    "turing": (0.20, "taken as Ampere's; no public pair"),
    "volta": (0.36, "V100: 1 to 6 drafted tokens"),
    "pascal": (0.19, "two P40, 4 drafted tokens"),
    "rdna2": (0.20, "unknown"),
    "rdna3": (0.05, "RX 7900 XTX, Vulkan: 0 to 0.06"),
    "rdna4": (0.08, "two RX 9070, Vulkan"),
    "cdna": (0.35, "MI50 at batches of 2, 4 and 8: 0.14, 0.55, 0.30 (ggml-org/llama.cpp #17505)"),
    "strix-halo": (0.08, "Radeon 8060S, Vulkan: 0.04 to 0.11"),
    "apple": (0.90, "M3 Ultra 0.65 to 0.97; an M4's batch of eight takes 6.5 steps (0.79)"),
    "unknown": (0.20, "the middle of all classes"),
}
"""What a drafted token adds to a verification step, in plain steps, beside the drafter's own work; and where it comes
from: Qwen3.8-27B's MTP layers in llama.cpp, one stream, tokens a step over speed-up (sudoingX/qwen38-mtp)."""
POWER_SLOPES: Mapping[CardClass, float] = {"blackwell": 2.4}
"""How much more verifying costs for each part of its power that a card is denied: an RTX 5090 at 400 of 600 W has 0.16
instead of 0.09. An RTX 3090 at 250 of 350 W has no more than others; of other classes nothing is public."""
USUAL_DRAFT_SHARE = 0.08
"""Of a plain step's bytes that an MTP layer and the head read for each drafted token: 0.083 of a 27B in Q4_K_M, 0.064
in Q6_K, 0.066 in Q8_0."""
USUAL_EXPERT_SHARE = 0.5
"""Of the bytes of a plain step that are experts' where nobody says: 0.49 (GLM-4.5-Air), 0.54 (gpt-oss-120b)."""
BELIEVED_AT = 2
"""Drafted tokens at which the believed cost of one is taken: short drafts decide what is tried first."""
FIRST_LENGTHS: Mapping[CardClass, int] = {
    "blackwell": 4, "gb10": 3, "hopper": 3, "ada": 3, "ampere": 2, "turing": 2, "volta": 2, "pascal": 4, "rdna2": 2,
    "rdna3": 3, "rdna4": 4, "cdna": 2, "strix-halo": 3, "apple": 1, "unknown": 2,
}  # fmt: skip
"""Drafted tokens at first by class: the best of the public sweeps of MTP; Hopper's, GB10's, Turing's and RDNA2's are
taken from their neighbours."""
EXPERTS_FIRST_LENGTH = 2
"""The same at most for mixtures of experts, whose further tokens bring experts of their own."""


class Predicted(Struct, frozen=True):
    """A figure with the range that it is believed to be in."""

    low: float
    middle: float
    high: float
    how: str
    """How it came about, in a sentence."""


class NotPredicted(Struct, frozen=True):
    why: str
    """In a sentence."""


class Step(Struct, frozen=True, kw_only=True):
    """What a plain decoding step of one stream reads.

    Args:
        weight_bytes: of each device of the plan, in the machine's order: of a mixture of experts, what one token uses.
        host_bytes: of weights in the host's memory.
        cache_bytes: of each device, at the context that is asked about.
        cache_type: as llama.cpp has it: ``f16``, ``q8_0``.
        has_experts: it is a mixture of experts.
    """

    weight_bytes: tuple[int, ...]
    host_bytes: int = 0
    cache_bytes: tuple[int, ...] = ()
    cache_type: str = "f16"
    architecture: str = ""
    has_experts: bool = False


class Experts(Struct, frozen=True):
    """Of a mixture of experts.

    Args:
        total, used: experts of a layer, and of those one token uses.
        share: of the bytes of a plain step that are experts'.
    """

    total: int
    used: int
    share: float = USUAL_EXPERT_SHARE


def decode_speed(step: Step, machine: Machine, split: Split = "layer") -> Predicted | NotPredicted:
    """Tokens per second of one stream that drafts nothing: what a step reads, over the bandwidth that is reached."""
    if step.architecture in SPARSE_ATTENTION:
        return NotPredicted(
            f"not predicted for {step.architecture}: its kernels, not its bytes, set the pace (DeepSeek-V4-Flash "
            "reached 0.07 to 0.44 of what bandwidth allows on seven public machines)"
        )
    if step.has_experts:
        return NotPredicted(
            "not predicted for mixtures of experts: public cases reached 0.2 to 0.6 of what bandwidth allows"
        )
    if step.host_bytes:
        return NotPredicted("not predicted while weights are in the host's memory, whose bandwidth nobody tells")
    devices = [(device, read) for device, read in zip(machine.devices, step.weight_bytes, strict=True) if read]
    if any(device.bandwidth_bytes_per_s is None for device, _ in devices) or not devices:
        return NotPredicted("not predicted: the bandwidth of a device is not known")
    low, middle, high, how = _share(split, [device for device, _ in devices])
    seconds = _seconds(split, devices)
    cache = _cache_seconds(step, machine, split)
    total = sum(step.weight_bytes) / 1e9
    said = f"{total:.1f} GB a step over {_bandwidth(split, devices) / 1e9:,.0f} GB/s, {how}"
    if cache:
        said += (
            f"; {sum(step.cache_bytes) / 1e9:.1f} GB of {step.cache_type} cache add {cache * 1e3:.1f} ms "
            "(two public cases)"
        )
    return Predicted(
        low=1 / (seconds / low + 1.5 * cache),
        middle=1 / (seconds / middle + cache),
        high=1 / (seconds / high + 0.5 * cache),
        how=said,
    )


def prefill_seconds(
    tokens: int, parameters: float, attention_width: float, machine: Machine, split: Split = "layer"
) -> Predicted | NotPredicted:
    """Seconds until the first token of a prompt of which nothing is cached.

    Args:
        parameters: that each token is multiplied with; of a mixture of experts, those it uses.
        attention_width: heads times their width, summed up over the layers that attend to all tokens: each token does
            four operations for each of them and each token before it.
    """
    names = {device.name: _tflops(device) for device in machine.devices}
    known = [rate for rate in names.values() if rate]
    if not known or len(known) < len(names):
        return NotPredicted("the first token is not predicted: no public figure for how fast this card reads prompts")
    slowest, source = min(known)
    rate = slowest * 1e12 * _prefill_gain(tokens, len(machine.devices), split)
    attention = 4 * attention_width * tokens / 2 / ATTENTION_SHARE
    seconds = tokens * (2 * parameters + attention) / rate
    return Predicted(
        low=seconds * (1 - PREFILL_ERROR),
        middle=seconds,
        high=seconds * (1 + PREFILL_ERROR),
        how=f"at {rate / 1e12:.0f}·10¹² operations/s, from {source}; ±{PREFILL_ERROR:.0%} is an assumption",
    )


def verify_cost(
    drafted: int,
    card_class: CardClass,
    *,
    draft_share: float = USUAL_DRAFT_SHARE,
    experts: Experts | None = None,
    power: float = 1.0,
) -> float:
    """What a step that drafts and verifies so many tokens takes, in plain steps: r(n) = 1 + n (d + v) + e(n).

    Args:
        drafted: 0 is a plain step.
        draft_share: d, what the drafter reads for a token over what a plain step reads.
        experts: of a mixture of experts, for e(n): further tokens bring experts of their own.
        power: the card's limit over its usual one.
    """
    verifying = VERIFY[card_class][0] * (1 + POWER_SLOPES.get(card_class, 0.0) * max(0.0, 1 - power))
    return 1 + drafted * (draft_share + verifying) + (experts_cost(drafted, experts) if experts else 0.0)


def experts_cost(drafted: int, experts: Experts) -> float:
    """What the experts of further tokens add, in plain steps, where tokens choose theirs independently."""
    return experts.share * (experts_read(1 + drafted, experts) - 1)


def experts_read(tokens: int, experts: Experts) -> float:
    """Experts that so many tokens use, over those that one does."""
    missed = (1 - experts.used / experts.total) ** tokens
    return experts.total * (1 - missed) / experts.used


def cost_per_drafted_token(machine: Machine, experts: Experts | None = None) -> float:
    """What the decision is to believe that each drafted token adds to a step on a machine, in plain steps, until it has
    measured it: the mean over short drafts of :func:`verify_cost`."""
    cost = verify_cost(BELIEVED_AT, class_of(machine), experts=experts, power=power_of(machine))
    return round((cost - 1) / BELIEVED_AT, 2)


def first_length(card_class: CardClass, *, has_experts: bool = False) -> int:
    """How many tokens a draft has at first, until something was measured."""
    length = FIRST_LENGTHS[card_class]
    return min(length, EXPERTS_FIRST_LENGTH) if has_experts else length


def class_of(machine: Machine) -> CardClass:
    """Of the device that makes verifying dearest: all wait for it."""
    classes = {device.card_class for device in machine.devices}
    return max(classes, key=lambda card: (VERIFY[card][0], card), default="unknown")


def power_of(machine: Machine) -> float:
    """The least power limit over its default among the devices; 1 where no driver tells."""
    shares = [
        device.power_limit_w / device.default_power_limit_w
        for device in machine.devices
        if device.power_limit_w and device.default_power_limit_w
    ]
    return min([1.0, *shares])


def _prefill_gain(tokens: int, devices: int, split: Split) -> float:
    if devices < 2 or split == "none":
        return 1.0
    if split == "tensor":
        return TENSOR_PREFILL_GAIN
    return 1 + LAYER_PREFILL_GAIN * (devices - 1) if tokens > PIPELINED_TOKENS else 1.0


def _share(split: Split, devices: Sequence[Device]) -> tuple[float, float, float, str]:
    if split != "tensor" or len(devices) == 1:
        if all(device.card_class == "apple" for device in devices):
            return APPLE_LOW, APPLE, APPLE_HIGH, "of which 0.28 to 0.62 are reached on Metal (six public cases)"
        return SHARE_LOW, SHARE, SHARE_HIGH, "of which 0.50 to 0.80 are reached (29 of 35 public cases)"
    if len(devices) == 2:
        return PAIR_LOW, PAIR, PAIR_HIGH, "of which two cards reached 0.50 to 0.70 (three public cases)"
    return MANY_LOW, MANY, MANY_HIGH, "of which more than two cards reached 0.36 (one public case)"


def _seconds(split: Split, devices: Sequence[tuple[Device, int]]) -> float:
    """If all bandwidth were reached: layers one after another, tensors at once, as slow as the slowest."""
    times = [read / (device.bandwidth_bytes_per_s or 1) for device, read in devices]
    return max(times) if split == "tensor" else sum(times)


def _bandwidth(split: Split, devices: Sequence[tuple[Device, int]]) -> float:
    return sum(read for _, read in devices) / _seconds(split, devices)


def _cache_seconds(step: Step, machine: Machine, split: Split) -> float:
    share = CACHE_SHARE.get(step.cache_type, QUANTIZED_CACHE_SHARE)
    devices = [
        (device, read)
        for device, read in zip(machine.devices, step.cache_bytes, strict=False)
        if read and device.bandwidth_bytes_per_s
    ]
    return _seconds(split, devices) / share if devices else 0.0


def _tflops(device: Device) -> tuple[float, str] | None:
    card = card_of(device.name)
    return EFFECTIVE_TFLOPS.get(card.name) if card else None
