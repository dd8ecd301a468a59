"""What launched engines get of the environment, and what is shown of their commands."""

from pathlib import Path

import pytest

from paceline.engines.launch_environment import engine_environment, key_in, masked


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["s", "--api-key", "SECRET", "--port", "1"], "s --api-key *** --port 1"),
        (["s", "--api-key=SECRET"], "s --api-key=***"),
        (["s", "--api-key", "SECRET", "SECRET2", "--port", "1"], "s --api-key *** *** --port 1"),
        (["s", "--hf-token", "SECRET", "-hft", "SECRET"], "s --hf-token *** -hft ***"),
        (["s", "--admin-api-key", "SECRET", "--ssl-password", "SECRET"], "s --admin-api-key *** --ssl-password ***"),
        (["env", "HF_TOKEN=SECRET", "VLLM_API_KEY=SECRET", "s"], "env HF_TOKEN=*** VLLM_API_KEY=*** s"),
        (["docker", "run", "-e", "API_KEY=SECRET", "s"], "docker run -e API_KEY=*** s"),
        (["sh", "-c", "exec s --api-key SECRET -m x"], "sh -c exec s --api-key *** -m x"),
        (["sh", "-c", "HF_TOKEN=SECRET with a blank"], "sh -c HF_TOKEN=***"),
        (["s", "--model-url", "https://user:SECRET@x/y.gguf"], "s --model-url https://***@x/y.gguf"),
        (["s", "--model-url", "https://user:p@SECRET@x/y.gguf?at=a@b"], "s --model-url https://***@x/y.gguf?at=a@b"),
        (["s", "--api-key-file", "/run/key", "-ctk", "q8_0"], "s --api-key-file /run/key -ctk q8_0"),
        (["s", "--max-num-batched-tokens", "8192"], "s --max-num-batched-tokens 8192"),
    ],
)
def test_commands_are_shown_without_their_secrets(command: list[str], shown: str) -> None:
    assert masked(command) == shown


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (["s", "--port", "1"], None),
        (["s", "--api-key", "a,b"], "a"),
        (["s", "--api-key=a"], "a"),
        (["s", "--api-key"], None),
        (["s", "--api-key-file", "/nowhere"], None),
    ],
)
def test_the_key_that_a_command_names(command: list[str], key: str | None) -> None:
    assert key_in(command) == key


def test_the_key_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("\n first \nsecond\n")
    assert key_in(["s", "--api-key-file", str(tmp_path / "keys")]) == "first"


def test_only_what_engines_need_is_passed_on() -> None:
    needed = dict.fromkeys(
        "PATH HOME LANG LC_ALL LD_LIBRARY_PATH PYTHONPATH XDG_CACHE_HOME CUDA_VISIBLE_DEVICES HIP_VISIBLE_DEVICES "
        "GGML_CUDA_X LLAMA_ARG_THREADS VLLM_USE_V1 HF_HOME HF_TOKEN OMP_NUM_THREADS https_proxy SSL_CERT_FILE".split(),
        "x",
    )
    others = dict.fromkeys("AWS_SECRET_ACCESS_KEY OPENAI_API_KEY PACELINE_KEY SSH_AUTH_SOCK GITHUB_TOKEN".split(), "x")
    assert engine_environment(needed | others) == needed
    assert engine_environment(others, more=("SSH_AUTH_SOCK",)) == {"SSH_AUTH_SOCK": "x"}
    assert engine_environment(needed, more=("HF_TOKEN",), secrets=("HF_TOKEN",)).keys() == needed.keys() - {"HF_TOKEN"}
