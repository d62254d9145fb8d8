#!/usr/bin/env python3
"""Times whole pictures of the bundled model: easel over HTTP and diffusers in its own process, and prints one table.

    python3 -m venv peer && peer/bin/pip install torch==2.15.0 diffusers==0.42.1 transformers==5.23.0
    peer/bin/python benches/cpu/picture.py --easel target/release/easel

Both sides draw the same picture, with the same sampler, steps, guidance and size. `first` is the time from the start of the
process to its first picture, the files being in the system's cache; `warm` is the median of the pictures after it. Run it with
nothing else on the machine.
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/sketch"
PROMPT = "a red heart on a light blue background, 3d style"


def peer(args):
    """Diffusers' side: a line for each picture, as soon as it is drawn."""
    import torch
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.peer]
    pipe = StableDiffusionXLPipeline.from_pretrained(MODEL, dtype=dtype, add_watermarker=False, local_files_only=True)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.vae.to(memory_format=torch.channels_last)
    pipe.set_progress_bar_config(disable=True)
    for _ in range(args.runs + 1):
        pipe(PROMPT, num_inference_steps=args.steps, guidance_scale=args.guidance,
             generator=torch.Generator().manual_seed(7))
        print("drawn", flush=True)


def diffusers(dtype, args):
    """The seconds from the start to the first picture, and those of each picture after it."""
    command = [sys.executable, __file__, "--peer", dtype, "--steps", args.steps, "--guidance", args.guidance,
               "--runs", args.runs]
    start = time.perf_counter()
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        return lengths(start, (line for line in process.stdout))


def easel(dtype, args):
    """The same of a server and its client."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EASEL_")}
    body = dict(prompt=PROMPT, steps=args.steps, guidance_scale=args.guidance, seed=7, sampler="euler",
                response_format="b64_json")
    with tempfile.TemporaryDirectory() as storage:
        command = [args.easel, "serve", "--model", "sketch", "--dtype", dtype, "--port", "0", "--storage", storage]
        start = time.perf_counter()
        process = subprocess.Popen(list(map(str, command)), env=environment, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            address = next(found[0] for line in process.stdout if (found := re.search(r"http://[\d.]+:\d+", line)))
            wait(address)
            return lengths(start, (draw(address, body) for _ in range(args.runs + 1)))
        finally:
            process.terminate()
            process.communicate()


def wait(address):
    while True:
        try:
            return urllib.request.urlopen(f"{address}/readyz").read()
        except OSError:
            time.sleep(0.01)


def draw(address, body):
    request = urllib.request.Request(f"{address}/v1/images/generations", json.dumps(body).encode(),
                                     {"content-type": "application/json"})
    return urllib.request.urlopen(request).read()


def lengths(start, pictures):
    """Seconds from `start` to the first of `pictures`, and from each to the next."""
    times = [time.perf_counter() for _ in pictures]
    return times[0] - start, [after - before for before, after in zip(times, times[1:])]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--easel", default=ROOT / "target/release/easel")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--runs", type=int, default=5, help="warm pictures of each side")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        return peer(args)
    print(f"{'side':<10} {'dtype':>5} {'first':>8} {'warm':>8}", flush=True)
    best = {}
    for side in (easel, diffusers):
        for dtype in ("f32", "bf16"):
            first, warm = side(dtype, args)
            warm = statistics.median(warm)
            print(f"{side.__name__:<10} {dtype:>5} {first:8.2f} {warm:8.3f}", flush=True)
            kept = best.get(side, (first, warm))
            best[side] = (min(kept[0], first), min(kept[1], warm))
    ours, theirs = best[easel], best[diffusers]
    print(f"{'ratio of the best':<16} {ours[0] / theirs[0]:8.2f} {ours[1] / theirs[1]:8.3f}")


if __name__ == "__main__":
    main()
