#!/usr/bin/env bash
# Builds llama.cpp with Paceline's patch for one H100 or H200 (sm_90) on a machine with nvcc 13 that needs no GPU.
#   bash benchmarks/real_size/gpu/build.sh FOLDER [--configure-only]
# Leaves FOLDER/llama-server.xz: stripped, and linked to the driver, cuBLAS and CUDA's runtime by name alone, which the
# other machine has in PyTorch's packages or in CUDA's folder. 144 CUDA files: half an hour on 2 cores.
# PYTHON is the project's, JOBS compilers run at once, WORK keeps what was built for the next time.
set -euo pipefail
folder=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")/../../.."
python=${PYTHON:-.venv/bin/python}
work=${WORK:-$(mktemp -d)}
mkdir -p "$work"
export PYTHONPATH=$PWD/src

# cuBLAS comes as a package: a compiler's installation often has none.
packages=$work/packages
[ -d "$packages/nvidia" ] || "$python" -m pip install --quiet --target "$packages" --no-deps 'nvidia-cublas==13.*'
cublas=$(dirname "$(find "$packages" -name cublas_v2.h | head -n 1)")/..
for name in cublas cublasLt; do ln -sf "lib$name.so.13" "$cublas/lib/lib$name.so"; done

# The same source and options as `paceline engine build` has, but for those that depend on the machine.
"$python" - "$work" <<'EOF'
import sys
from pathlib import Path

from paceline.engines.llama_cpp_build import BACKENDS, OPTIONS, patched_source

work = Path(sys.argv[1])
source = next(work.glob("*/vendor/llama.cpp"), None) or patched_source(work, work / "source.log")
options = OPTIONS | BACKENDS["cuda"] | {
    "GGML_NATIVE": "OFF",
    "CMAKE_CUDA_ARCHITECTURES": "90",
    "GGML_CUDA_NCCL": "OFF",
    "GGML_CUDA_NO_VMM": "ON",  # else it is linked to the driver, which is not here
}
(work / "options").write_text("".join(f"-D{name}={value}\n" for name, value in options.items()))
(work / "source").write_text(str(source))
EOF
mapfile -t options < "$work/options"
# Not every processor beside such a card has AVX-512, and what stays on the CPU is little. A bare machine may lack the
# runtimes of OpenMP and C++.
cmake -S "$(cat "$work/source")" -B "$work/build" -G Ninja "${options[@]}" \
  -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DGGML_AVX512=OFF \
  -DCUDA_cublas_LIBRARY="$cublas/lib/libcublas.so" -DCUDA_cublasLt_LIBRARY="$cublas/lib/libcublasLt.so" \
  -DCMAKE_CUDA_FLAGS="-I$cublas/include" -DCMAKE_CXX_FLAGS="-I$cublas/include" \
  -DGGML_OPENMP=OFF -DCMAKE_EXE_LINKER_FLAGS='-static-libstdc++ -static-libgcc' -DCMAKE_SKIP_RPATH=ON
[ "${2:-}" = --configure-only ] && exit
nice ninja -C "$work/build" -j "${JOBS:-$(nproc)}" llama-server
strip -o "$work/llama-server" "$work/build/bin/llama-server"
xz --force --threads=0 --stdout "$work/llama-server" > "$folder/llama-server.xz"
du -h "$folder/llama-server.xz"
