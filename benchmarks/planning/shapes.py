"""Shapes of hollow models: real ones by their published configurations, and tiny ones of the same families."""

from collections.abc import Mapping

from msgspec.structs import replace

from benchmarks.planning.hollow_models import Quantized, Shape

Q4_K = Quantized("Q4_K", output="Q6_K")
MXFP4 = Quantized("Q8_0", experts="MXFP4")
QWEN_27B = Shape(
    family="qwen35", hidden=5120, layers=64, mtp=1, heads=24, kept=4, head=256, feed_forward=17408, vocabulary=248320,
    context=262144, state=128, value_heads=48, groups=16, quantized=Q4_K,
)  # fmt: skip
DEEPSEEK_V3 = Shape(
    family="deepseek2", hidden=7168, layers=61, mtp=1, heads=128, kept=1, head=0, plain=128, rotated=64, value_head=128,
    query_rank=1536, latent=512, feed_forward=18432, expert=2048, shared_expert=2048, experts=256, used=8,
    dense_first=3, vocabulary=129280, context=163840, quantized=Quantized("Q8_0", experts="Q4_K"),
)  # fmt: skip

REAL: Mapping[str, Shape] = {
    "Llama-3.3-70B-Q4_K": Shape(
        family="llama", hidden=8192, layers=80, heads=64, kept=8, head=128, feed_forward=28672, vocabulary=128256,
        context=131072, quantized=Q4_K,
    ),
    "Qwen3-32B-Q4_K": Shape(
        family="qwen3", hidden=5120, layers=64, heads=64, kept=8, head=128, feed_forward=25600, vocabulary=151936,
        context=40960, quantized=Q4_K,
    ),
    "Qwen3-235B-A22B-Q4_K": Shape(
        family="qwen3moe", hidden=4096, layers=94, heads=64, kept=4, head=128, feed_forward=12288, expert=1536,
        experts=128, used=8, vocabulary=151936, context=40960, quantized=Quantized("Q8_0", experts="Q4_K"),
    ),
    "gpt-oss-120b": Shape(
        family="gpt-oss", hidden=2880, layers=36, heads=64, kept=8, head=64, expert=2880, experts=128, used=4,
        vocabulary=201088, context=131072, window=128, quantized=MXFP4,
    ),
    "gpt-oss-20b": Shape(
        family="gpt-oss", hidden=2880, layers=24, heads=64, kept=8, head=64, expert=2880, experts=32, used=4,
        vocabulary=201088, context=131072, window=128, quantized=MXFP4,
    ),
    "gemma-3-27b-Q4_K": Shape(
        family="gemma3", hidden=5376, layers=62, heads=32, kept=16, head=128, feed_forward=21504, vocabulary=262208,
        context=131072, window=1024, tied=True, quantized=Quantized("Q4_K", embedding="Q6_K"),
    ),
    "GLM-4.5-Air-Q4_K": Shape(
        family="glm4moe", hidden=4096, layers=46, mtp=1, heads=96, kept=8, head=128, feed_forward=10944, expert=1408,
        shared_expert=1408, experts=128, used=8, dense_first=1, vocabulary=151552, context=131072,
        quantized=Quantized("Q8_0", experts="Q4_K"),
    ),
    "DeepSeek-V3-Q4_K": DEEPSEEK_V3,
    "DeepSeek-V3.2-Q4_K": Shape(
        family="deepseek32", hidden=7168, layers=61, heads=128, kept=1, head=0, plain=128, rotated=64, value_head=128,
        query_rank=1536, latent=512, feed_forward=18432, expert=2048, shared_expert=2048, experts=256, used=8,
        dense_first=3, index_heads=64, index_head=128, vocabulary=129280, context=163840,
        quantized=Quantized("Q8_0", experts="Q4_K"),
    ),
    "Qwen3.6-27B-Q4_K": QWEN_27B,
    "Qwen3.6-27B-IQ2": replace(QWEN_27B, quantized=Quantized("IQ2_XXS", embedding="Q4_K", output="Q6_K")),
    "Qwen3.6-35B-A3B-Q4_K": Shape(
        family="qwen35", hidden=2048, layers=40, mtp=1, heads=16, kept=2, head=256, vocabulary=248320, context=262144,
        state=128, value_heads=32, groups=16, experts=256, used=8, expert=512, shared_expert=512,
        quantized=Quantized("Q8_0", experts="Q4_K", output="Q6_K"),
    ),
    "granite-4.0-h-micro-Q8_0": Shape(
        family="granitehybrid", hidden=2048, layers=40, heads=32, kept=8, head=64, feed_forward=8192, vocabulary=100352,
        context=131072, state=128, value_heads=32, groups=1, attending=(5, 15, 25, 35), tied=True,
        quantized=Quantized("Q8_0"),
    ),
    "DeepSeek-V4-Flash": Shape(
        family="deepseek4", hidden=4096, layers=43, heads=64, kept=1, head=512, query_rank=1024, index_heads=64,
        index_head=128, expert=2048, shared_expert=2048, experts=256, used=6, vocabulary=129280, context=1048576,
        window=128, ratios=(0, 0, *(4, 128) * 20, 4, 0), quantized=MXFP4,
    ),
}  # fmt: skip
TINY_VOCABULARY = 49152
"""Of the bundled model, whose vocabulary they get."""
Q8_0 = Quantized("Q8_0")
_TINY_LATENT = Shape(
    family="deepseek2", hidden=256, layers=4, mtp=1, heads=8, kept=1, head=0, plain=64, rotated=32, value_head=64,
    query_rank=64, latent=128, feed_forward=512, expert=256, shared_expert=256, experts=8, used=2, dense_first=1,
    vocabulary=TINY_VOCABULARY, context=131072, quantized=Q8_0,
)  # fmt: skip
_TINY_WINDOWS = Shape(
    family="gemma3", hidden=256, layers=8, heads=4, kept=2, head=64, feed_forward=512, vocabulary=TINY_VOCABULARY,
    context=131072, window=512, tied=True, quantized=Q8_0,
)  # fmt: skip
_TINY_DELTA = Shape(
    family="qwen35", hidden=256, layers=8, mtp=1, heads=4, kept=2, head=64, vocabulary=TINY_VOCABULARY, context=131072,
    state=64, value_heads=8, groups=4, experts=8, used=2, expert=256, shared_expert=256, quantized=Q8_0,
)  # fmt: skip
TINY: Mapping[str, Shape] = {
    "gemma2": replace(_TINY_WINDOWS, family="gemma2"),
    "gemma3": _TINY_WINDOWS,
    "gemma4": replace(_TINY_WINDOWS, family="gemma4"),
    "cohere2": replace(_TINY_WINDOWS, family="cohere2"),
    "llama4": Shape(
        family="llama4", hidden=256, layers=8, heads=4, kept=2, head=64, feed_forward=512, expert=256,
        shared_expert=256, experts=8, used=1, vocabulary=TINY_VOCABULARY, context=131072, quantized=Q8_0,
    ),
    "qwen3next": replace(_TINY_DELTA, family="qwen3next", mtp=0),
    "falcon-h1": Shape(
        family="falcon-h1", hidden=256, layers=4, heads=4, kept=2, head=64, feed_forward=512,
        vocabulary=TINY_VOCABULARY, context=131072, state=64, value_heads=8, groups=1, quantized=Q8_0,
    ),
    "kimi-linear": replace(
        _TINY_LATENT, family="kimi-linear", query_rank=0, layers=8, mtp=0, state=64, attending=(3, 7)
    ),
    "llama": Shape(
        family="llama", hidden=256, layers=4, heads=8, kept=2, head=32, feed_forward=512, vocabulary=TINY_VOCABULARY,
        context=131072, quantized=Quantized("F16"),
    ),
    "qwen3moe": Shape(
        family="qwen3moe", hidden=256, layers=4, heads=8, kept=2, head=64, feed_forward=512, expert=256, experts=8,
        used=2, vocabulary=TINY_VOCABULARY, context=131072, quantized=Q8_0,
    ),
    "gpt-oss": Shape(
        family="gpt-oss", hidden=256, layers=6, heads=8, kept=2, head=64, expert=256, experts=8, used=2,
        vocabulary=TINY_VOCABULARY, context=131072, window=128, quantized=Q8_0,
    ),
    "glm4moe": Shape(
        family="glm4moe", hidden=256, layers=4, mtp=1, heads=8, kept=2, head=64, feed_forward=512, expert=256,
        shared_expert=256, experts=8, used=2, dense_first=1, vocabulary=TINY_VOCABULARY, context=131072, quantized=Q8_0,
    ),
    "deepseek2": _TINY_LATENT,
    "glm-dsa": replace(_TINY_LATENT, family="glm-dsa", mtp=0, rotated=64, index_heads=8, index_head=128),
    "deepseek32": Shape(
        family="deepseek32", hidden=256, layers=4, heads=8, kept=1, head=0, plain=64, rotated=64, value_head=64,
        query_rank=64, latent=128, feed_forward=512, expert=256, shared_expert=256, experts=8, used=2, dense_first=1,
        index_heads=8, index_head=128, vocabulary=TINY_VOCABULARY, context=131072, quantized=Q8_0,
    ),
    "qwen35": Shape(
        family="qwen35", hidden=256, layers=8, mtp=1, heads=4, kept=2, head=64, feed_forward=512,
        vocabulary=TINY_VOCABULARY, context=131072, state=64, value_heads=8, groups=4, quantized=Q8_0,
    ),
    "qwen35moe": _TINY_DELTA,
    "granitehybrid": Shape(
        family="granitehybrid", hidden=256, layers=6, heads=4, kept=2, head=64, feed_forward=512,
        vocabulary=TINY_VOCABULARY, context=131072, state=64, value_heads=8, groups=1, attending=(2, 5), quantized=Q8_0,
    ),
    "nemotron_h": Shape(
        family="nemotron_h", hidden=256, layers=9, heads=4, kept=2, head=64, feed_forward=512,
        vocabulary=TINY_VOCABULARY, context=131072, state=64, value_heads=8, groups=1, attending=(4,), quantized=Q8_0,
    ),
    "lfm2": Shape(
        family="lfm2", hidden=256, layers=6, heads=4, kept=2, head=64, feed_forward=512, vocabulary=TINY_VOCABULARY,
        context=131072, attending=(2, 5), tied=True, quantized=Q8_0,
    ),
    "mamba2": Shape(
        family="mamba2", hidden=256, layers=4, heads=0, kept=0, head=0, vocabulary=TINY_VOCABULARY, context=131072,
        state=64, value_heads=8, groups=1, tied=True, quantized=Q8_0,
    ),
    "deepseek4": Shape(
        family="deepseek4", hidden=256, layers=8, heads=8, kept=1, head=128, query_rank=64, index_heads=8,
        index_head=64, expert=256, shared_expert=256, experts=8, used=2, vocabulary=TINY_VOCABULARY, context=131072,
        window=128, ratios=(0, 0, 4, 128, 4, 128, 4, 0), quantized=Q8_0,
    ),
}  # fmt: skip
