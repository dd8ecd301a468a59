"""What a request tells :mod:`paceline.inside.vllm_scheduler`, under ``vllm_xargs``. Loads nothing, so that the gateway
can read it where there is no vLLM."""

N_MAX = "paceline_n_max"
"""Most drafted tokens that are verified per step; 0 for plain decoding."""
MIN_YIELD = "paceline_min_yield"
"""Tokens per verification step below which drafting pauses."""
CONTROL = "paceline_control"
"""What control of the drafts starts from, as JSON in a text: an object with the drafter's ``costs``, ``acceptance`` and
``weight``, as :class:`paceline.inside.draft_control.Drafter` has them. ``paceline_min_yield`` is then passed over."""
