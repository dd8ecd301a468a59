"""Ray's own LLM deployments (``ray.serve.llm``), which have vLLM in the replica's process, routed by Paceline."""

from collections.abc import AsyncIterator, Callable
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter
from typing import Any

import msgspec
from ray.serve.llm import LLMConfig
from ray.serve.llm.deployment import LLMServer

from paceline.engines.usage import question
from paceline.engines.vllm import Vllm
from paceline.integrations.ray_serve.replica import Lanes, PacelineReplica, Serving, device_name, hashed, machine_class
from paceline.integrations.replicas.notes import Offer, OfferedLane, request_of
from paceline.types import Abilities, Drafter, Strategy

KINDS = {"draft_model": "draft", "ngram": "ngram", "eagle3": "eagle3", "mtp": "mtp", "dflash": "dflash"}
"""Kinds of drafters by vLLM's names for its methods; any other keeps its name."""
SCHEDULER = "paceline.inside.vllm_scheduler"
"""The module of the scheduler that takes its strategy from each request."""
BAD_REQUEST = 400


class PacelineLLMServer(PacelineReplica, LLMServer):
    """To be named as the ``server_cls`` of an ``LLMConfig``, with Paceline's router in its ``deployment_config``.

    A replica has one lane, the one that vLLM was started with; or, where its ``engine_kwargs`` name Paceline's
    scheduler, one for plain decoding and one for its drafter.
    """

    async def __init__(self, llm_config: LLMConfig, **more: Any) -> None:  # type: ignore[misc] # Ray awaits it
        offer = offer_of(llm_config)
        self.paceline = Lanes(lambda: offer)
        self._abilities = abilities(llm_config)
        self._driver = Vllm()
        await LLMServer.__init__(self, llm_config, **more)

    async def record_routing_stats(self) -> dict[str, Any]:
        """Called by Ray Serve now and then."""
        return {**await LLMServer.record_routing_stats(self), **self.paceline.offer().told()}

    async def chat(self, request: Any, raw_request_info: Any = None) -> AsyncIterator[Any]:
        """As Ray's; decoded as was chosen for the request."""
        return self._paced(super().chat, request, raw_request_info)

    async def completions(self, request: Any, raw_request_info: Any = None) -> AsyncIterator[Any]:
        """As Ray's; decoded as was chosen for the request."""
        return self._paced(super().completions, request, raw_request_info)

    async def _paced(self, ask: Callable[..., Any], body: Any, raw_request_info: Any) -> AsyncIterator[Any]:
        with self.paceline.serving(body) as serving:
            request = request_of(serving.fields)
            asked = self._driver.fields(request, serving.strategy, self._abilities, serving.control) | question(request)
            observer = self._driver.observe(request, serving.strategy)
            observer.is_stream = request.stream
            begun_s = perf_counter()
            prepared = type(body).model_validate({**serving.fields, **asked})
            async for part in await ask(prepared, raw_request_info):
                at_s = perf_counter() - begun_s
                if serving.first_byte_s is None:
                    serving.first_byte_s = at_s
                if isinstance(part, str | list):
                    shown = observer.feed("".join(part).encode(), at_s).decode()
                    if shown:
                        yield [shown] if isinstance(part, list) else shown
                    continue
                _note_whole(serving, observer, part, at_s)
                yield part
            if observer.is_stream and (left := observer.end(perf_counter() - begun_s)):
                yield left.decode()
            if observer.error is not None:
                serving.error = "an error inside the answer"
            serving.observed, serving.answered = observer.observation(), observer.answered()


def _note_whole(serving: Serving, observer: Any, part: Any, at_s: float) -> None:
    """Of an answer that is one object: a whole one, or an error."""
    error = getattr(part, "error", None)
    if error is not None:
        code = getattr(error, "code", BAD_REQUEST)
        serving.status = code if isinstance(code, int) else BAD_REQUEST
        serving.error = f"answered {serving.status}"
    else:
        observer.feed(part.model_dump_json().encode(), at_s)


def abilities(config: LLMConfig) -> Abilities:
    """What requests can choose: nothing, but with Paceline's scheduler."""
    strategy = as_started(config)
    scheduler = config.engine_kwargs.get("scheduler_cls")
    name = scheduler if isinstance(scheduler, str) else getattr(scheduler, "__module__", "")
    if not strategy.drafts or not name.startswith(SCHEDULER):
        return Abilities()
    return Abilities((Drafter(strategy.kind, strategy.kind, strategy.n_max),), controls_drafts=True)


def as_started(config: LLMConfig) -> Strategy:
    """What vLLM does with a request that says nothing."""
    drafting = config.engine_kwargs.get("speculative_config") or {}
    if not drafting:
        return Strategy()
    method = str(drafting.get("method") or "draft_model")
    return Strategy(KINDS.get(method, method), drafting.get("num_speculative_tokens"))


def offer_of(config: LLMConfig) -> Offer:
    """What a replica with this configuration offers. Replicas with the same, the same vLLM and the same kind of
    accelerator are learned of together."""
    strategies = abilities(config).strategies() or [as_started(config)]
    machine = machine_class()
    about = msgspec.json.encode(config.engine_kwargs, enc_hook=str).decode()
    return Offer(
        engine=config.model_id.replace("/", "-"),
        fingerprint=hashed(config.model_id, about, machine, _vllm()),
        model=hashed(config.model_id, machine),
        device=device_name(None),
        lanes=tuple(OfferedLane(strategy.name, strategy) for strategy in strategies),
        slots=config.engine_kwargs.get("max_num_seqs"),
    )


def _vllm() -> str:
    try:
        return version("vllm")
    except PackageNotFoundError:
        return ""
