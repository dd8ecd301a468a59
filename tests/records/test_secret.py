"""The key that conversations are named with."""

import os
from pathlib import Path

from paceline.records.secret import conversation_key


def test_a_pipe_in_the_place_of_a_key_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "conversation.key")
    assert len(conversation_key(tmp_path)) == 32
