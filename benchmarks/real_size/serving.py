"""One server, and two gateways before it: one that uses the server's draft control, and one that does not."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

from benchmarks.gateways import gateway
from benchmarks.llama_server import LlamaServer
from benchmarks.real_size.measure import PLAIN, ROUTED, ROUTED_WITH_CONTROL, Way
from benchmarks.real_size.tasks import LONGEST
from paceline.engines.llama_cpp_flags import LoadedDrafter, drafting_flags
from paceline.types import ALL, Strategy

CAPS = (1, 2, 4, LONGEST)
CAPS_OF_TWO = (2, 4, 8)
"""Each of two drafters has them; a lookup's drafts are worth more tokens."""
SLOT_TOKENS = 3072
CONTROLLED = "always on, controlled"


@contextmanager
def serving(
    program: str, model: Path, drafters: Sequence[LoadedDrafter], flags: Sequence[str], folder: Path, slots: int
) -> Iterator[list[Way]]:
    """Ways to have a request served, until the block ends.

    Args:
        drafters: one whose drafts are accepted by dice, and perhaps a lookup after it; how far they draft is set here.
        flags: more of the server's.
        slots: requests it decodes at once.
    """
    caps = CAPS if len(drafters) == 1 else CAPS_OF_TWO
    kinds = [drafter.strategy.kind for drafter in drafters]
    loaded = [replace(drafter, strategy=Strategy(drafter.strategy.kind, max(caps))) for drafter in drafters]
    drafting = drafting_flags(loaded)
    # Requests bring their own acceptance; a server has to be started with one to take it.
    synthetic = ("--spec-synth-rates", ",".join(["0.5"] * max(caps)))
    room = ("--parallel", str(slots), "--ctx-size", str(SLOT_TOKENS * slots))
    server = LlamaServer(program, model, *room, *drafting, *synthetic, *flags, start_timeout_s=300)
    first, dice = kinds[0], drafting[1].split(",")[0]
    try:
        url = str(server.http.base_url).rstrip("/")
        with (
            gateway(_engine(url, first, caps, controls=False), folder) as without,
            gateway(_engine(url, first, caps, controls=True), folder) as controlling,
        ):
            yield [
                Way(PLAIN, without.url, dice, "llama/plain"),
                *(Way(f"{kind}-{cap}", without.url, dice, f"llama/{kind}-{cap}") for kind in kinds for cap in caps),
                Way(CONTROLLED, controlling.url, dice, f"llama/{ALL if len(kinds) > 1 else first}"),
                Way(ROUTED, without.url, dice),
                Way(ROUTED_WITH_CONTROL, controlling.url, dice),
            ]
    finally:
        server.stop()


def _engine(url: str, kind: str, caps: Sequence[int], controls: bool) -> str:
    return (
        f'[[engine]]\nname = "llama"\nkind = "llama.cpp"\nurl = {json.dumps(url)}\nstrategy = {json.dumps(kind)}\n'
        f"n_max = {max(caps)}\ncaps = {list(caps)}\ndraft_control = {json.dumps(controls)}\n"
    )
