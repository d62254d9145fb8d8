# Recipes for people who work on easel. `just` lists them.

default:
    @just --list

# Build and serve the bundled model on http://127.0.0.1:8080
run *args:
    cargo run --release -- serve {{ args }}

# Everything that CI checks
check:
    .ci/run

# Format the sources
fmt:
    cargo fmt

# Time the parts of SDXL with random weights of its real sizes
bench *args:
    cargo run --release -- bench --model dummy:sdxl --size 512x512 {{ args }}

# What must hold of the CUDA build, on a machine without a GPU: lints, binary, kernels as PTX; takes some 20 minutes
cuda:
    .ci/cuda

# The kernels' tests under AddressSanitizer, with each set of instructions that this machine has; needs a nightly toolchain
sanitize *args="ops::":
    RUSTFLAGS=-Zsanitizer=address cargo +nightly test --lib --target {{ arch() }}-unknown-linux-gnu --target-dir target/sanitize -- {{ args }}

# Make the fixtures anew; needs Python 3.11 (tests/fixtures/README.md)
fixtures python="python3":
    {{ python }} tests/fixtures/make_tiny.py
    {{ python }} tests/fixtures/make_bf16.py
    {{ python }} tests/fixtures/prompt/make_prompt_golden.py
    {{ python }} tests/fixtures/prompt/make_noise_golden.py
    {{ python }} tests/fixtures/sampler/make_sampler_golden.py

# Compare the bundled model's pictures with diffusers' (needs the same Python packages)
compare python="python3":
    cargo build --release
    {{ python }} tests/compare_sketch.py

# Draw the README's grid anew
grid python="python3":
    cargo build --release
    {{ python }} models/grid.py

# Write openapi/openapi.json anew
openapi:
    cargo run -- openapi > openapi/openapi.json

# OpenAI's SDKs and the README's curl lines against the debug build
clients *args:
    cargo build
    EASEL_BIN=target/debug/easel tests/clients/run {{ args }}

# Thousands of generated requests against the OpenAPI document
schema examples="2000":
    cargo build --release
    EASEL_BIN=target/release/easel target/clients/venv/bin/python tests/clients/schema.py --examples {{ examples }}

# An OpenAI SDK's own image tests; takes the SDK's source folder
sdk-suite source:
    cargo build --release
    EASEL_BIN=target/release/easel python3 tests/clients/sdk_suite.py {{ source }}
