"""What somebody who embeds the gateway can rely on of its messages."""

import re
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "paceline"


def test_loggers_are_named_after_their_rooms() -> None:
    for module in SOURCE.rglob("*.py"):
        room = module.relative_to(SOURCE).parts[0]
        for name in re.findall(r"getLogger\(\"(paceline[\w.]*)\"\)", module.read_text()):
            assert name == f"paceline.{room}", module
