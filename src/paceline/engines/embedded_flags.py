"""The flags of ``llama-server`` that the embedded engine takes, and where each stands in xllamacpp's ``CommonParams``.

Names and meanings are those of ``llama-server --help``. What is not here has no place in ``CommonParams`` as of
xllamacpp 2026.10, or is about fetching models, TLS, several models in one server, tools and voices.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

NOT_OFFERED = "build or install llama-server for that (`paceline engine build`), and name it in `launch`"


@dataclass(frozen=True)
class Flag:
    """One setting."""

    names: tuple[str, ...]
    places: tuple[str, ...]
    """Attributes of ``CommonParams``, with dots in between; all get the value."""
    kind: Callable[[str], Any] = int
    help: str | None = None


@dataclass(frozen=True)
class Switch:
    """A setting that is on or off; each name gives one of the two."""

    on: tuple[str, ...]
    off: tuple[str, ...]
    place: str


@dataclass(frozen=True)
class Choice:
    """A setting with named values, of an enumeration of xllamacpp."""

    names: tuple[str, ...]
    places: tuple[str, ...]
    enumeration: str
    members: dict[str, str]


_CACHE_TYPES = {
    name: f"GGML_TYPE_{name.upper()}"
    for name in ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
}


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


FLAGS: Sequence[Flag] = (
    Flag(("-b", "--batch-size"), ("n_batch",)),
    Flag(("-ub", "--ubatch-size"), ("n_ubatch",)),
    Flag(("-ngl", "--gpu-layers", "--n-gpu-layers"), ("n_gpu_layers",)),
    Flag(("-mg", "--main-gpu"), ("main_gpu",)),
    Flag(("--threads-http",), ("n_threads_http",)),
    Flag(("-n", "--predict", "--n-predict"), ("n_predict",), help="most tokens of an answer"),
    Flag(("--keep",), ("n_keep",)),
    Flag(("--cache-reuse",), ("n_cache_reuse",)),
    Flag(("-cram", "--cache-ram"), ("cache_ram_mib",), help="MiB of memory for the cache of prompts"),
    Flag(("--ctx-checkpoints",), ("n_ctx_checkpoints",)),
    Flag(("--sleep-idle-seconds",), ("sleep_idle_seconds",)),
    Flag(("-to", "--timeout"), ("timeout_read", "timeout_write"), help="seconds"),
    Flag(("-lv", "--verbosity"), ("verbosity",)),
    Flag(("--yarn-orig-ctx",), ("yarn_orig_ctx",)),
    Flag(("--rope-freq-base",), ("rope_freq_base",), float),
    Flag(("--rope-freq-scale",), ("rope_freq_scale",), float),
    Flag(("-sps", "--slot-prompt-similarity"), ("slot_prompt_similarity",), float),
    Flag(("-s", "--seed"), ("sampling.seed",)),
    Flag(("--temp",), ("sampling.temp",), float),
    Flag(("--top-k",), ("sampling.top_k",)),
    Flag(("--top-p",), ("sampling.top_p",), float),
    Flag(("--min-p",), ("sampling.min_p",), float),
    Flag(("--repeat-penalty",), ("sampling.penalty_repeat",), float),
    Flag(("--presence-penalty",), ("sampling.penalty_present",), float),
    Flag(("--api-prefix",), ("api_prefix",), str),
    Flag(("--slot-save-path",), ("slot_save_path",), str),
    Flag(("--chat-template",), ("chat_template",), str, "name of a template that llama.cpp knows, or a template"),
    Flag(("-mm", "--mmproj"), ("mmproj.path",), str, "GGUF file of the projector for images"),
    Flag(("-ts", "--tensor-split"), ("tensor_split",), _numbers, "shares of the GPUs, separated by commas"),
    Flag(("--spec-draft-n-max",), ("speculative.draft.n_max",), help="most tokens a draft model drafts"),
    Flag(("--spec-draft-n-min",), ("speculative.draft.n_min",)),
    Flag(("--spec-draft-p-min",), ("speculative.draft.p_min",), float),
    Flag(("--spec-draft-p-split",), ("speculative.draft.p_split",), float),
    Flag(("-ngld", "--spec-draft-ngl"), ("speculative.draft.n_gpu_layers",)),
    Flag(("-td", "--spec-draft-threads"), ("speculative.draft.cpuparams.n_threads",)),
    Flag(("--spec-ngram-simple-size-n",), ("speculative.ngram_simple.size_n",), help="length of the n-gram looked up"),
    Flag(("--spec-ngram-simple-size-m",), ("speculative.ngram_simple.size_m",), help="most tokens a hit drafts"),
    Flag(("--spec-ngram-simple-min-hits",), ("speculative.ngram_simple.min_hits",), help="hits before it drafts"),
    Flag(("--spec-ngram-map-k-size-n",), ("speculative.ngram_map_k.size_n",)),
    Flag(("--spec-ngram-map-k-size-m",), ("speculative.ngram_map_k.size_m",)),
    Flag(("--spec-ngram-map-k-min-hits",), ("speculative.ngram_map_k.min_hits",)),
    Flag(("--spec-ngram-map-k4v-size-n",), ("speculative.ngram_map_k4v.size_n",)),
    Flag(("--spec-ngram-map-k4v-size-m",), ("speculative.ngram_map_k4v.size_m",)),
    Flag(("--spec-ngram-map-k4v-min-hits",), ("speculative.ngram_map_k4v.min_hits",)),
    Flag(("--spec-ngram-mod-n-match",), ("speculative.ngram_mod.n_match",)),
    Flag(("--spec-ngram-mod-n-min",), ("speculative.ngram_mod.n_min",)),
    Flag(("--spec-ngram-mod-n-max",), ("speculative.ngram_mod.n_max",)),
)
SWITCHES: Sequence[Switch] = (
    Switch(("--embedding", "--embeddings"), (), "embedding"),
    Switch(("--jinja",), ("--no-jinja",), "use_jinja"),
    Switch(("-cb", "--cont-batching"), ("-nocb", "--no-cont-batching"), "cont_batching"),
    Switch(("--context-shift",), ("--no-context-shift",), "ctx_shift"),
    Switch(("--cache-prompt",), ("--no-cache-prompt",), "cache_prompt"),
    Switch(("--warmup",), ("--no-warmup",), "warmup"),
    Switch(("--slots",), ("--no-slots",), "endpoint_slots"),
    Switch(("--props",), (), "endpoint_props"),
    Switch(("--metrics",), (), "endpoint_metrics"),
    Switch(("-nkvo", "--no-kv-offload"), ("-kvo", "--kv-offload"), "no_kv_offload"),
    Switch(("--no-op-offload",), ("--op-offload",), "no_op_offload"),
    Switch(("-kvu", "--kv-unified"), ("-no-kvu", "--no-kv-unified"), "kv_unified"),
    Switch(("--swa-full",), (), "swa_full"),
    Switch(("--mmproj-offload",), ("--no-mmproj-offload",), "mmproj_use_gpu"),
    Switch(("--prefill-assistant",), ("--no-prefill-assistant",), "prefill_assistant"),
)
CHOICES: Sequence[Choice] = (
    Choice(
        ("-fa", "--flash-attn"),
        ("flash_attn_type",),
        "llama_flash_attn_type",
        {
            word: f"LLAMA_FLASH_ATTN_TYPE_{end}"
            for word, end in (("on", "ENABLED"), ("off", "DISABLED"), ("auto", "AUTO"))
        },
    ),
    Choice(("-ctk", "--cache-type-k"), ("cache_type_k",), "ggml_type", _CACHE_TYPES),
    Choice(("-ctv", "--cache-type-v"), ("cache_type_v",), "ggml_type", _CACHE_TYPES),
    Choice(("-ctkd", "--spec-draft-type-k"), ("speculative.draft.cache_type_k",), "ggml_type", _CACHE_TYPES),
    Choice(("-ctvd", "--spec-draft-type-v"), ("speculative.draft.cache_type_v",), "ggml_type", _CACHE_TYPES),
    Choice(
        ("--pooling",),
        ("pooling_type",),
        "llama_pooling_type",
        {word: f"LLAMA_POOLING_TYPE_{word.upper()}" for word in ("none", "mean", "cls", "last", "rank")},
    ),
    Choice(
        ("--reasoning-format",),
        ("reasoning_format",),
        "common_reasoning_format",
        {
            word: f"COMMON_REASONING_FORMAT_{word.upper().replace('-', '_')}"
            for word in ("none", "auto", "deepseek", "deepseek-legacy")
        },
    ),
    Choice(
        ("-sm", "--split-mode"),
        ("split_mode",),
        "llama_split_mode",
        {word: f"LLAMA_SPLIT_MODE_{word.upper()}" for word in ("none", "layer", "row", "tensor")},
    ),
    Choice(
        ("--numa",),
        ("numa",),
        "ggml_numa_strategy",
        {word: f"GGML_NUMA_STRATEGY_{word.upper()}" for word in ("distribute", "isolate", "numactl")},
    ),
)


def add_to(parser: argparse.ArgumentParser) -> None:
    """Have a parser take them all."""
    for flag in FLAGS:
        parser.add_argument(*flag.names, dest=flag.places[0], type=flag.kind, help=flag.help)
    for choice in CHOICES:
        parser.add_argument(*choice.names, dest=choice.places[0], choices=tuple(choice.members))
    for switch in SWITCHES:
        parser.add_argument(*switch.on, dest=switch.place, action="store_true", default=None)
        if switch.off:
            parser.add_argument(*switch.off, dest=switch.place, action="store_false", default=None)


def write(arguments: argparse.Namespace, parameters: Any) -> None:
    """Put what was given into a ``CommonParams``; the rest stays as it is there."""
    import xllamacpp

    given = vars(arguments)
    for flag in FLAGS:
        value = given[flag.places[0]]
        if value is not None:
            for place in flag.places:
                _put(parameters, place, value)
    for switch in SWITCHES:
        if given[switch.place] is not None:
            _put(parameters, switch.place, given[switch.place])
    for choice in CHOICES:
        word = given[choice.places[0]]
        if word is not None:
            members = getattr(xllamacpp, choice.enumeration).__members__
            for place in choice.places:
                _put(parameters, place, members[choice.members[word]])


def _put(parameters: Any, place: str, value: Any) -> None:
    *holders, name = place.split(".")
    holder = reduce(getattr, holders, parameters)
    if name == "tensor_split":
        value = [*value, *getattr(holder, name)[len(value) :]]
    setattr(holder, name, value)
