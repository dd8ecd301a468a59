"""Draft lengths per request for vLLM, without changing it:

    vllm serve MODEL --scheduler-cls paceline.inside.vllm_scheduler.scheduler --speculative-config ...

A request that has ``"vllm_xargs": {"paceline_n_max": 4}`` gets no more than four drafted tokens verified per step, with
0 none; ``"paceline_min_yield": 1.8`` pauses drafting while a verification step yields fewer tokens; and with
``paceline_control`` each step has as many verified as ``draft_control.py`` says. Without them all is as vLLM has it.
Runs inside vLLM's engine process, so Paceline has to be installed beside vLLM.

What is cut is not verified, but vLLM's workers have drafted it all the same. Where the drafts are known before a step
is scheduled, those that were cut are compared with what then is generated, so that control learns of them while it
pauses; where steps are scheduled ahead, it decides a step behind, and tries again now and then.
"""

import json
import logging
from typing import Any

import vllm
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from paceline.inside.request_control import RequestControl
from paceline.inside.vllm_arguments import CONTROL, MIN_YIELD, N_MAX
from paceline.inside.yield_guard import YieldGuard

SUPPORTED = ("0.32.",)
"""Versions of vLLM that this was tried on; what it overrides is not public there, and changes."""

log = logging.getLogger("vllm.paceline")


def scheduler(vllm_config: Any, *arguments: Any, **more: Any) -> Scheduler:
    """The scheduler for a configuration: vLLM schedules ahead of the answers with some drafters, and not with others.

    Raises:
        RuntimeError: this vLLM is not one of the supported ones.
    """
    if not vllm.__version__.startswith(SUPPORTED):
        raise RuntimeError(
            f"paceline's scheduler was made for vLLM {', '.join(version + 'x' for version in SUPPORTED)}, but this is "
            f"{vllm.__version__}; leave out --scheduler-cls, and Paceline uses the engine as it was started"
        )
    is_ahead = vllm_config.scheduler_config.async_scheduling
    kind: type[Scheduler] = PerRequestAsyncScheduler if is_ahead else PerRequestScheduler
    return kind(vllm_config, *arguments, **more)


class _PerRequest:
    """What both schedulers share: each request's limit, and its guard or control. Comes before vLLM's class."""

    requests: dict[str, Any]
    """vLLM's, by id."""
    vllm_config: Any
    knows_drafts: bool
    """Before a step is scheduled."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._guards: dict[str, YieldGuard | RequestControl | None] = {}
        speculative = self.vllm_config.speculative_config
        self._longest: int = speculative.num_speculative_tokens if speculative else 0

    def draft_limit(self, request_id: str, offered: int) -> int | None:
        """Drafted tokens that the request may have verified in its next step, of so many; ``None`` for as many as vLLM
        likes."""
        request = self.requests.get(request_id)
        if request is None:
            return None
        n_max, guard = _argument(request, N_MAX), self._guard(request)
        limit = int(n_max) if n_max is not None and n_max >= 0 else None
        if guard is None:
            return limit
        longest = self._longest if limit is None else min(limit, self._longest)
        return guard.limit(min(offered, longest) if isinstance(guard, RequestControl) else longest)

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        sampled = model_runner_output.sampled_token_ids
        for request_id in scheduler_output.num_scheduled_tokens:
            request = self.requests.get(request_id)
            guard = self._guard(request) if request else None
            if guard is None or not sampled:
                continue
            tokens = sampled[model_runner_output.req_id_to_index[request_id]]
            drafted = scheduler_output.scheduled_spec_decode_tokens.get(request_id) or ()
            if isinstance(guard, RequestControl):
                if tokens:
                    guard.generated(tokens, len(drafted))
            elif drafted:
                guard.drafted(len(tokens))
            else:
                guard.decoded(len(tokens))
        return super().update_from_output(scheduler_output, model_runner_output)  # type: ignore[misc]

    def _guard(self, request: Any) -> YieldGuard | RequestControl | None:
        if request.request_id not in self._guards:
            guard = self._new_guard(request)
            if guard is None:
                return None
            self._guards = {name: other for name, other in self._guards.items() if name in self.requests}
            self._guards[request.request_id] = guard
        return self._guards[request.request_id]

    def _new_guard(self, request: Any) -> YieldGuard | RequestControl | None:
        if (given := _extra(request).get(CONTROL)) is not None:
            try:
                return RequestControl(json.loads(given), self._longest, self.knows_drafts)
            except (TypeError, ValueError, RecursionError) as error:
                log.warning("request %s: %s makes no sense: %s", request.request_id, CONTROL, error)
        min_yield = _argument(request, MIN_YIELD)
        return YieldGuard(min_yield) if min_yield else None


class PerRequestScheduler(_PerRequest, Scheduler):
    """Where the drafts are known before the step is scheduled: they are cut."""

    knows_drafts = True

    def update_draft_token_ids(self, draft_token_ids: Any) -> None:
        drafts = draft_token_ids.draft_token_ids
        for number, request_id in enumerate(draft_token_ids.req_ids):
            draft = drafts[number]
            limit = self.draft_limit(request_id, len(draft))
            if limit is None:
                continue
            drafts[number] = draft[:limit]
            guard = self._guards.get(request_id)
            if isinstance(guard, RequestControl) and len(draft) and not limit:
                guard.cut(draft)
        super().update_draft_token_ids(draft_token_ids)


class PerRequestAsyncScheduler(_PerRequest, AsyncScheduler):
    """Where steps are scheduled ahead with placeholders for their drafts: there are fewer placeholders."""

    knows_drafts = False

    def _update_after_schedule(self, scheduler_output: Any) -> None:
        super()._update_after_schedule(scheduler_output)
        for request_id in scheduler_output.num_scheduled_tokens:
            request = self.requests[request_id]
            limit = self.draft_limit(request_id, len(request.spec_token_ids))
            if limit is not None:
                request.spec_token_ids = request.spec_token_ids[:limit]  # a new list: vLLM's is shared by all requests


def _argument(request: Any, name: str) -> float | None:
    """A number that the request gives; nothing else is taken for one."""
    value = _extra(request).get(name)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _extra(request: Any) -> dict[str, Any]:
    """Its ``vllm_xargs``."""
    arguments = request.sampling_params.extra_args if request.sampling_params else None
    return arguments or {}
