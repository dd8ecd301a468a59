"""One server, and two gateways before it: one that uses the server's draft control, and one that does not."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.gateways import gateway
from benchmarks.llama_server import LlamaServer
from benchmarks.real_size.measure import PLAIN, ROUTED, ROUTED_WITH_CONTROL, Way
from benchmarks.real_size.tasks import LONGEST

CAPS = (1, 2, 4, LONGEST)
CONTROLLED = "always on, controlled"


@contextmanager
def serving(program: str, model: Path, flags: Sequence[str], folder: Path, slots: int) -> Iterator[list[Way]]:
    """Ways to have a request served, until the block ends.

    Args:
        flags: more of the server's.
        slots: requests it decodes at once.
    """
    drafting = ("--spec-type", "draft-mtp", "--spec-draft-n-max", str(LONGEST))
    # Requests bring their own acceptance; a server has to be started with one to take it.
    dice = ("--spec-synth-rates", ",".join(["0.5"] * LONGEST))
    room = ("--parallel", str(slots), "--ctx-size", str(2048 * slots))
    server = LlamaServer(program, model, *room, *drafting, *dice, *flags, start_timeout_s=300)
    try:
        url = str(server.http.base_url).rstrip("/")
        with (
            gateway(_engine(url, controls=False), folder) as without,
            gateway(_engine(url, controls=True), folder) as controlling,
        ):
            yield [
                Way(PLAIN, without.url, "llama/plain"),
                *(Way(f"mtp-{cap}", without.url, f"llama/mtp-{cap}") for cap in CAPS),
                Way(CONTROLLED, controlling.url, "llama/mtp"),
                Way(ROUTED, without.url),
                Way(ROUTED_WITH_CONTROL, controlling.url),
            ]
    finally:
        server.stop()


def _engine(url: str, controls: bool) -> str:
    return (
        f'[[engine]]\nname = "llama"\nkind = "llama.cpp"\nurl = {json.dumps(url)}\nstrategy = "mtp"\n'
        f"n_max = {LONGEST}\ncaps = {list(CAPS)}\ndraft_control = {json.dumps(controls)}\n"
    )
