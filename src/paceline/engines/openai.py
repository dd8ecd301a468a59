"""Any server that speaks OpenAI's API. What it can do is unknown: it has one lane, measured by usage and the clock, and
its requests are sent as they came."""

from paceline.engines.openai_compatible import OpenAICompatible
from paceline.settings import LocalEngineSettings


class OpenAISettings(LocalEngineSettings, frozen=True, kw_only=True, tag="openai"):
    """A server that speaks OpenAI's API, of no kind that Paceline knows better."""


class OpenAI(OpenAICompatible[OpenAISettings]):
    settings_type = OpenAISettings
