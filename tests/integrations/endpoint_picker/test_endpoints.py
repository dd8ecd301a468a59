"""How endpoints are written, found, and become engines."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from tests.conftest import StartEngine, engine_settings
from tests.patient import until

from paceline.integrations.endpoint_picker import sources
from paceline.integrations.endpoint_picker.detect import kind_of, kinds_of
from paceline.integrations.endpoint_picker.endpoints import (
    KINDS,
    BadEndpoint,
    Endpoint,
    address_of,
    endpoint,
    endpoints_in,
)
from paceline.integrations.endpoint_picker.sources import EndpointFile


def test_an_endpoint_is_an_address_with_a_kind_or_without() -> None:
    assert endpoint("10.0.0.1:8000") == Endpoint("10.0.0.1:8000", "auto")
    assert endpoint("vllm=http://10.0.0.1:8000/") == Endpoint("10.0.0.1:8000", "vllm")
    assert endpoint(" llama.cpp=[fd00::0:1]:80 ") == Endpoint("[fd00::1]:80", "llama.cpp")


@pytest.mark.parametrize(
    "text", ["", "10.0.0.1", "localhost:80", "10.0.0.1:0", "10.0.0.1:70000", "10.0.0.1:²", "x=10.0.0.1:80", "1.2.3:80"]
)
def test_what_is_no_endpoint_is_refused_with_how_one_is_written(text: str) -> None:
    with pytest.raises(BadEndpoint, match=r"10\.0\.0\.1:8000|there are: "):
        endpoint(text)


def test_a_file_has_remarks_and_each_endpoint_once() -> None:
    text = "# ours\n10.0.0.1:80\n\n vllm=10.0.0.2:80  # the new one\n10.0.0.1:80\n"
    assert [one.address for one in endpoints_in(text, "f")] == ["10.0.0.1:80", "10.0.0.2:80"]
    with pytest.raises(BadEndpoint, match=r"^f:2: "):
        endpoints_in("10.0.0.1:80\nnothing\n", "f")


@pytest.mark.parametrize("kind", KINDS)
def test_an_endpoint_of_each_kind_is_an_engine_that_may_get_what_is_private(kind: str) -> None:
    settings = Endpoint("[fd00::1]:8000", name="pod_1/x").settings(kind, "env:KEY")
    assert settings.kind == kind and not settings.leaves_machine and settings.api_key == "env:KEY"
    assert address_of(settings) == "[fd00::1]:8000"
    assert Endpoint("10.0.0.1:8000").settings(kind).name == "10.0.0.1-8000"


def test_engines_that_a_gateway_cant_send_to_have_no_address() -> None:
    assert address_of(engine_settings(url="http://10.0.0.1/v1")) == "10.0.0.1:80"
    for url in ("http://name:80", "https://10.0.0.1:443", "http://10.0.0.1:80/behind/a/path"):
        assert address_of(engine_settings(url=url)) is None
    assert address_of(engine_settings(launch=("engine", "{port}"))) is None


async def test_a_file_is_watched_and_what_is_wrong_in_it_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sources, "LOOK_INTERVAL_S", 0.01)
    path = tmp_path / "endpoints"
    with pytest.raises(OSError, match="endpoints"):
        EndpointFile(path)
    path.write_text("10.0.0.1:80\n")
    told: list[Sequence[Endpoint]] = []
    task = asyncio.create_task(EndpointFile(path).run(told.append))
    await until(lambda: told)
    path.write_text("10.0.0.1:80\nwhat is this\n")
    await until(lambda: "endpoints:2:" in caplog.text)
    path.unlink()
    await until(lambda: "No such file" in caplog.text)
    path.write_text("10.0.0.1:80\n10.0.0.2:80\n")
    await until(lambda: len(told) == 2)
    assert [one.address for one in told[-1]] == ["10.0.0.1:80", "10.0.0.2:80"]
    task.cancel()


async def test_an_engine_is_asked_what_it_is(start_engine: StartEngine) -> None:
    llama, unknown = await start_engine(), await start_engine()
    llama.props = {"default_generation_settings": {}}

    async def nothing(_: object, wire: object) -> None:
        await wire.json({}, 404)  # type: ignore[attr-defined]

    unknown.script = nothing
    addresses = [one.url.removeprefix("http://") for one in (llama, unknown)]
    assert await kinds_of(addresses) == {addresses[0]: "llama.cpp", addresses[1]: "openai"}
    await llama.stop()
    assert await kind_of(addresses[0]) is None


def test_endpoints_are_settings_and_so_can_be_compared() -> None:
    one = Endpoint("10.0.0.1:80")
    assert one.settings("vllm") == one.settings("vllm") != msgspec.structs.replace(one, name="b").settings("vllm")
