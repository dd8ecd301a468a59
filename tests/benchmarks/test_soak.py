"""The soak of ``benchmarks/soak``, on stand-in engines; the benchmark itself runs it on real ones."""

import sys
from pathlib import Path

import pytest
from benchmarks.soak import soak
from tests.conftest import Serving

STAND_IN = Path(__file__).parents[1] / "stand_in_server.py"


@pytest.mark.slow
async def test_nothing_is_lost_or_left_behind(tmp_path: Path) -> None:
    """2,000 mixed requests, 64 at a time, a tenth of the clients hanging up midway, one engine killed twice."""
    file = tmp_path / "paceline.toml"
    lanes = (("plain", "autoregressive", "none"), ("ngram", "ngram", "ngram-simple"))
    file.write_text(
        "".join(
            f'[[engine]]\nname = "{name}"\nkind = "llama.cpp"\nstrategy = "{strategy}"\ndevice = "cpu"\n'
            f'launch = ["{sys.executable}", "{STAND_IN}", "--port", "{{port}}", "--spec-type", "{drafter}"]\n'
            for name, strategy, drafter in lanes
        )
    )
    with Serving("--config", str(file), folder=tmp_path) as serving:
        report = await soak(serving.url, serving.process.pid, requests=2000, at_a_time=64, kill_at=(500, 1200))
    assert report.lost == {}
    assert report.outcomes["served"] >= 1700
    assert report.outcomes["left"] == 200
    assert report.outcomes["broken"] <= 2 * 3  # no more than the streams that ran on the killed engine's slots
    assert (report.kills, report.children, report.in_flight) == (2, 2, 0)
    assert report.fds_after <= report.fds_before + 10
    assert report.rss_end_bytes < report.rss_warm_bytes + 10_000_000
