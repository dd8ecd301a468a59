"""One module per engine.

To add an engine: copy ``openai.py``, answer what ``interface.py`` asks, name the class here, and add its kind to
``EngineKind`` in ``paceline/configuration.py``, a row in docs/engines.md and a test file.
"""

from collections.abc import Mapping

from paceline.engines.interface import Engine, Facts, LaunchError, NotReady
from paceline.engines.llama_cpp import LlamaCpp
from paceline.engines.lm_studio import LmStudio
from paceline.engines.mlx_lm import MlxLm
from paceline.engines.observation import Observer
from paceline.engines.ollama import Ollama
from paceline.engines.openai import OpenAI
from paceline.engines.sglang import Sglang
from paceline.engines.tabby_api import TabbyApi
from paceline.engines.vllm import Vllm

ENGINES: Mapping[str, Engine] = {
    "llama.cpp": LlamaCpp(),
    "vllm": Vllm(),
    "sglang": Sglang(),
    "lmstudio": LmStudio(),
    "mlx-lm": MlxLm(),
    "ollama": Ollama(),
    "tabbyapi": TabbyApi(),
    "openai": OpenAI(),
}

__all__ = ["ENGINES", "Engine", "Facts", "LaunchError", "NotReady", "Observer"]
