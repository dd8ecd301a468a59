"""One Ray, as small as it goes, for all tests here; and Paceline's deployments in it."""

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.patient import wait_until

from paceline.processes.launch import free_port

ROOT = Path(__file__).parents[3]
MAX_STORE_BYTES = 80 * 1024 * 1024
collect_ignore_glob = [] if find_spec("ray") else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.ray)


@pytest.fixture(scope="session")
def serve_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Ray Serve's address. Ray counts eight processors, so that it starts what the tests ask for; each engine computes
    with one thread."""
    import ray
    from ray import serve

    port = free_port()
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    ray.init(
        num_cpus=8,
        include_dashboard=False,
        object_store_memory=MAX_STORE_BYTES,
        _node_ip_address="127.0.0.1",
        logging_level="ERROR",
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}},
    )
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        yield f"http://127.0.0.1:{port}"
        serve.shutdown()
    finally:
        ray.shutdown()


class Deployed:
    """An application of Paceline's that runs."""

    def __init__(self, name: str, url: str, handle: Any) -> None:
        self.name = name
        self.url = url
        self.handle = handle
        """To its first deployment."""
        self.http = httpx2.Client(base_url=url, timeout=120, trust_env=False)

    def pid(self, deployment: str, replica: str) -> int:
        """Of the process of a replica."""
        from ray import serve

        details = serve.context._get_global_client().get_serve_details()
        replicas = details["applications"][self.name]["deployments"][deployment]["replicas"]
        (pid,) = [each["pid"] for each in replicas if each["replica_id"] == replica]
        return int(pid)


Deploy = Callable[..., Deployed]


@pytest.fixture(scope="module")
def deploy(serve_url: str) -> Iterator[Deploy]:
    """Runs an application under a name of its own, and ends it after the module's tests."""
    from ray import serve

    running: list[Deployed] = []

    def run(application: Any, name: str) -> Deployed:
        handle = serve.run(application, name=name, route_prefix=f"/{name}")
        deployed = Deployed(name, f"{serve_url}/{name}", handle)
        running.append(deployed)
        return deployed

    yield run
    for each in running:
        each.http.close()
        serve.delete(each.name)
    wait_until(lambda: not serve.status().applications.keys() & {each.name for each in running})
