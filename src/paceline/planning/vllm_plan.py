"""What vLLM and SGLang need of a machine for a model, by their own accounting, and the commands that start them.

Both take most of each card's memory at their start and fill it with a cache; so a plan says whether the weights leave
room for a cache that holds the wished context. vLLM: 0.32, places in its source by file; SGLang: 0.5.23. What their
profiling measures at the start (activations, CUDA graphs) is a usual figure here, and their own ``auto`` has the last
word: vLLM fits the context itself with ``--max-model-len -1``.
"""

import json
from math import ceil
from pathlib import Path
from typing import Literal

from msgspec import Struct

from paceline.planning.devices import Device, Machine
from paceline.planning.model_folder import (
    DRAFTER_ARCHITECTURES,
    BadModelFolder,
    LayerKind,
    ModelFolder,
    read_config,
)
from paceline.planning.safetensors import BadTensors, read_tensors
from paceline.planning.speed import class_of, first_length

MIB, GIB = 1 << 20, 1 << 30
EngineKind = Literal["vllm", "sglang"]
VLLM_SHARE = 0.92
"""``--gpu-memory-utilization``'s default (vllm/config/cache.py)."""
VLLM_OTHER_BYTES = int(1.5 * GIB)
"""Activations of the profiling run, CUDA graphs and CUDA's own, on each card: usual for one card's micro-batches."""
VLLM_BLOCK_TOKENS = 16
VLLM_BATCH_TOKENS = ((160, 16_384), (70, 8_192), (0, 2_048))
"""``--max-num-batched-tokens`` of the server by GiB of a card (vllm/engine/arg_utils.py)."""
SGLANG_CHUNKS = ((160, 16_384), (60, 8_192), (35, 4_096), (0, 2_048))
"""``--chunked-prefill-size`` by GiB of a card (arg_groups/memory_hook.py), as the next three."""
SGLANG_GRAPH_REQUESTS = ((60, 256), (35, 32), (20, 24), (0, 8))
SGLANG_LARGE_GIB, SGLANG_LARGE_RESERVE = 60, 10_240 * MIB
SGLANG_DRAFTER_RESERVE = 4_096 * MIB
"""More is reserved with speculative decoding."""
CACHE_BYTES = {"auto": 2, "f16": 2, "q8_0": 1, "q4_0": 1}
"""A value of a cache, by the plan's word: of half precision, or FP8, which is the least that both have."""
FP8 = frozenset({"q8_0", "q4_0"})
STATE_BYTES, CONVOLUTION_BYTES = 4, 2
"""Of a value of a recurrent layer's state, and of its convolution's."""
PADDED_ALIKE = 1.5
"""Layers of two kinds are padded to the larger number where it is less than so many times the smaller one
(vllm/v1/core/kv_cache_utils.py, ``_get_kv_cache_groups_uniform_page_size``)."""
NGRAM_TOKENS, NGRAM_MATCH_MAX, NGRAM_MATCH_MIN = 6, 4, 2
"""Tokens drafted, and tokens that have to match before, of a lookup."""
MTP_MODEL_TYPES = frozenset({
    "bailing_hybrid", "deepseek_v3", "deepseek_v32", "deepseek_v4", "ernie4_5_moe", "exaone_moe", "glm4_moe",
    "glm4_moe_lite", "glm5_next", "glm_moe_dsa", "hy_v3", "hy_v4", "kimi_k3", "longcat_flash", "mimo", "mimo_v2",
    "minimax_m3", "nemotron_h", "pangu_ultra_moe", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text",
    "qwen3_next", "qwen4_exp", "step3p5",
})  # fmt: skip
"""Models whose layers for multi-token prediction vLLM knows (vllm/config/speculative.py)."""


class Wish(Struct, frozen=True, kw_only=True):
    """How a model is to be served.

    Args:
        context_tokens: of each request; 0 for as many as fit and the model was made for.
        draft: ``auto``, ``none``, or the folder of a drafter.
    """

    context_tokens: int = 0
    slots: int = 1
    cache: str = "auto"
    draft: str = "auto"


class CardNeed(Struct, frozen=True):
    """Of one card of the tensor-parallel group, in bytes."""

    weights: int
    drafter: int
    other: int
    budget: int
    """What the engine takes of the card in all."""

    @property
    def cache(self) -> int:
        """What is left for the cache; below 0 where the weights don't fit."""
        return self.budget - self.weights - self.drafter - self.other


class ParallelPlan(Struct, frozen=True, kw_only=True):
    """A plan for vLLM or SGLang.

    Args:
        cards: places in the machine's devices that are used.
        context_tokens: of each request; as wished, or the most that fit.
        capacity_tokens: of all requests together, at that context; ``None`` where the model's cache is not known.
        fits: ``None`` where that is left to the engine.
        command: starts the engine; ``{port}`` stands for a free port.
        notes: whole sentences: what was decided and why, and what is not known.
    """

    engine: EngineKind
    cards: tuple[int, ...]
    need: CardNeed
    context_tokens: int
    capacity_tokens: int | None
    fits: bool | None
    command: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def tensor_parallel(self) -> int:
        return len(self.cards)


class Drafting(Struct, frozen=True):
    """What drafts, and what that takes."""

    kind: Literal["mtp", "eagle3", "draft", "ngram", "none"]
    length: int = 0
    folder: Path | None = None
    whole_bytes: int = 0
    """Of its weights, over all cards."""
    layers: int = 0
    """Of its own, which keep a cache beside the model's."""


def plan_parallel(folder: ModelFolder, machine: Machine, wish: Wish, engine: EngineKind = "vllm") -> ParallelPlan:
    """
    Raises:
        BadModelFolder: the drafter that is named can't be used, or there is no card.
    """
    if not machine.devices:
        raise BadModelFolder(f"{engine} needs a GPU, and there is none")
    # 1. The cards: as many alike as the heads can be shared out over.
    cards, notes = _cards(folder, machine)
    drafting = drafting_of(folder, machine, wish)
    # 2. What they need, and what is left for the cache.
    need = _need(folder, [machine.devices[card] for card in cards], drafting, engine)
    wished = wish.context_tokens or folder.max_tokens
    if folder.max_tokens and wished > folder.max_tokens:
        notes.append(f"The model was made for {folder.max_tokens:,} tokens; {wished:,} would need another scaling.")
        wished = folder.max_tokens
    if folder.unknown:
        notes.append(f"Its cache is not planned ({folder.unknown}): the engine itself says whether the context fits.")
        fits: bool | None = None if need.cache > 0 else False
        context, capacity = wished, None
    else:
        batch = by_size(VLLM_BATCH_TOKENS, machine.devices[cards[0]])
        draft_tokens = drafting.length if drafting.kind != "none" else 0
        cache = CacheLayout(
            folder, len(cards), CACHE_BYTES[wish.cache], draft_tokens, batch, draft_layers=drafting.layers
        )
        largest = cache.largest_context(max(0, need.cache) // max(1, wish.slots))
        fits = need.cache > 0 and (largest >= wished if wished else largest > 0)
        context = wished if fits or not largest else min(largest, wished or largest)
        used = cache.request_bytes(context)
        capacity = int(max(0, need.cache) / used * context) if used and context else 0
    if fits is False:
        notes.append(_why_not(need, wished, context if need.cache > 0 else 0, machine, len(cards)))
    notes += _about(folder, drafting, wish, machine, cards)
    make = _vllm_command if engine == "vllm" else _sglang_command
    return ParallelPlan(
        engine=engine,
        cards=tuple(cards),
        need=need,
        context_tokens=context,
        capacity_tokens=capacity,
        fits=fits,
        command=make(folder, machine, cards, wish, drafting, context, need),
        notes=tuple(notes),
    )


def tensor_parallel_sizes(heads: int, cards: int) -> list[int]:
    """Numbers of cards that a model's attention heads can be shared out over (vllm/config/model.py), the largest
    first."""
    return [size for size in range(cards, 0, -1) if heads % size == 0]


def drafting_of(folder: ModelFolder, machine: Machine, wish: Wish) -> Drafting:
    """
    Raises:
        BadModelFolder: the drafter that is named can't be used.
    """
    if wish.draft == "none":
        return Drafting("none")
    length = first_length(class_of(machine), has_experts=folder.experts > 0)
    if wish.draft != "auto":
        path = Path(wish.draft)
        config = read_config(path)
        names = " ".join(str(name) for name in config.get("architectures") or [])
        try:
            size = sum(tensor.size_bytes for tensor in read_tensors(path))
        except BadTensors as error:
            raise BadModelFolder(str(error)) from error
        if DRAFTER_ARCHITECTURES.search(names):
            return Drafting("eagle3", length, path, size, 1)
        return Drafting("draft", length, path, size, int(config.get("num_hidden_layers") or 0))
    if folder.mtp_bytes and folder.model_type in MTP_MODEL_TYPES:
        return Drafting("mtp", length, None, folder.mtp_bytes, folder.mtp_layers)
    return Drafting("ngram", NGRAM_TOKENS)


class CacheLayout:
    """What requests take of the cache on one card (vllm/v1/core/kv_cache_utils.py): layers of a kind are put into
    groups of one length, and each group takes blocks of one size from a common pool. The same as vLLM's own functions
    say of five models (``python -m benchmarks.planning.vllm_cache``)."""

    def __init__(
        self,
        folder: ModelFolder,
        ranks: int,
        value_bytes: int,
        draft_tokens: int = 0,
        batch_tokens: int = 2_048,
        draft_layers: int = 0,
    ) -> None:
        self.folder, self.batch_tokens = folder, batch_tokens
        self.states = 1 + draft_tokens
        self.counts = {kind: folder.layers.count(kind) for kind in dict.fromkeys(folder.layers)}
        if draft_layers:  # they keep all of the text, in the model's own way
            kind: LayerKind = "latent" if folder.latent_width else "full"
            self.counts[kind] = self.counts.get(kind, 0) + draft_layers
        least, most = min(self.counts.values()), max(self.counts.values())
        self.group_layers = most if most < PADDED_ALIKE * least else least
        heads = max(1, folder.kv_heads // ranks)  # fewer heads than cards: each has a copy
        per_token = 2 * heads * folder.head_size * value_bytes
        if folder.latent_width:
            per_token = folder.latent_width * value_bytes
        state = 0
        if "linear" in self.counts:
            kept = folder.convolution_width - 1 + draft_tokens
            state = STATE_BYTES * folder.state_values // ranks
            state += CONVOLUTION_BYTES * folder.convolution_values * kept // ranks
        self.block_tokens = VLLM_BLOCK_TOKENS * max(1, ceil(state / (VLLM_BLOCK_TOKENS * per_token)))
        """Blocks are as large as a state, where there are states."""
        self.page_bytes = max(self.block_tokens * per_token, state)

    def request_bytes(self, tokens: int) -> int:
        """Of one request of so many tokens."""
        blocks = 0
        for kind, count in self.counts.items():
            groups = ceil(count / self.group_layers)
            if kind == "linear":
                blocks += groups * self.states
            elif kind == "sliding":
                held = min(tokens, self.folder.window - 1 + self.batch_tokens)
                blocks += groups * (ceil(held / self.block_tokens) + 1)
            else:
                blocks += groups * ceil(tokens / self.block_tokens)
        return blocks * self.group_layers * self.page_bytes

    def largest_context(self, available_bytes: int) -> int:
        """Tokens of one request that fit; no more than the model was made for."""
        least, most = 0, self.folder.max_tokens or 1 << 24
        while least < most:
            middle = (least + most + 1) // 2
            if self.request_bytes(middle) <= available_bytes:
                least = middle
            else:
                most = middle - 1
        return least


def by_size(table: tuple[tuple[int, int], ...], device: Device) -> int:
    """The row for a card of this size."""
    gib = device.memory_bytes / GIB
    return next(value for least, value in table if gib >= least)


def sglang_reserve(device: Device, ranks: int, *, drafts: bool) -> int:
    """Bytes of a card that SGLang leaves to activations and CUDA graphs (arg_groups/memory_hook.py)."""
    chunk, graphs = by_size(SGLANG_CHUNKS, device), by_size(SGLANG_GRAPH_REQUESTS, device)
    reserve = (512 + 1.5 * max(chunk, 2048) + 2 * graphs + ranks / 8 * 1024) * MIB
    if device.memory_bytes > SGLANG_LARGE_GIB * GIB:
        reserve = max(reserve, SGLANG_LARGE_RESERVE)
    return int(reserve) + (SGLANG_DRAFTER_RESERVE if drafts else 0)


def _cards(folder: ModelFolder, machine: Machine) -> tuple[list[int], list[str]]:
    """The largest group of cards alike, as many of it as the heads can be shared out over; and what to say of it."""
    groups: dict[tuple[str, int], list[int]] = {}
    for place, device in enumerate(machine.devices):
        groups.setdefault((device.name, round(device.memory_bytes / GIB)), []).append(place)
    alike = max(groups.values(), key=lambda places: sum(machine.devices[place].free_bytes for place in places))
    size = tensor_parallel_sizes(folder.attention_heads, len(alike))[0]
    cards, notes = alike[:size], []
    if len(alike) < len(machine.devices):
        notes.append(
            f"{len(machine.devices) - len(alike)} of {len(machine.devices)} devices are left out: a tensor-parallel "
            "group has the speed and the memory of its smallest card, so all of it should be alike."
        )
    if size < len(alike):
        notes.append(
            f"{size} of {len(alike)} cards are used: the {folder.attention_heads} attention heads can't be shared out "
            "evenly over more."
        )
    if size > folder.kv_heads and not folder.latent_width:
        notes.append(f"Each of the {folder.kv_heads} key-value heads is on several cards: the cache is not shared out.")
    return cards, notes


def _need(folder: ModelFolder, devices: list[Device], drafting: Drafting, engine: EngineKind) -> CardNeed:
    smallest, ranks = min(devices, key=lambda device: device.memory_bytes), len(devices)
    taken = max(device.memory_bytes - device.free_bytes for device in devices)
    drafts = drafting.kind in ("mtp", "eagle3", "draft")
    if engine == "vllm":
        budget, other = int(VLLM_SHARE * smallest.memory_bytes), VLLM_OTHER_BYTES
    else:
        budget, other = smallest.memory_bytes - sglang_reserve(smallest, ranks, drafts=drafts), 0
    return CardNeed(
        weights=ceil(folder.weight_bytes / ranks),
        drafter=ceil(drafting.whole_bytes / ranks) if drafting.kind != "draft" else drafting.whole_bytes,
        other=other,
        budget=min(budget, smallest.memory_bytes - taken),
    )


def _why_not(need: CardNeed, wished: int, largest: int, machine: Machine, ranks: int) -> str:
    if need.cache <= 0:
        return (
            f"{need.weights / GIB:.1f} GiB of weights, {(need.drafter + need.other) / GIB:.1f} GiB of "
            f"drafter and activations are more than the {need.budget / GIB:.1f} GiB that the engine takes of "
            f"{'its card' if ranks == 1 else f'each of {ranks} cards'}: a smaller quantization, or more cards."
        )
    return (
        f"{wished:,} tokens do not fit: {need.cache / GIB:.1f} GiB of each card are left for the cache, which hold "
        f"{largest:,} tokens. Ways out: fewer requests at once, a cache in FP8, no drafter, more cards."
    )


def _about(folder: ModelFolder, drafting: Drafting, wish: Wish, machine: Machine, cards: list[int]) -> list[str]:
    """What drafts and what does not, and why."""
    notes = []
    if drafting.kind == "mtp":
        notes.append(
            f"Drafts come from the model's own layers ({folder.mtp_bytes / GIB:.1f} GiB), {drafting.length} tokens at "
            f"first, as {class_of(machine)} cards and {'mixtures of experts' if folder.experts else 'dense models'} "
            "were best with."
        )
    elif drafting.kind == "ngram":
        why = (
            "has none within"
            if not folder.mtp_bytes
            else f"has them in a way that vLLM does not know ({folder.model_type})"
        )
        notes.append(f"Drafts are looked up in the text (n-gram): the model {why}.")
    if wish.cache == "q4_0":
        notes.append("Neither engine has a cache in 4 bits: FP8 is planned.")
    if len(cards) > 1 and not any(link.kind != "pcie" for link in machine.links):
        notes.append(
            "The cards are not known to be joined by NVLink: the engine's own all-reduce is turned off, which PCIe "
            "alone does not bear on many boards."
        )
    return notes


def _vllm_command(
    folder: ModelFolder,
    machine: Machine,
    cards: list[int],
    wish: Wish,
    drafting: Drafting,
    context: int,
    need: CardNeed,
) -> tuple[str, ...]:
    command = ["vllm", "serve", str(folder.path), "--port", "{port}"]
    if len(cards) > 1:
        command += ["--tensor-parallel-size", str(len(cards))]
        if not any(link.kind != "pcie" for link in machine.links):
            command.append("--disable-custom-all-reduce")
    command += ["--max-model-len", str(context or -1), "--max-num-seqs", str(wish.slots)]
    if wish.cache in FP8:
        command += ["--kv-cache-dtype", "fp8"]
    smallest = min(machine.devices[card].memory_bytes for card in cards)
    if need.budget < int(VLLM_SHARE * smallest):  # something else is on a card: what is free is all there is
        command += ["--gpu-memory-utilization", f"{int(100 * need.budget / smallest) / 100:.2f}"]
    if config := speculative_config(drafting):
        command += ["--scheduler-cls", "paceline.inside.vllm_scheduler.scheduler"]
        command += ["--per-request-spec-decode-metrics", "summary"]
        command += ["--speculative-config", json.dumps(config, separators=(",", ":"))]
    return tuple(command)


def speculative_config(drafting: Drafting) -> dict[str, object] | None:
    """vLLM's ``--speculative-config``; ``None`` without a drafter."""
    if drafting.kind == "ngram":
        return {
            "method": "ngram",
            "num_speculative_tokens": drafting.length,
            "prompt_lookup_max": NGRAM_MATCH_MAX,
            "prompt_lookup_min": NGRAM_MATCH_MIN,
        }
    if drafting.kind == "mtp":
        return {"method": "mtp", "num_speculative_tokens": drafting.length}
    if drafting.kind in ("eagle3", "draft"):
        method = {"eagle3": "eagle3", "draft": "draft_model"}[drafting.kind]
        return {"method": method, "model": str(drafting.folder), "num_speculative_tokens": drafting.length}
    return None


def _sglang_command(
    folder: ModelFolder,
    machine: Machine,
    cards: list[int],
    wish: Wish,
    drafting: Drafting,
    context: int,
    need: CardNeed,
) -> tuple[str, ...]:
    command = ["python", "-m", "sglang.launch_server", "--model-path", str(folder.path), "--port", "{port}"]
    if len(cards) > 1:
        command += ["--tp-size", str(len(cards))]
        if not any(link.kind != "pcie" for link in machine.links):
            command.append("--disable-custom-all-reduce")
    if context:
        command += ["--context-length", str(context)]
    command += ["--max-running-requests", str(wish.slots)]
    smallest = min(machine.devices[card].memory_bytes for card in cards)
    command += ["--mem-fraction-static", f"{int(1000 * max(0, need.budget) / smallest) / 1000:.3f}"]
    if wish.cache in FP8:
        command += ["--kv-cache-dtype", "fp8_e4m3"]
    algorithms = {"mtp": "NEXTN", "eagle3": "EAGLE3", "draft": "STANDALONE", "ngram": "NGRAM"}
    if drafting.kind in algorithms:
        command += ["--speculative-algorithm", algorithms[drafting.kind]]
        if drafting.folder:
            command += ["--speculative-draft-model-path", str(drafting.folder)]
        if drafting.kind != "ngram":
            command += ["--speculative-num-steps", str(drafting.length), "--speculative-eagle-topk", "1"]
        command += ["--speculative-num-draft-tokens", str(drafting.length + 1)]
    return tuple(command)
