"""The flags of ``llama-server``, in one table: what they are called, what older builds call them, and what they set.

Building a command line (:func:`drafting_flags`), reading one (:func:`flag_values`, :func:`drafters_of`), checking one
against a build (:func:`unknown_flags`) and the embedded engine's parser (``embedded.py``) all follow from it. Names and
meanings are those of ``llama-server --help`` as of b11549; places are those of xllamacpp 2026.10. What has no place in
its ``CommonParams``, or is about fetching models, TLS, several models in one server, tools and voices, is not here.
"""

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import Struct

from paceline.types import Strategy


@dataclass(frozen=True)
class Flag:
    """A setting with a value."""

    names: tuple[str, ...]
    """Any of them will do; the last one is written."""
    places: tuple[str, ...] = ()
    """Attributes of ``CommonParams`` that get the value as it is, with dots in between; none where the embedded engine
    does more with it."""
    kind: Callable[[str], Any] = int
    help: str | None = None
    former_names: tuple[str, ...] = ()
    """What other builds call it (llama.cpp #22397)."""
    is_model_file: bool = False
    """Whether the value is a GGUF file."""

    @property
    def name(self) -> str:
        """The name to write."""
        return self.names[-1]


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


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


MODEL = Flag(("-m", "--model"), kind=str, help="GGUF file", is_model_file=True)
ALIAS = Flag(("-a", "--alias"), kind=str, help="name the model goes by; several are separated by commas")
HOST = Flag(("--host",), kind=str)
PORT = Flag(("--port",))
API_KEY = Flag(("--api-key",), kind=str, help="keys that requests may show, separated by commas")
CONTEXT = Flag(("-c", "--ctx-size"), help="tokens of context of all slots together")
PARALLEL = Flag(("-np", "--parallel"), help="requests decoded at once")
THREADS = Flag(("-t", "--threads"), help="threads")
BATCH_THREADS = Flag(("-tb", "--threads-batch"), help="threads for prompts (default: as --threads)")
TEMPLATE_FILE = Flag(
    ("--chat-template-file",), kind=str, help="Jinja file that takes the place of the model's own template"
)
SPECULATIVE_TYPES_FLAG = Flag(("--spec-type",), kind=str, help="drafters, separated by commas")
DRAFT_MODEL = Flag(
    ("-md", "--spec-draft-model"),
    kind=str,
    help="GGUF file of a draft model",
    former_names=("--model-draft",),
    is_model_file=True,
)
DRAFT_N_MAX = Flag(
    ("--spec-draft-n-max",),
    ("speculative.draft.n_max",),
    help="most tokens a draft model drafts",
    former_names=("--draft-max", "--draft"),
)
NGRAM_SIMPLE_SIZE_N = Flag(
    ("--spec-ngram-simple-size-n",), ("speculative.ngram_simple.size_n",), help="length of the n-gram looked up"
)
NGRAM_SIMPLE_SIZE_M = Flag(
    ("--spec-ngram-simple-size-m",), ("speculative.ngram_simple.size_m",), help="most tokens a hit drafts"
)
NGRAM_MAP_K_SIZE_N = Flag(("--spec-ngram-map-k-size-n",), ("speculative.ngram_map_k.size_n",))
NGRAM_MAP_K_SIZE_M = Flag(("--spec-ngram-map-k-size-m",), ("speculative.ngram_map_k.size_m",))
NGRAM_MAP_K4V_SIZE_N = Flag(("--spec-ngram-map-k4v-size-n",), ("speculative.ngram_map_k4v.size_n",))
NGRAM_MAP_K4V_SIZE_M = Flag(("--spec-ngram-map-k4v-size-m",), ("speculative.ngram_map_k4v.size_m",))
NGRAM_MOD_N_MATCH = Flag(("--spec-ngram-mod-n-match",), ("speculative.ngram_mod.n_match",))
NGRAM_MOD_N_MAX = Flag(("--spec-ngram-mod-n-max",), ("speculative.ngram_mod.n_max",))
_CACHE_TYPES = {
    name: f"GGML_TYPE_{name.upper()}"
    for name in ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
}

FLAGS: Sequence[Flag] = (
    MODEL,
    ALIAS,
    HOST,
    PORT,
    API_KEY,
    CONTEXT,
    PARALLEL,
    THREADS,
    BATCH_THREADS,
    TEMPLATE_FILE,
    SPECULATIVE_TYPES_FLAG,
    DRAFT_MODEL,
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
    Flag(("-mm", "--mmproj"), ("mmproj.path",), str, "GGUF file of the projector for images", is_model_file=True),
    Flag(("-ts", "--tensor-split"), ("tensor_split",), _numbers, "shares of the GPUs, separated by commas"),
    DRAFT_N_MAX,
    Flag(("--spec-draft-n-min",), ("speculative.draft.n_min",), former_names=("--draft-min",)),
    Flag(("--spec-draft-p-min",), ("speculative.draft.p_min",), float, former_names=("--draft-p-min",)),
    Flag(("--spec-draft-p-split",), ("speculative.draft.p_split",), float),
    Flag(("-ngld", "--spec-draft-ngl"), ("speculative.draft.n_gpu_layers",)),
    Flag(("-td", "--spec-draft-threads"), ("speculative.draft.cpuparams.n_threads",)),
    NGRAM_SIMPLE_SIZE_N,
    NGRAM_SIMPLE_SIZE_M,
    Flag(("--spec-ngram-simple-min-hits",), ("speculative.ngram_simple.min_hits",), help="hits before it drafts"),
    NGRAM_MAP_K_SIZE_N,
    NGRAM_MAP_K_SIZE_M,
    Flag(("--spec-ngram-map-k-min-hits",), ("speculative.ngram_map_k.min_hits",)),
    NGRAM_MAP_K4V_SIZE_N,
    NGRAM_MAP_K4V_SIZE_M,
    Flag(("--spec-ngram-map-k4v-min-hits",), ("speculative.ngram_map_k4v.min_hits",)),
    NGRAM_MOD_N_MATCH,
    Flag(("--spec-ngram-mod-n-min",), ("speculative.ngram_mod.n_min",)),
    NGRAM_MOD_N_MAX,
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


class SpeculativeType(Struct, frozen=True, kw_only=True):
    """A drafter of llama.cpp's."""

    name: str
    """Its own, as in ``--spec-type`` and in ``speculative.types`` of a completion."""
    kind: str
    """As in :class:`paceline.types.Strategy`."""
    n_max: Flag | None
    """The flag for its longest draft; ``None`` where it has none."""
    match: Flag | None = None
    """The flag for the tokens that have to match before it drafts; ``None`` where nothing has to."""


SPECULATIVE_TYPES: Sequence[SpeculativeType] = (
    SpeculativeType(name="ngram-simple", kind="ngram", n_max=NGRAM_SIMPLE_SIZE_M, match=NGRAM_SIMPLE_SIZE_N),
    SpeculativeType(name="ngram-map-k", kind="ngram-map-k", n_max=NGRAM_MAP_K_SIZE_M, match=NGRAM_MAP_K_SIZE_N),
    SpeculativeType(name="ngram-map-k4v", kind="ngram-map-k4v", n_max=NGRAM_MAP_K4V_SIZE_M, match=NGRAM_MAP_K4V_SIZE_N),
    SpeculativeType(name="ngram-mod", kind="ngram-mod", n_max=NGRAM_MOD_N_MAX, match=NGRAM_MOD_N_MATCH),
    SpeculativeType(name="ngram-cache", kind="ngram-cache", n_max=None),
    SpeculativeType(name="draft-simple", kind="draft", n_max=DRAFT_N_MAX),
    SpeculativeType(name="draft-eagle3", kind="eagle3", n_max=DRAFT_N_MAX),
    SpeculativeType(name="draft-mtp", kind="mtp", n_max=DRAFT_N_MAX),
    SpeculativeType(name="draft-dflash", kind="dflash", n_max=DRAFT_N_MAX),
    SpeculativeType(name="draft-dspark", kind="dspark", n_max=DRAFT_N_MAX),
)
_TYPE_BY_NAME = {drafter.name: drafter for drafter in SPECULATIVE_TYPES}
_TYPE_BY_KIND = {drafter.kind: drafter for drafter in SPECULATIVE_TYPES}
NONE = "none"
"""The name of the type that drafts nothing."""


class LoadedDrafter(Struct, frozen=True):
    """A drafter as a command line has it loaded."""

    strategy: Strategy
    """Its kind, and its longest draft; ``n_max`` is ``None`` where llama.cpp's own default holds."""
    match_tokens: int | None = None
    """Tokens that have to match before it drafts; ``None`` where llama.cpp's own default holds."""
    model: Path | None = None
    """GGUF file of a draft model, or of a head."""


def kind_of(name: str) -> str:
    """The kind of a drafter that llama.cpp names; its name, where it is one that this table does not have yet."""
    drafter = _TYPE_BY_NAME.get(name)
    return drafter.kind if drafter else name


def drafting_flags(drafters: Sequence[LoadedDrafter]) -> tuple[str, ...]:
    """The flags that have drafters loaded; none for none.

    Raises:
        ValueError: llama.cpp can't load these together, or not so: some of them share a flag.
    """
    if not drafters:
        return ()
    values: dict[str, str] = {}

    def put(flag: Flag | None, value: object, drafter: LoadedDrafter) -> None:
        if value is None:
            return
        if flag is None:
            raise ValueError(f"llama.cpp has no flag for {value} of {drafter.strategy}")
        if values.setdefault(flag.name, str(value)) != str(value):
            raise ValueError(f"{flag.name} can't be both {values[flag.name]} and {value}")

    types = [_type_of(drafter.strategy.kind) for drafter in drafters]
    for speculative_type, drafter in zip(types, drafters, strict=True):
        put(speculative_type.match, drafter.match_tokens, drafter)
        put(DRAFT_MODEL if speculative_type.n_max is DRAFT_N_MAX else None, drafter.model, drafter)
        put(speculative_type.n_max, drafter.strategy.n_max, drafter)
    names = ",".join(speculative_type.name for speculative_type in types)
    return (SPECULATIVE_TYPES_FLAG.name, names, *(word for pair in values.items() for word in pair))


def drafters_of(words: Sequence[str]) -> tuple[LoadedDrafter, ...]:
    """The drafters that a command line has loaded: what :func:`drafting_flags` was told. A type that the table does not
    have is passed over."""
    values = {flag.name: value for flag, value in flag_values(words)}
    names = values.get(SPECULATIVE_TYPES_FLAG.name, NONE).split(",")

    def number(flag: Flag | None) -> int | None:
        text = values.get(flag.name, "") if flag else ""
        return int(text) if text.isdecimal() else None

    drafters = []
    for speculative_type in (_TYPE_BY_NAME[name] for name in names if name in _TYPE_BY_NAME):
        has_model = speculative_type.n_max is DRAFT_N_MAX and DRAFT_MODEL.name in values
        drafters.append(
            LoadedDrafter(
                Strategy(speculative_type.kind, number(speculative_type.n_max)),
                match_tokens=number(speculative_type.match),
                model=Path(values[DRAFT_MODEL.name]) if has_model else None,
            )
        )
    return tuple(drafters)


def flag_values(words: Sequence[str]) -> Iterator[tuple[Flag, str]]:
    """The table's flags in a command line, by whatever name, each with its value; of one that is repeated, the later
    counts. A value is the next word, or stands behind an equals sign; it is empty where the line ends."""
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in _FLAG_BY_NAME:
            yield _FLAG_BY_NAME[name], value if equals else next(iter(words[index + 1 : index + 2]), "")


def unknown_flags(words: Sequence[str], offered: Collection[str]) -> list[str]:
    """Flags that a build does not offer, each with what that calls it, or what is close.

    Args:
        offered: the build's own flags; where it offers none, it could not be asked, and nothing is unknown.
    """
    unknown = [word for word in words if re.match(r"--?[a-zA-Z]", word) and word not in offered]
    if not offered:
        return []
    hints = []
    for name in unknown:
        flag = _FLAG_BY_NAME.get(name)
        names = {*flag.names, *flag.former_names} & set(offered) if flag else set()
        close = sorted(names) or difflib.get_close_matches(name, offered, 3)
        hints.append(name + (f" (it has {', '.join(close)})" if close else ""))
    return hints


def _type_of(kind: str) -> SpeculativeType:
    if kind not in _TYPE_BY_KIND:
        raise ValueError(f"llama.cpp has no drafter of kind {kind!r}; it has {', '.join(_TYPE_BY_KIND)}")
    return _TYPE_BY_KIND[kind]


_FLAG_BY_NAME = {name: flag for flag in FLAGS for name in (*flag.names, *flag.former_names)}
