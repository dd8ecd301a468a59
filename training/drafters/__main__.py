"""Make the drafters of the bundled model, and the model with an MTP layer.

    python -m training.drafters FOLDER [--fit N]

``draft.gguf`` is the model's first layers, ``eagle3.gguf`` a head with random weights: they draft, and hardly
anything is accepted. ``mtp.gguf`` has the model's own weights and an MTP layer, which is random too, or with ``--fit``
fitted on N answers of the model (minutes; needs ``paceline engine build``).
"""

import argparse
from pathlib import Path
from typing import Any

from paceline.engines.bundled_model import bundled_model
from paceline.engines.llama_cpp_build import usable
from paceline.paths import cache_directory
from training.drafters.gguf_file import ModelFile
from training.drafters.models import draft_model, eagle3_head, model_with_mtp


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fit", type=int, metavar="N")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    path = bundled_model(cache_directory())
    weights: Any = None
    if options.fit:
        from training.drafters.fit import projection

        built = usable(cache_directory())
        if built is None:
            raise SystemExit("nothing is built; run `paceline engine build`")
        weights, share = projection(built.server, path, options.fit)
        print(f"the MTP layer predicts {share:.0%} of the tokens of answers that it was not fitted on")
    target = ModelFile(path)
    draft_model(target, options.folder / "draft.gguf")
    eagle3_head(target, options.folder / "eagle3.gguf")
    model_with_mtp(target, options.folder / "mtp.gguf", weights)


if __name__ == "__main__":
    main()
