"""One server, and two gateways before it: one that uses the server's draft control, and one that does not."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.gateways import NGRAM_MATCH, gateway
from benchmarks.llama_server import LlamaServer
from benchmarks.real_size.measure import PLAIN, ROUTED, ROUTED_WITH_CONTROL, Way
from benchmarks.real_size.tasks import LONGEST

CAPS = (1, 2, 4, LONGEST)
CAPS_OF_TWO = (2, 4, 8)
"""Each of two drafters has them; a lookup's drafts are worth more tokens."""
SLOT_TOKENS = 3072
CONTROLLED = "always on, controlled"


@contextmanager
def serving(
    program: str, model: Path, flags: Sequence[str], folder: Path, slots: int, has_lookup: bool
) -> Iterator[list[Way]]:
    """Ways to have a request served, until the block ends.

    Args:
        flags: more of the server's.
        slots: requests it decodes at once.
        has_lookup: whether one is loaded beside the MTP layer.
    """
    drafters, caps = ("mtp", "ngram") if has_lookup else ("mtp",), CAPS_OF_TWO if has_lookup else CAPS
    longest = str(max(caps))
    drafting = ["--spec-type", "draft-mtp", "--spec-draft-n-max", longest]
    if has_lookup:
        drafting[1] += ",ngram-simple"
        drafting += ["--spec-ngram-simple-size-n", NGRAM_MATCH, "--spec-ngram-simple-size-m", longest]
    # Requests bring their own acceptance; a server has to be started with one to take it.
    dice = ("--spec-synth-rates", ",".join(["0.5"] * max(caps)))
    room = ("--parallel", str(slots), "--ctx-size", str(SLOT_TOKENS * slots))
    server = LlamaServer(program, model, *room, *drafting, *dice, *flags, start_timeout_s=300)
    try:
        url = str(server.http.base_url).rstrip("/")
        with (
            gateway(_engine(url, caps, controls=False), folder) as without,
            gateway(_engine(url, caps, controls=True), folder) as controlling,
        ):
            yield [
                Way(PLAIN, without.url, "llama/plain"),
                *(Way(f"{kind}-{cap}", without.url, f"llama/{kind}-{cap}") for kind in drafters for cap in caps),
                Way(CONTROLLED, controlling.url, "llama/all" if has_lookup else "llama/mtp"),
                Way(ROUTED, without.url),
                Way(ROUTED_WITH_CONTROL, controlling.url),
            ]
    finally:
        server.stop()


def _engine(url: str, caps: Sequence[int], controls: bool) -> str:
    return (
        f'[[engine]]\nname = "llama"\nkind = "llama.cpp"\nurl = {json.dumps(url)}\nstrategy = "mtp"\n'
        f"n_max = {max(caps)}\ncaps = {list(caps)}\ndraft_control = {json.dumps(controls)}\n"
    )
