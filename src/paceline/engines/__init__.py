"""One driver per file: what ``interface.py`` asks of a kind of engine, with the kind's own settings.

``ENGINES`` is written by hand, a line for each kind, and not found by looking through the package: most files here are
no drivers, the order is that of the documentation, and the type checker holds each driver to the interface.
CONTRIBUTING tells how to add one.
"""

from collections.abc import Mapping

from paceline.engines.anthropic_api import AnthropicApi
from paceline.engines.ik_llama_cpp import IkLlamaCpp
from paceline.engines.imp import Imp
from paceline.engines.interface import AnyEngine, Engine, Facts, LaunchError, NotReady
from paceline.engines.llama_cpp import LlamaCpp
from paceline.engines.lm_studio import LmStudio
from paceline.engines.mlx_lm import MlxLm
from paceline.engines.mlx_serve import MlxServe
from paceline.engines.mtplx import Mtplx
from paceline.engines.observation import Observer
from paceline.engines.ollama import Ollama
from paceline.engines.openai import OpenAI
from paceline.engines.openai_api import OpenAIApi
from paceline.engines.sglang import Sglang
from paceline.engines.tabby_api import TabbyApi
from paceline.engines.vllm import Vllm

_DRIVERS: tuple[AnyEngine, ...] = (
    LlamaCpp(),
    IkLlamaCpp(),
    Vllm(),
    Sglang(),
    LmStudio(),
    MlxLm(),
    MlxServe(),
    Mtplx(),
    Imp(),
    Ollama(),
    TabbyApi(),
    OpenAI(),
    OpenAIApi(),
    AnthropicApi(),
)
ENGINES: Mapping[str, AnyEngine] = {str(driver.settings_type.__struct_config__.tag): driver for driver in _DRIVERS}
"""By kind."""

__all__ = ["ENGINES", "AnyEngine", "Engine", "Facts", "LaunchError", "NotReady", "Observer"]
