"""How good models' answers are: declared, then corrected by feedback."""

from random import Random

import pytest

from paceline.routing.quality import Quality
from paceline.types import Offer, Signals, Task

LOCAL, CLOUD = Offer("gpu", model="a", quality=0.6), Offer("cloud", model="b", quality_by_task={Task.CODE: 0.9})
CODE, CHAT = Signals({Task.CODE: 1.0}, application="editor"), Signals({Task.CHAT: 1.0}, application="chat")


def test_what_is_declared_holds_until_somebody_tells() -> None:
    quality = Quality()
    assert quality.of(LOCAL, CODE) == 0.6
    assert quality.of(CLOUD, CODE) == 0.9
    assert quality.of(CLOUD, CHAT) is None
    quality.learn(LOCAL, CODE, True)
    local, cloud = quality.of(LOCAL, CODE), quality.of(CLOUD, CODE)
    assert local is not None and cloud is not None
    assert 0.6 < local < 0.75 < 0.9 < cloud
    assert quality.of(CLOUD, CHAT) is None


def test_programs_are_told_apart_and_tell_of_others() -> None:
    quality, dice = Quality(), Random(1)
    for _ in range(300):
        quality.learn(LOCAL, CODE, dice.random() < 0.2)
        quality.learn(LOCAL, CHAT, dice.random() < 0.9)
    code, chat = quality.of(LOCAL, CODE), quality.of(LOCAL, CHAT)
    other = quality.of(LOCAL, Signals({Task.CODE: 1.0}, application="another"))
    assert code is not None and chat is not None and other is not None
    assert code == pytest.approx(0.2, abs=0.08)
    assert chat == pytest.approx(0.9, abs=0.08)
    assert code < other < chat


def test_a_model_that_changed_is_noticed() -> None:
    quality = Quality()
    for is_good in (True, False):
        for _ in range(2000):
            quality.learn(LOCAL, CODE, is_good)
    found = quality.of(LOCAL, CODE)
    assert found is not None
    assert found < 0.25
