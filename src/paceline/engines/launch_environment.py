"""What a launched engine gets of the gateway's environment, and the key that it is to ask for."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

PASSED_ON = frozenset(
    "PATH HOME USER LOGNAME SHELL LANG LANGUAGE TZ TMPDIR TMP TEMP TERM LD_LIBRARY_PATH LD_PRELOAD VIRTUAL_ENV "
    "http_proxy https_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY "
    "REQUESTS_CA_BUNDLE CURL_CA_BUNDLE CXX CC SYSTEMROOT".split()
)
PREFIXES_PASSED_ON = tuple(
    "LC_ XDG_ DYLD_ PYTHON CONDA_ SSL_CERT_ CUDA_ CUBLAS_ CUDNN_ NVIDIA_ HIP_ ROCR_ ROCM_ HSA_ AMD_ GPU_ ONEAPI SYCL "
    "ZE_ VK_ MTL_ METAL_ GGML_ LLAMA_ VLLM_ SGLANG_ SGL_ FLASHINFER_ LMSTUDIO_ OLLAMA_ MLX_ TABBY_ HF_ HUGGINGFACE "
    "TRANSFORMERS_ TOKENIZERS_ TORCH PYTORCH_ TRITON_ NCCL_ RCCL_ GLOO_ UCX_ RAY_ OMP_ GOMP_ KMP_ MKL_ OPENBLAS_ "
    "BLIS_ NUMBA_".split()
)
"""What programs, GPUs and engines are set up by."""
MASK = "***"
_SECRET_FLAG = re.compile(r"(?i)^--?[\w.-]*(?:key|token|password|secret)$|^-hft$")
_SECRET_SETTING = re.compile(r"(?i)^([\w.-]*(?:keys?|token|password|secret)=).+$", re.DOTALL)
_SECRET_WITHIN = re.compile(r"(?i)((?:^|\s)-{0,2}[\w.-]*(?:key|token|password|secret)[=\s]+)[^\s-]\S*")
_CREDENTIALS = re.compile(r"(?<=://)[^/?#\s]+@")


def engine_environment(
    own: Mapping[str, str], more: Collection[str] = (), secrets: Collection[str] = ()
) -> dict[str, str]:
    """The variables that an engine gets.

    Args:
        own: the gateway's.
        more: names of further ones to pass on.
        secrets: names of those that hold keys of the gateway; never passed on.
    """
    return {
        name: value
        for name, value in own.items()
        if name not in secrets and (name in PASSED_ON or name in more or name.startswith(PREFIXES_PASSED_ON))
    }


def key_in(command: Sequence[str]) -> str | None:
    """The key that a launch command names itself by ``--api-key``, or the first of a file's by ``--api-key-file``;
    ``None`` where it names none."""
    for flag, value in _flags(command):
        if flag == "--api-key" and value:
            return value.split(",")[0].strip()
        if flag == "--api-key-file" and value:
            try:
                lines = Path(value).read_text("utf-8", "replace").splitlines()
            except OSError:
                return None
            return next((line.strip() for line in lines if line.strip()), None)
    return None


def masked(command: Sequence[str]) -> str:
    """A command as it may be kept: without the keys, tokens and passwords in it."""
    shown: list[str] = []
    hides = False
    for word in command:
        if word.startswith("-") and len(word) > 1:
            hides = bool(_SECRET_FLAG.match(word))
        elif hides:
            shown.append(MASK)
            continue
        word = _SECRET_SETTING.sub(rf"\1{MASK}", word)
        if any(char.isspace() for char in word):
            word = _SECRET_WITHIN.sub(rf"\1{MASK}", word)
        shown.append(_CREDENTIALS.sub(f"{MASK}@", word))
    return " ".join(shown)


def _flags(command: Sequence[str]) -> list[tuple[str, str]]:
    """Flags with the word that follows them, or what stands behind their equals sign."""
    flags = []
    for number, word in enumerate(command):
        flag, equals, value = word.partition("=")
        flags.append((flag, value if equals else next(iter(command[number + 1 : number + 2]), "")))
    return flags
