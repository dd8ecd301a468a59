"""What each layer of a model keeps of a sequence, by its architecture, read from the header of its file.

The rules are llama.cpp's (b11434): ``llama_model::create_memory`` says which kind of memory an architecture has, the
files of ``src/models`` which of its layers see a window or are recurrent, and ``llama-hparams.cpp`` how wide a row is.
An architecture that is not in these tables is not known: for it, the dry run alone can tell.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from paceline.planning.gguf import Header, Tensor

Kind = Literal["full", "window", "mla", "sparse", "hybrid", "recurrent", "compressed", "unknown"]
"""How sequences are remembered: every token in every layer; most layers only a sliding window; one latent vector a
token (MLA); that and keys of an indexer (DSA); a state of fixed size in most layers; in all of them; windows, with one
cell for several tokens behind them (DeepSeek-V4); or nobody knows here."""

PLAIN = frozenset(
    (
        "llama qwen qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3vl qwen3vlmoe phi2 phi3 phimoe internlm2 minicpm gemma "
        "starcoder starcoder2 command-r dbrx olmo olmoe openelm arctic deepseek chatglm glm4 glm4moe nemotron exaone "
        "granite granitemoe bailingmoe bailingmoe2 dots1 arcee ernie4_5 ernie4_5-moe hunyuan-moe hunyuan-dense smollm3 "
        "seed_oss grovemoe apertus minimax-m2 mistral3 stablelm xverse orion deci eagle3"
    ).split()
)
"""Every layer remembers every token: what ``create_memory`` does where no other rule holds. All other families in these
tables were compared with llama.cpp's planner by a hollow model of theirs (``benchmarks/planning``)."""


class WindowRule(Struct, frozen=True):
    """Which layers see only a window, where the file has no list of them."""

    period: int
    """One layer in so many sees everything; 0 where the file has to say."""
    window: int | None = None
    """Tokens, whatever the file says."""
    default_window: int = 0
    """Tokens, where the file says nothing."""


WINDOW_RULES: Mapping[str, WindowRule] = {
    "gemma2": WindowRule(2, default_window=4096),
    "gemma3": WindowRule(6),
    "gemma4": WindowRule(0),
    "gpt-oss": WindowRule(2),
    "cohere2": WindowRule(4),
    "llama4": WindowRule(4, window=8192),
    "mimo2": WindowRule(0),
}
WINDOW_EVEN_IF_UNSAID = frozenset(("llama4", "gemma2"))
"""A file that says nothing of a window has one all the same; of all others, it has none."""
LATENT = frozenset(("deepseek2",))
SPARSE = frozenset(("deepseek32", "glm-dsa"))
GLM_DSA_LARGE_CONTEXT = 1 << 20
"""From GLM-5.2 on, whose files are made for so many tokens, layers share indexers."""
DELTA = frozenset(("qwen3next", "qwen35", "qwen35moe"))
"""Hybrids with one attending layer in so many; the file says in how many, or which."""
BY_HEADS = frozenset(("granitehybrid", "nemotron_h", "nemotron_h_moe", "lfm2", "lfm2moe", "kimi-linear"))
"""Hybrids whose recurrent layers are those without key-value heads."""
COMPRESSED = "deepseek4"
ROLLS_BACK = frozenset(
    "qwen35 qwen35moe deepseek4 nemotron_h nemotron_h_moe lfm2 lfm2moe kimi-k3 qwen4exp glm5-next bailingmoe3".split()
)
"""``llm_arch_supports_rs_rollback``: recurrent states are kept for each drafted token, so that rejected ones can be
taken back."""
WITHOUT_TENSOR_SPLIT = frozenset(
    (
        "grok mpt plamo2 minicpm3 gemma3n mamba mamba2 jamba falcon-h1 olmo2 olmoe deepseek2 deepseek32 hy_v4 "
        "dots3note glm-dsa bitnet t5 nemotron_h nemotron_h_moe granitehybrid minimax-01 minimax-m2 minimax-m3 mistral4 "
        "kimi-linear bailingmoe3 kimi-k3 glm5-next qwen3tts qwen4exp"
    ).split()
)
"""``llm_arch_supports_sm_tensor``."""


class Cache(Struct, frozen=True, kw_only=True):
    """What a layer keeps by token, in values a cell."""

    keys: int
    values: int = 0
    """0 where both are one latent vector."""
    tokens: int = 1
    """Of one cell."""
    is_window: bool = False


class Layer(Struct, frozen=True, kw_only=True):
    caches: tuple[Cache, ...] = ()
    state_values: int = 0
    """Of fixed size, a sequence; 32 bits each, whatever the cache's type."""


class Architecture(Struct, frozen=True, kw_only=True):
    """What a model keeps of sequences.

    Args:
        layers: that work on every token.
        mtp_layers: appended ones that draft (multi-token prediction), as the file has tensors of them.
        block_count: of all layers that the file counts, whether their tensors are there or not; a layer split of
            llama.cpp's counts so.
        window: tokens of sliding windows; 0 for none.
    """

    name: str
    kind: Kind
    layers: tuple[Layer, ...]
    mtp_layers: tuple[Layer, ...]
    block_count: int
    trained_tokens: int
    window: int = 0

    @property
    def has_state(self) -> bool:
        return any(layer.state_values for layer in self.layers)

    @property
    def rolls_back(self) -> bool:
        """It keeps a state for each token of a draft, if a drafter with a model of its own is loaded."""
        return self.name in ROLLS_BACK

    @property
    def makes_checkpoints(self) -> bool:
        """Its past can't be cut off at any token, so the server keeps copies of it."""
        return self.has_state or self.window > 0

    @property
    def may_split_tensors(self) -> bool:
        return self.kind != "unknown" and self.name not in WITHOUT_TENSOR_SPLIT

    @property
    def mirrors_cache(self) -> bool:
        """Split by tensors, every card holds the whole cache."""
        return self.name == COMPRESSED

    @property
    def is_per_sequence(self) -> bool:
        """Every slot has its own cache, also where one for all is asked for."""
        return self.name == COMPRESSED

    @property
    def needs_equal_types(self) -> bool:
        """The types of keys and values have to be the same (llama-context.cpp, MLA)."""
        return self.kind in ("mla", "sparse")


def architecture_of(headers: Sequence[Header]) -> Architecture | None:
    """What a model keeps; ``None`` where its architecture is not known.

    Args:
        headers: of all its parts, as :func:`paceline.planning.gguf.read_model` gives them.
    """
    header = headers[0]
    reader = next((reader for names, reader in _READERS if header.architecture in names), None)
    return reader(_Keys(headers)) if reader else None


def assumed_architecture(headers: Sequence[Header]) -> Architecture:
    """For a model whose architecture is not known: as if every layer remembered every token, which none surpasses."""
    return replace(_plain(_Keys(headers)), kind="unknown")


def mtp_layer_count(headers: Sequence[Header]) -> int:
    """Layers for multi-token prediction whose tensors are there; the key alone is also in files without them."""
    header = headers[0]
    claimed = header.own_number("nextn_predict_layers")
    first = header.own_number("block_count") - claimed
    probe = f"blk.{first}.nextn.eh_proj.weight"
    is_there = any(tensor.name == probe for part in headers for tensor in part.tensors)
    return claimed if claimed and is_there else 0


def layer_of(tensor: Tensor) -> int | None:
    """The layer that a tensor belongs to; ``None`` for those at the input and the output."""
    name = tensor.name.split(".", 2)
    return int(name[1]) if name[0] == "blk" and len(name) == 3 and name[1].isdecimal() else None


class _Keys:
    """The keys of a model's architecture, as llama.cpp reads them."""

    def __init__(self, headers: Sequence[Header]) -> None:
        self.header = headers[0]
        self.block_count = self.number("block_count")
        self.mtp_count = mtp_layer_count(headers)
        claimed = self.number("nextn_predict_layers")
        if self.header.architecture == COMPRESSED:
            claimed = self.mtp_count  # deepseek4.cpp takes it back, the others don't
        self.layer_count = self.block_count - claimed

    def number(self, key: str, otherwise: int = 0) -> int:
        value = self.header.metadata.get(f"{self.header.architecture}.{key}")
        return int(value) if isinstance(value, int) else otherwise

    def at(self, key: str, layer: int, otherwise: int = 0) -> int:
        """Of a layer, where a key may have one number or one for each."""
        numbers = self.header.own_numbers(key)
        if numbers:
            return numbers[layer] if layer < len(numbers) else otherwise
        return self.number(key, otherwise)

    def attention(self, layer: int, is_window: bool = False, is_latent: bool = False) -> Cache:
        heads = self.at("attention.head_count", layer)
        usual = self.number("embedding_length") // heads if heads else 0
        kept = self.at("attention.head_count_kv", layer, heads)
        keys = self.number("attention.key_length", usual)
        values = self.number("attention.value_length", usual)
        if is_window:
            keys = self.number("attention.key_length_swa", keys)
            values = self.number("attention.value_length_swa", values)
        return Cache(keys=kept * keys, values=0 if is_latent else kept * values, is_window=is_window)

    def model(
        self, kind: Kind, layers: Sequence[Layer], mtp_layers: Sequence[Layer] | None = None, window: int = 0
    ) -> Architecture:
        if mtp_layers is None:
            mtp_layers = [
                Layer(caches=(self.attention(layer, is_latent=self.is_latent),))
                for layer in range(self.layer_count, self.layer_count + self.mtp_count)
            ]
        return Architecture(
            name=self.header.architecture,
            kind=kind,
            layers=tuple(layers),
            mtp_layers=tuple(mtp_layers),
            block_count=self.block_count,
            trained_tokens=self.number("context_length"),
            window=window,
        )

    @property
    def is_latent(self) -> bool:
        return bool(self.number("attention.key_length_mla") and self.number("attention.value_length_mla"))


def _plain(keys: _Keys) -> Architecture:
    return keys.model("full", [Layer(caches=(keys.attention(layer),)) for layer in range(keys.layer_count)])


def _windowed(keys: _Keys) -> Architecture | None:
    name = keys.header.architecture
    rule = WINDOW_RULES[name]
    said = keys.header.metadata.get(f"{name}.attention.sliding_window")
    window = rule.default_window if said is None else int(said)
    if (said is None and name not in WINDOW_EVEN_IF_UNSAID) or said == 0:
        return _plain(keys)
    if rule.window is not None:
        window = rule.window
    pattern = keys.header.own_numbers("attention.sliding_window_pattern")
    period = keys.number("attention.sliding_window_pattern", rule.period)
    if not pattern and not period:
        return None
    # layers from here on reuse the caches of earlier ones
    shared_from = keys.block_count - keys.number("attention.shared_kv_layers")

    def is_window(layer: int) -> bool:
        if pattern:
            return bool(pattern[layer]) if layer < len(pattern) else False
        return layer % period < period - 1

    return keys.model(
        "window",
        [
            Layer(caches=(keys.attention(layer, is_window(layer)),) if layer < shared_from else ())
            for layer in range(keys.layer_count)
        ],
        window=window,
    )


def _latent(keys: _Keys) -> Architecture:
    layers = [Layer(caches=(keys.attention(layer, is_latent=keys.is_latent),)) for layer in range(keys.layer_count)]
    return keys.model("mla" if keys.is_latent else "full", layers)


def _sparse(keys: _Keys) -> Architecture | None:
    """Latent vectors, and the keys of an indexer that chooses among them, of the type of the keys."""
    has_own_indexer = keys.header.own_numbers("attention.indexer.types")
    is_shared = keys.header.architecture == "glm-dsa" and keys.number("context_length") >= GLM_DSA_LARGE_CONTEXT
    if is_shared and not has_own_indexer:
        return None  # the list is in llama.cpp's source alone
    indexer = Cache(keys=keys.number("attention.indexer.key_length"))
    layers = []
    for layer in range(keys.layer_count):
        with_indexer = not has_own_indexer or bool(has_own_indexer[layer])
        latent = keys.attention(layer, is_latent=keys.is_latent)
        layers.append(Layer(caches=(latent, indexer) if with_indexer else (latent,)))
    return keys.model("sparse", layers)


def _state_values(keys: _Keys) -> int:
    """``n_embd_r + n_embd_s``."""
    if length := keys.number("shortconv.l_cache"):
        return keys.number("embedding_length") * (length - 1)
    kernel = keys.number("ssm.conv_kernel")
    if head := keys.number("kda.head_dim"):
        heads = keys.at("attention.head_count", 0)
        return 3 * (kernel - 1 if kernel else 3) * heads * head + head * head * heads
    inner, state, groups = keys.number("ssm.inner_size"), keys.number("ssm.state_size"), keys.number("ssm.group_count")
    return max(0, kernel - 1) * (inner + 2 * groups * state) + state * inner


def _hybrid(keys: _Keys) -> Architecture:
    name = keys.header.architecture
    listed = keys.header.own_numbers("attention.recurrent_layers")
    interval = keys.number("full_attention_interval", 4)
    window = keys.number("attention.sliding_window") if name == "lfm2" else 0

    def is_recurrent(layer: int) -> bool:
        if name in DELTA:
            return bool(listed[layer]) if listed else (layer + 1) % interval != 0
        return keys.at("attention.head_count_kv", layer) == 0

    layers = []
    for layer in range(keys.layer_count):
        if name.startswith("nemotron_h") and keys.at("feed_forward_length", layer):
            layers.append(Layer())  # feeds forward only
        elif is_recurrent(layer):
            layers.append(Layer(state_values=_state_values(keys)))
        else:
            layers.append(Layer(caches=(keys.attention(layer, is_window=window > 0, is_latent=keys.is_latent),)))
    return keys.model("hybrid", layers, window=window)


def _both(keys: _Keys) -> Architecture:
    """Every layer attends and has a state (Falcon-H1)."""
    state = _state_values(keys)
    layers = [Layer(caches=(keys.attention(layer),), state_values=state) for layer in range(keys.layer_count)]
    return keys.model("hybrid", layers)


def _recurrent(keys: _Keys) -> Architecture:
    return keys.model("recurrent", [Layer(state_values=_state_values(keys))] * keys.layer_count, ())


CLOSE_RATIO = 4
"""Of DeepSeek-V4's two ratios of tokens to cells, the one with overlapping windows and an indexer."""


def _compressed(keys: _Keys) -> Architecture:
    """``llama_kv_cache_dsv4``: the latest tokens, and cells for several tokens each, which a compressor fills; it keeps
    the tokens of the cell it works at, their keys and their scores."""
    width, indexer = keys.number("attention.key_length"), keys.number("attention.indexer.key_length")
    recent = Cache(keys=width, is_window=True)
    layers = []
    for layer in range(keys.layer_count):
        ratio = keys.at("attention.compress_ratios", layer)
        caches, state = [recent], 0
        if ratio:
            caches.append(Cache(keys=width, tokens=ratio))
            state = 2 * ratio * width
        if ratio == CLOSE_RATIO:
            caches.append(Cache(keys=indexer, tokens=ratio))
            state = 2 * (2 * ratio) * (2 * width) + 2 * (2 * ratio) * (2 * indexer)
        layers.append(Layer(caches=tuple(caches), state_values=state))
    mtp_layers = [Layer(caches=(keys.attention(keys.layer_count, is_window=True),))] * keys.mtp_count
    return keys.model("compressed", layers, mtp_layers, window=keys.number("attention.sliding_window"))


_READERS: Sequence[tuple[frozenset[str], Callable[[_Keys], Architecture | None]]] = (
    (PLAIN, _plain),
    (frozenset(WINDOW_RULES), _windowed),
    (LATENT, _latent),
    (SPARSE, _sparse),
    (DELTA | BY_HEADS, _hybrid),
    (frozenset(("falcon-h1",)), _both),
    (frozenset(("mamba", "mamba2")), _recurrent),
    (frozenset((COMPRESSED,)), _compressed),
)
