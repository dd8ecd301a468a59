"""The manifests in ``deploy/kubernetes``: those of Kubernetes' own kinds by its schemas, the InferencePool by what its
version 1 takes, and all of them by what the program and its configuration know."""

import argparse
from pathlib import Path
from typing import Annotated, Any, Literal

import kubernetes_validate
import msgspec
import pytest
import yaml
from msgspec import Meta, Struct

from paceline.cli.commands import command_parser
from paceline.configuration import parse
from paceline.integrations.endpoint_picker.endpoints import Endpoint

pytestmark = pytest.mark.picker

FOLDER = Path(__file__).parents[3] / "deploy" / "kubernetes"
KUBERNETES = "1.33"
"""The oldest version that is looked at; the newest one that the validator knows is, too."""
Name = Annotated[str, Meta(min_length=1, max_length=253)]
Number = Annotated[int, Meta(ge=1, le=65_535)]
Label = Annotated[str, Meta(max_length=63, pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")]


class Port(Struct, forbid_unknown_fields=True):
    number: Number


class Selector(Struct, forbid_unknown_fields=True, rename="camel"):
    match_labels: dict[str, Label]


class Reference(Struct, forbid_unknown_fields=True, rename="camel"):
    name: Name
    port: Port
    group: str = ""
    kind: str = "Service"
    failure_mode: Literal["FailOpen", "FailClose"] = "FailClose"


class PoolSpec(Struct, forbid_unknown_fields=True, rename="camel"):
    selector: Selector
    target_ports: Annotated[list[Port], Meta(min_length=1, max_length=8)]
    endpoint_picker_ref: Reference


class Pool(Struct, forbid_unknown_fields=True, rename="camel"):
    """https://gateway-api-inference-extension.sigs.k8s.io/reference/spec/, as far as one writes it."""

    api_version: Literal["inference.networking.k8s.io/v1"]
    kind: Literal["InferencePool"]
    metadata: dict[str, Any]
    spec: PoolSpec


def resources() -> dict[tuple[str, str], dict[str, Any]]:
    """By kind and name."""
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    assert {path.name for path in FOLDER.glob("*.yaml")} == {"kustomization.yaml", *kustomization["resources"]}
    documents = [one for name in kustomization["resources"] for one in yaml.safe_load_all((FOLDER / name).read_text())]
    return {(one["kind"], one["metadata"]["name"]): one for one in documents}


RESOURCES = resources()
PICKER = "paceline-picker"
CONTAINER = RESOURCES["Deployment", PICKER]["spec"]["template"]["spec"]["containers"][0]
POOL = msgspec.convert(RESOURCES["InferencePool", "models"], Pool)


@pytest.mark.parametrize("key", [key for key in RESOURCES if key[0] != "InferencePool"], ids="/".join)
def test_each_is_what_kubernetes_takes(key: tuple[str, str]) -> None:
    for version in (KUBERNETES, kubernetes_validate.latest_version()):
        kubernetes_validate.validate(RESOURCES[key], version, strict=True)


def test_the_pool_leads_to_the_picker_and_the_picker_to_the_pool() -> None:
    service = RESOURCES["Service", POOL.spec.endpoint_picker_ref.name]["spec"]
    by_name = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    ports = {port["port"]: by_name[port["targetPort"]] for port in service["ports"]}
    options = command_parser().parse_args(CONTAINER["args"])
    assert ports[POOL.spec.endpoint_picker_ref.port.number] == options.grpc_port
    assert options.grpc_host == "0.0.0.0" and options.pool == POOL.metadata["name"]
    labels = RESOURCES["Deployment", PICKER]["spec"]["template"]["metadata"]["labels"]
    for selector in (service["selector"], RESOURCES["PodDisruptionBudget", PICKER]["spec"]["selector"]["matchLabels"]):
        assert selector.items() <= labels.items()


def test_only_gateways_and_what_has_a_key_reach_the_picker() -> None:
    policy = RESOURCES["NetworkPolicy", PICKER]["spec"]
    labels = RESOURCES["Deployment", PICKER]["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items() and policy["policyTypes"] == ["Ingress"]
    admitted = {port["port"]: rule.get("from") for rule in policy["ingress"] for port in rule["ports"]}
    assert admitted.keys() == {port["name"] for port in CONTAINER["ports"]}
    assert admitted["grpc"] and all("podSelector" in one for one in admitted["grpc"])
    assert admitted["metrics"] is None and "admin_key" in RESOURCES["ConfigMap", PICKER]["data"]["paceline.toml"]


def test_probes_ask_for_services_that_there_are() -> None:
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = CONTAINER[probe]["grpc"]
        assert asked["port"] == 9002 and asked["service"] in ("liveness", "readiness")


def test_the_configuration_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in CONTAINER["env"]:
        monkeypatch.setenv(variable["name"], f"a-secret-of-tests-{variable['name']}")
    text = RESOURCES["ConfigMap", PICKER]["data"]["paceline.toml"]
    configuration = parse(text, engines=[Endpoint("10.0.0.1:8000").settings("vllm")])
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert configuration.server.port == ports["metrics"]
    grace_s = RESOURCES["Deployment", PICKER]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert configuration.server.shutdown_grace_s < grace_s
    assert "/metrics" in configuration.key[0].paths


def test_the_account_may_see_what_the_picker_asks_for_and_no_more() -> None:
    rules = RESOURCES["Role", PICKER]["rules"]
    assert {resource for rule in rules for resource in rule["resources"]} == {"pods", "inferencepools"}
    assert all(rule["verbs"] == ["get", "list", "watch"] for rule in rules)


def test_options_in_remarks_exist() -> None:
    text = (FOLDER / "deployment.yaml").read_text()
    remarks = [line.strip(" #-").partition("=")[0] for line in text.splitlines() if line.strip().startswith("# - --")]
    assert remarks
    known = {
        option
        for action in command_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
        for one in action.choices["endpoint-picker"]._actions
        for option in one.option_strings
    }
    assert {f"--{remark}" for remark in remarks} <= known


def test_what_is_scaled_by_is_measured() -> None:
    scaler = RESOURCES["HorizontalPodAutoscaler", "models"]["spec"]
    (metric,) = scaler["metrics"]
    source = Path(__file__).parents[3] / "src" / "paceline" / "integrations" / "endpoint_picker" / "metrics.py"
    assert f'"{metric["external"]["metric"]["name"]}"' in source.read_text()
    assert scaler["scaleTargetRef"]["name"] == POOL.spec.selector.match_labels["app"]
