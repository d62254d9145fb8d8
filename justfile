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

# Make the fixtures anew; needs Python 3.11 (tests/fixtures/README.md)
fixtures python="python3":
    {{ python }} tests/fixtures/make_tiny.py
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
