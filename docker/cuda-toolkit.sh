#!/usr/bin/env bash
# Makes a folder with what building easel for NVIDIA GPUs needs, on a machine without a GPU and without CUDA:
#   docker/cuda-toolkit.sh FOLDER && . FOLDER/env && cargo build --release --features cuda
# Compiler and headers are NVIDIA's own wheels from PyPI (their licence is NVIDIA's EULA). Of the driver and the large
# libraries only stubs are made, which carry the names that the linker looks for: the program finds the real ones where
# it runs. Needs bash, python3 with pip, cargo, and gcc 12 or another one that nvcc 13.0 takes.
set -euo pipefail

folder=${1:?usage: docker/cuda-toolkit.sh FOLDER}
# CUDA 13.0: PTX of a newer one is refused by drivers of the 580 series.
wheels=(nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88
        nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85)
# Each library that cudarc links with, and the name by which a program asks for it.
libraries=(cuda:driver:libcuda.so.1 cublas:cublas:libcublas.so.13 cublasLt:cublaslt:libcublasLt.so.13
           curand:curand:libcurand.so.10 nvrtc:nvrtc:libnvrtc.so.13 cudnn:cudnn:libcudnn.so.9)

cd "$(dirname "$0")/.."
mkdir -p "$folder/wheels"
folder=$(cd "$folder" && pwd)
python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$folder/wheels" "${wheels[@]}"
for wheel in "$folder"/wheels/*.whl; do
    python3 -m zipfile -e "$wheel" "$folder/unpacked"
done
home=$folder/unpacked/nvidia/cu13
chmod -R u+x "$home/bin" "$home/nvvm/bin"
ln -sfn lib "$home/lib64"
ln -sfn libcudart.so.13 "$home/lib/libcudart.so"

sources=$(cargo metadata --format-version 1 --features cuda | python3 -c '
import json, os, sys
packages = json.load(sys.stdin)["packages"]
print(os.path.dirname(next(p["manifest_path"] for p in packages if p["name"] == "cudarc")) + "/src")')
for library in "${libraries[@]}"; do
    IFS=: read -r name module soname <<<"$library"
    # Every function that cudarc declares, as one that does nothing.
    grep -ohE 'fn (cu|nvrtc)[A-Za-z0-9_]+\(' "$sources/$module/sys/mod.rs" | sed -E 's/^fn (.*)\($/void \1(void) {}/' |
        sort -u | gcc -shared -fPIC -w -Wl,-soname,"$soname" -x c -o "$home/lib/lib$name.so" -
done

cat >"$folder/env" <<END
export CUDA_HOME=$home
export PATH=$home/bin:\$PATH
# Kernels of the oldest supported GPUs (A100) in PTX, which later ones compile when they load it.
export CUDA_COMPUTE_CAP=80
END
echo "made $folder; now: . $folder/env && cargo build --release --features cuda"
