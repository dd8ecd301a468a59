"""Prepares a folder that a bare machine with a GPU needs, beside the server that ``build.sh`` makes:

    python -m benchmarks.real_size.gpu.prepare FOLDER [--shapes 27b-q4 35b-a3b-q4]
    bash benchmarks/real_size/gpu/build.sh FOLDER

The folder then has some 50 MB: the compressed head of each model, where its tensors belong, the compressed server, and
the measuring program. There, ``python3 FOLDER/on_the_gpu.pyz --out OUT`` needs Python 3.11 or later with NumPy, cuBLAS
and CUDA's runtime 13 (PyTorch brings them), the driver, and memory for the larger model (20 GiB). No network.
"""

import argparse
import json
import lzma
import shutil
import tempfile
import zipapp
from collections.abc import Sequence
from pathlib import Path

import benchmarks
from benchmarks.real_size.random_model import hollow
from benchmarks.real_size.shapes import SHAPES
from paceline.engines.bundled_model import bundled_model
from paceline.paths import cache_directory

REAL = ("27b-q4", "35b-a3b-q4")
PROGRAM = "on_the_gpu.pyz"
MODULES = (
    "__init__.py",
    "real_size/__init__.py",
    "real_size/filling.py",
    "real_size/gpu/__init__.py",
    "real_size/gpu/samples.py",
    "real_size/gpu/server.py",
    "real_size/gpu/on_the_gpu.py",
)
"""What the program is made of."""


def prepare(folder: Path, shapes: Sequence[str]) -> None:
    """Write everything but the server."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for shape in shapes:
            model = hollow(SHAPES[shape], bundled_model(cache_directory()), scratch)
            (folder / f"{shape}.head.xz").write_bytes(lzma.compress(model.head))
            (folder / f"{shape}.json").write_text(json.dumps(model.places))
            print(
                f"{shape}: {model.size_bytes / 2**30:.1f} GiB, of which {len(model.head) / 2**20:.1f} MiB are its head"
            )
        package = scratch / "program"
        for module in MODULES:
            target = package / "benchmarks" / module
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(benchmarks.__path__[0]) / module, target)
        zipapp.create_archive(package, folder / PROGRAM, main="benchmarks.real_size.gpu.on_the_gpu:main")
    size_bytes = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder}: {size_bytes / 2**20:.1f} MiB; python3 {folder / PROGRAM} --out OUT")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=REAL)
    options = parser.parse_args()
    prepare(options.folder, options.shapes)


if __name__ == "__main__":
    main()
