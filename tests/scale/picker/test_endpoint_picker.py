"""The endpoint picker as it is used: behind a real Envoy, before real engines, by the vendors' SDKs."""

import asyncio
import shutil
import signal
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import httpx2
import pytest
from anthropic import Anthropic
from benchmarks.llama_server import LlamaServer
from benchmarks.scale.real_envoy import LARGE_BUFFER_BYTES, Way
from grpc_health.v1 import health_pb2, health_pb2_grpc
from openai import OpenAI
from tests.integrations.endpoint_picker.api_server import PODS, POOLS, ApiServer, pod, pool
from tests.patient import until, wait_until
from tests.scale.picker.conftest import StartEnvoy, StartPicker, flags_of, llama_server, spread

from paceline.processes.launch import free_port

pytestmark = pytest.mark.picker

DUPLEX = Way(name="duplex")
BUFFERED = Way(name="buffered", body="BUFFERED", buffer_bytes=LARGE_BUFFER_BYTES)
BUFFERED_LITTLE = Way(name="buffered little", body="BUFFERED")
STREAMED = Way(name="streamed", body="STREAMED")
ORIGINAL = Way(name="original", original_destination=True)
WORDS_2_MB = "word " * 400_000
CHAT = "/v1/chat/completions"


def openai(url: str) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 12} | more


def post(url: str, body: dict[str, Any], **headers: str) -> httpx2.Response:
    return httpx2.post(f"{url}{CHAT}", json=body, headers=headers, timeout=60, trust_env=False)


def test_sdks_are_served_whole_and_streaming_and_what_came_of_it_is_learned(
    addresses: list[str], start_picker: StartPicker, start_envoy: StartEnvoy
) -> None:
    picker = start_picker(*flags_of(addresses))
    picker.wait_for(2)
    envoy = start_envoy([DUPLEX, BUFFERED, ORIGINAL], addresses, picker=picker.grpc)
    served = 0
    for way in (DUPLEX, BUFFERED, ORIGINAL):
        sdk: Any = openai(envoy.url(way.name))
        for number in range(2):
            raw = sdk.chat.completions.with_raw_response.create(
                model="smol", messages=[{"role": "user", "content": f"Tell me story {number}."}], max_tokens=12
            )
            assert raw.headers["x-paceline-lane"].startswith("127.0.0.1-") and raw.headers["x-paceline-reason"]
            usage = raw.parse().usage
            assert usage is not None and usage.completion_tokens == 12
        for wanted in ({}, {"stream_options": {"include_usage": True}}):
            stream = sdk.chat.completions.create(
                model="smol", stream=True, max_tokens=12, messages=[{"role": "user", "content": "Hi"}], **wanted
            )
            chunks = list(stream)
            assert sum(bool(one.choices and one.choices[0].delta.content) for one in chunks) > 3
            assert (chunks[-1].usage is not None) == bool(wanted)
        claude = Anthropic(base_url=envoy.url(way.name), api_key="none", max_retries=0, timeout=60)
        asked: Any = {"model": "smol", "max_tokens": 12, "messages": [{"role": "user", "content": "Hi"}]}
        assert claude.messages.create(**asked).usage.output_tokens > 1
        with claude.messages.stream(**asked) as events:
            assert events.get_final_message().usage.output_tokens > 1
        served += 6
    lanes = picker.lanes()
    measured = [one["measured"] for lane in lanes for one in lane["by_model"]]
    assert sum(one["requests"] for one in measured) == served
    assert any(one["tokens_per_s"] for one in measured)
    assert {lane["strategy"]["kind"] for lane in lanes} == {"autoregressive", "ngram"}
    assert picker.metric("paceline_picker_decided_total") == served
    assert picker.metric("paceline_picker_requests") == 0
    explained = httpx2.post(f"{picker.url}/paceline/explain{CHAT}", json=chat("Tell me a story."), trust_env=False)
    assert "ms/token" in explained.json()["decision"]["reason"]  # by what was measured, not by what is believed
    assert picker.stop() == 0


def test_large_prompts_reach_the_engine(
    addresses: list[str], start_picker: StartPicker, start_envoy: StartEnvoy
) -> None:
    """2 MB are more tokens than the engine has context for: that it says so shows that it got them. Where Envoy holds
    whole bodies, it has to be allowed as much (``per_connection_buffer_limit_bytes``)."""
    picker = start_picker(*flags_of(addresses), "--max-body-mb", "1")
    picker.wait_for(2)
    envoy = start_envoy([DUPLEX, BUFFERED, BUFFERED_LITTLE, STREAMED], addresses, picker=picker.grpc)
    for way in (DUPLEX, BUFFERED, STREAMED):
        answer = post(envoy.url(way.name), chat(WORDS_2_MB))
        assert answer.status_code == 400 and "exceeds the available context" in answer.text, way
    assert post(envoy.url(BUFFERED_LITTLE.name), chat(WORDS_2_MB)).status_code == 413
    assert picker.metric("paceline_picker_passed_total") == 3  # above 1 MB it is not decided on here
    bounded, picker = picker, start_picker(*flags_of(addresses))
    bounded.kill()
    picker.wait_for(2)
    envoy = start_envoy([DUPLEX, BUFFERED], addresses, picker=picker.grpc)
    for way in (DUPLEX, BUFFERED):
        answer = post(envoy.url(way.name), chat(WORDS_2_MB))
        assert answer.status_code == 400 and "x-paceline-lane" in answer.headers
    assert picker.metric("paceline_picker_passed_total") is None


def test_nothing_that_fails_here_breaks_traffic(
    addresses: list[str], start_picker: StartPicker, start_envoy: StartEnvoy
) -> None:
    picker = start_picker(*flags_of(addresses))
    picker.wait_for(2)
    envoy = start_envoy([DUPLEX, BUFFERED, STREAMED], addresses, picker=picker.grpc)
    for way in (DUPLEX, BUFFERED, STREAMED):
        url = envoy.url(way.name)
        assert httpx2.get(f"{url}/v1/models", trust_env=False).json()["data"][0]["id"] == "smol"
        broken = httpx2.post(f"{url}{CHAT}", content=b'{"messages": [', trust_env=False)
        assert broken.status_code == 500 and "parse error" in broken.text  # the engine's own words
        assert post(url, chat("hi"), **{"x-paceline-learn": "perhaps"}).status_code == 200
    decided = post(envoy.url("duplex"), chat("hi"))
    assert "x-paceline-lane" in decided.headers
    assert "x-paceline-lane" not in post(envoy.url("streamed"), chat("hi")).headers


def test_a_client_that_leaves_is_forgotten(
    addresses: list[str], start_picker: StartPicker, start_envoy: StartEnvoy
) -> None:
    picker = start_picker(*flags_of(addresses))
    picker.wait_for(2)
    envoy = start_envoy([DUPLEX], addresses, picker=picker.grpc)
    body = chat("Count to a thousand.", stream=True, max_tokens=2000, ignore_eos=True)
    with httpx2.stream("POST", f"{envoy.url('duplex')}{CHAT}", json=body, trust_env=False, timeout=60) as answer:
        pieces = answer.iter_raw()  # which is kept: without it, the connection is closed
        next(pieces)
        assert picker.metric("paceline_picker_requests") == 1
    wait_until(lambda: picker.metric("paceline_picker_requests") == 0)
    (record,) = picker.get("/paceline/requests")["requests"]
    assert record["status"] == 499


def test_a_subset_is_kept_to(addresses: list[str], start_picker: StartPicker, start_envoy: StartEnvoy) -> None:
    first, second = addresses
    picker = start_picker(*flags_of(addresses), "--fallbacks", "1")
    picker.wait_for(2)
    ways = [Way(name="first", subset=(first,)), Way(name="second", subset=(second,)), Way(name="none", subset=())]
    envoy = start_envoy([*ways, Way(name="gone", subset=("10.9.9.9:80",))], addresses, picker=picker.grpc)
    for name, address in (("first", first), ("second", second)):
        for _ in range(4):
            lane = post(envoy.url(name), chat("hi")).headers["x-paceline-lane"]
            assert lane.startswith(address.replace(":", "-"))
    for name in ("none", "gone"):
        refused = post(envoy.url(name), chat("hi"))
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "engine_unavailable"


def test_an_engine_that_is_killed_costs_no_request_and_comes_back(
    model: Path, engines: list[LlamaServer], start_picker: StartPicker, start_envoy: StartEnvoy
) -> None:
    """Envoy takes the next endpoint of the list where it can't connect."""
    mortal = llama_server(model)
    addresses = [engines[0].address, mortal.address]
    picker = start_picker(*flags_of(addresses), "--fallbacks", "1")
    picker.wait_for(2)
    envoy = start_envoy([DUPLEX], addresses, picker=picker.grpc)
    statuses: Counter[int] = Counter()
    by_lane: Counter[str] = Counter()

    def ask() -> None:
        answer = post(envoy.url("duplex"), chat("Tell me a story."))
        statuses[answer.status_code] += 1
        by_lane[answer.headers.get("x-paceline-lane", "").partition("/")[0]] += 1

    spread(2, ask)
    mortal.process.kill()
    mortal.process.wait(20)
    by_lane.clear()
    spread(3, ask)
    assert set(statuses) == {200}
    picker.wait_for(1)
    by_lane.clear()
    spread(1, ask)
    assert set(by_lane) == {addresses[0].replace(":", "-")}
    mortal = llama_server(model, port=int(mortal.address.rpartition(":")[2]))
    picker.wait_for(2)
    back = mortal.address.replace(":", "-")

    def is_picked_again() -> bool:
        ask()
        return back in by_lane

    wait_until(is_picked_again)
    assert set(statuses) == {200}
    mortal.stop()


def test_a_picker_that_is_killed_costs_no_request_where_envoy_may_go_on_without(
    addresses: list[str], start_picker: StartPicker, start_envoy: StartEnvoy
) -> None:
    """In full duplex it can't, once it has handed over a piece of a body."""
    picker = start_picker(*flags_of(addresses))
    picker.wait_for(2)
    envoy = start_envoy([BUFFERED], addresses, picker=picker.grpc)
    statuses: Counter[int] = Counter()
    is_over = Event()

    def ask_on() -> None:
        while not is_over.is_set():
            statuses[post(envoy.url("buffered"), chat("Tell me a story.")).status_code] += 1

    with ThreadPoolExecutor() as clients:
        running = [clients.submit(ask_on) for _ in range(2)]
        try:
            wait_until(lambda: statuses[200] > 4)
            picker.kill()
            count = statuses[200]
            wait_until(lambda: statuses[200] > count + 6)
            picker.start()
            picker.wait_for(2)
            wait_until(lambda: picker.metric("paceline_picker_decided_total"))  # it is asked again
        finally:
            is_over.set()
        for one in running:
            one.result()
    assert set(statuses) == {200}


def test_pickers_that_share_learn_together(
    addresses: list[str], start_picker: StartPicker, start_envoy: StartEnvoy, tmp_path: Path
) -> None:
    shared = ("--share", str(tmp_path / "shared"))
    first, second = start_picker(*flags_of(addresses), *shared), start_picker(*flags_of(addresses), *shared)
    for picker in (first, second):
        picker.wait_for(2)
    envoy = start_envoy([DUPLEX], addresses, picker=first.grpc)
    for _ in range(3):
        post(envoy.url("duplex"), chat("Tell me a story."))

    def told() -> bool:
        url = f"{second.url}/paceline/explain{CHAT}"
        return "ms/token" in httpx2.post(url, json=chat("Tell me a story."), trust_env=False).text

    wait_until(told)
    assert second.metric("paceline_picker_decided_total") == 0


def test_endpoints_are_taken_up_from_a_file_while_it_runs(
    addresses: list[str], start_picker: StartPicker, start_envoy: StartEnvoy, tmp_path: Path
) -> None:
    listed = tmp_path / "endpoints"
    listed.write_text("# none yet\n")
    picker = start_picker("--endpoints", str(listed))
    envoy = start_envoy([DUPLEX], addresses, picker=picker.grpc)
    wait_until(lambda: health_of(picker.grpc, "liveness") == "SERVING")
    assert health_of(picker.grpc, "readiness") == "NOT_SERVING"
    assert post(envoy.url("duplex"), chat("hi")).status_code == 503
    listed.write_text(f"{addresses[0]}\n")
    picker.wait_for(1)
    wait_until(lambda: health_of(picker.grpc, "envoy.service.ext_proc.v3.ExternalProcessor") == "SERVING")
    assert post(envoy.url("duplex"), chat("hi")).status_code == 200
    listed.write_text(f"{addresses[0]}\nllama.cpp={addresses[1]}\n")
    picker.wait_for(2)
    assert picker.stop() == 0


def test_a_configuration_has_engines_and_rules_and_is_taken_up_anew(
    addresses: list[str], start_picker: StartPicker, start_envoy: StartEnvoy, tmp_path: Path
) -> None:
    config = tmp_path / "paceline.toml"
    engine = f'[[engine]]\nname = "own"\nkind = "llama.cpp"\nurl = "http://{addresses[0]}"\n'
    config.write_text(f'{engine}[[rule]]\ntask = "create"\nlane = "own/ngram"\n')
    picker = start_picker("--config", str(config), "--endpoint", addresses[1])
    picker.wait_for(2)
    envoy = start_envoy([DUPLEX], addresses, picker=picker.grpc)
    story = chat("Write a story about a fox.")
    assert post(envoy.url("duplex"), story).headers["x-paceline-lane"] == "own/ngram"
    config.write_text(engine.replace("own", "renamed"))
    picker.process.send_signal(signal.SIGHUP)
    picker.wait_for(2)
    wait_until(lambda: "renamed/plain" in {lane["lane"] for lane in picker.lanes()})
    assert "rule" not in post(envoy.url("duplex"), story).headers["x-paceline-reason"]


def health_of(address: str, service: str) -> str:
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            status = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status
        except grpc.RpcError as error:
            return str(error)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(status))


async def test_the_pods_of_a_pool_are_picked_from(
    model: Path, start_picker: StartPicker, start_envoy: StartEnvoy
) -> None:
    port = free_port()
    labels = {"app": "smol", "llm-d.ai/engine-type": "llama.cpp"}
    pods = [await asyncio.to_thread(llama_server, model, f"127.0.0.{number}", port) for number in (2, 3)]
    try:
        async with ApiServer().running() as cluster:
            cluster.put(POOLS, pool("smols", {"app": "smol"}, port))
            cluster.put(PODS, pod("smol-a", "127.0.0.2", labels))
            picker = start_picker("--pool", "smols", "--namespace", "models", "--kubernetes-api", cluster.url)
            await asyncio.to_thread(picker.wait_for, 1)
            envoy = start_envoy([DUPLEX], [one.address for one in pods], picker=picker.grpc)
            answer = await asyncio.to_thread(post, envoy.url("duplex"), chat("hi"))
            assert answer.headers["x-paceline-lane"].startswith("smol-a")
            cluster.put(PODS, pod("smol-b", "127.0.0.3", labels))
            await asyncio.to_thread(picker.wait_for, 2)
            cluster.put(PODS, pod("smol-a", "127.0.0.2", labels, deleted="2026-11-30T12:00:00Z"))
            await asyncio.to_thread(picker.wait_for, 1)
            lanes: set[str] = set()

            def moved() -> bool:
                lanes.add(post(envoy.url("duplex"), chat("hi")).headers["x-paceline-lane"].partition("/")[0])
                return "smol-b" in lanes

            assert await asyncio.to_thread(moved)
            await until(lambda: cluster.watches == 2)
            cluster.remove(PODS, "smol-b")  # the engine itself is still there
            await asyncio.to_thread(picker.wait_for, 0)
            assert (await asyncio.to_thread(post, envoy.url("duplex"), chat("hi"))).status_code == 503
            cluster.put(PODS, pod("smol-a", "127.0.0.2", labels))
            await asyncio.to_thread(picker.wait_for, 1)
            assert (await asyncio.to_thread(post, envoy.url("duplex"), chat("hi"))).status_code == 200
    finally:
        for one in pods:
            one.stop()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates with openssl")
def test_gateways_may_ask_by_tls(
    addresses: list[str], start_picker: StartPicker, start_envoy: StartEnvoy, tmp_path: Path
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ("-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    command = ["openssl", "req", *made, "-subj", "/CN=picker", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    picker = start_picker(*flags_of(addresses), "--tls-certificate", str(certificate), "--tls-key", str(key))
    picker.wait_for(2)
    envoy = start_envoy([DUPLEX], addresses, picker=f"https://{picker.grpc}")
    assert "x-paceline-lane" in post(envoy.url("duplex"), chat("hi")).headers


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates with openssl")
def test_only_gateways_with_a_certificate_may_ask(
    addresses: list[str], start_picker: StartPicker, tmp_path: Path
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ("-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    name = ("-subj", "/CN=picker", "-addext", "subjectAltName=DNS:picker")
    command = ["openssl", "req", *made, *name, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    files = ("--tls-certificate", str(certificate), "--tls-key", str(key), "--tls-client-ca", str(certificate))
    picker = start_picker(*flags_of(addresses), *files)
    picker.wait_for(2)

    def asked(*of_client: bytes, waits: bool = False) -> int:
        credentials = grpc.ssl_channel_credentials(certificate.read_bytes(), *of_client)
        named = (("grpc.ssl_target_name_override", "picker"),)
        with grpc.secure_channel(picker.grpc, credentials, named) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service="liveness")
            status: int = stub.Check(request, timeout=10, wait_for_ready=waits).status
            return status

    assert asked(key.read_bytes(), certificate.read_bytes(), waits=True) == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as refused:
        asked()
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
