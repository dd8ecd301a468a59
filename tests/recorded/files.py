"""The recorded log, and what is expected of it."""

import gzip
import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent
_LOG = _FOLDER / "requests.sqlite.gz"
_EXPECTED = _FOLDER / "expected.json.gz"


def unpacked_log(folder: Path) -> Path:
    """The log as a file in ``folder``."""
    path = folder / "requests.sqlite"
    path.write_bytes(gzip.decompress(_LOG.read_bytes()))
    return path


def expected() -> Any:
    return json.loads(gzip.decompress(_EXPECTED.read_bytes()))


def expect(behaviour: Any) -> None:
    """Write what is expected from now on. The same behaviour makes the same file."""
    text = json.dumps(behaviour, indent=1)
    _EXPECTED.write_bytes(gzip.compress(text.encode(), mtime=0))
