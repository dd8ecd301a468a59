"""Ray's own LLM deployments, with vLLM, routed by Paceline. `docs/ray-serve.md` tells how to run it."""

from typing import Any

from ray.serve import Application
from ray.serve.llm import LLMConfig, build_openai_app

from paceline.integrations.ray_serve import router_config
from paceline.integrations.ray_serve.llm import PacelineLLMServer


def application(arguments: dict[str, Any]) -> Application:
    """What `serve run` takes.

    Args:
        arguments: `model`, a name on Hugging Face or a folder; `device`, which is `gpu` (the default) or `cpu`;
            `max_model_len`, the most tokens of a request (default: 4096); and settings of Paceline's router.
    """
    arguments = dict(arguments)
    model, device = arguments.pop("model"), arguments.pop("device", "gpu")
    config = LLMConfig(
        model_loading_config={"model_id": "model", "model_source": model},
        server_cls=PacelineLLMServer,
        accelerator_config={"kind": device},
        engine_kwargs={
            "max_model_len": int(arguments.pop("max_model_len", 4096)),
            "max_num_seqs": 8,
            "speculative_config": {"method": "ngram", "num_speculative_tokens": 6, "prompt_lookup_max": 3},
            # Has vLLM take the length of drafts from each request, and tell of each what its drafts did.
            "scheduler_cls": "paceline.inside.vllm_scheduler.scheduler",
            "per_request_spec_decode_metrics": "detailed",
            "enable_per_request_metrics": True,
        },
        deployment_config={"num_replicas": 1, "request_router_config": router_config(**arguments)},
    )
    ingress = {"num_replicas": 1, "ray_actor_options": {"num_cpus": 0.1}}
    return build_openai_app({"llm_configs": [config], "ingress_deployment_config": ingress})
