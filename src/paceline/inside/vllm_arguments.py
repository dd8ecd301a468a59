"""What a request tells :mod:`paceline.inside.vllm_scheduler`, under ``vllm_xargs``. Loads nothing, so that the gateway
can read it where there is no vLLM."""

N_MAX = "paceline_n_max"
"""Most drafted tokens that are verified per step; 0 for plain decoding."""
MIN_YIELD = "paceline_min_yield"
"""Tokens per verification step below which drafting pauses."""
