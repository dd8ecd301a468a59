"""What a replica makes of a decision."""

import pytest

from paceline import Strategy
from paceline.integrations.ray_serve.replica import Serving
from paceline.integrations.replicas.notes import Choice, Offer, OfferedLane, with_note

PLAIN, NGRAM = (OfferedLane(one.name, one) for one in (Strategy(), Strategy("ngram", 8)))


@pytest.mark.parametrize("name", ["decoder", "decoder-3f2a91", "Qwen/Qwen3-8B", "a/b/c"])
def test_a_decision_holds_whatever_the_replicas_are_called(name: str) -> None:
    offer = Offer(engine=name, fingerprint="print", model="model", device="device", lanes=(PLAIN, NGRAM))
    choice = Choice("shared", "router", 1, {"print": f"{name}/ngram-8"}, "print", "since it is faster")
    serving = Serving(with_note({"messages": []}, choice), offer)
    assert serving.strategy == NGRAM.strategy and serving.lane_name == f"{name}/ngram-8"
