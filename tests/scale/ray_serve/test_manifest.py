"""The manifest for KubeRay: what stands in it for Ray Serve is accepted by Ray, and names what there is."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.config import RequestRouterConfig
from ray.serve.schema import ServeDeploySchema

import paceline.integrations.ray_serve as paceline

MANIFEST = Path(__file__).parents[3] / "examples" / "ray_serve" / "kuberay.yaml"


@pytest.fixture(scope="module")
def manifest() -> Any:
    return yaml.safe_load(MANIFEST.read_text("utf-8"))


def test_its_application_is_accepted_by_ray_serve(manifest: Any) -> None:
    (application,) = ServeDeploySchema.model_validate(yaml.safe_load(manifest["spec"]["serveConfigV2"])).applications
    (model,) = application.args["llm_configs"]
    router = RequestRouterConfig(**model["deployment_config"]["request_router_config"])
    assert router.get_request_router_class() is paceline.PacelineRouter
    module, _, name = model["server_cls"].rpartition(".")
    assert (
        f"class {name}(" in Path(*MANIFEST.parents[2].parts, "src", *module.split(".")).with_suffix(".py").read_text()
    )


def test_its_pods_ask_for_as_much_as_they_may_have(manifest: Any) -> None:
    """Ray counts limits; a pod that is promised less may be moved away under load."""
    cluster = manifest["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        for container in group["template"]["spec"]["containers"]:
            assert container["resources"]["requests"] == container["resources"]["limits"]
