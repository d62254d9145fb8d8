#!/usr/bin/env python3
"""Times whole pictures of the bundled model: easel over HTTP and diffusers in its own process, and prints one table.

    python3 -m venv peer && peer/bin/pip install torch==2.15.0 diffusers==0.42.1 transformers==5.23.0
    peer/bin/python benches/cpu/picture.py --easel target/release/easel

Both sides draw the same picture, with the same sampler, steps, guidance and size. `first` is the time from the start of the
process to its first picture, the files being in the system's cache and easel's cost curve known from an earlier start; `warm` is
the median of the pictures after it, which the sides draw by turns, so that a machine that is slower for a while is so for all.
Run it with nothing else on the machine.
"""
import argparse
import contextlib
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
    """Diffusers' side: a picture now, and one for each line that it is given."""
    import torch
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.peer]
    pipe = StableDiffusionXLPipeline.from_pretrained(MODEL, dtype=dtype, add_watermarker=False, local_files_only=True)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.vae.to(memory_format=torch.channels_last)
    pipe.set_progress_bar_config(disable=True)
    while True:
        pipe(PROMPT, num_inference_steps=args.steps, guidance_scale=args.guidance,
             generator=torch.Generator().manual_seed(7))
        print("drawn", flush=True)
        if not sys.stdin.readline():
            return


@contextlib.contextmanager
def diffusers(dtype, args):
    """Draws a picture at each call; the first one is drawn."""
    command = [sys.executable, __file__, "--peer", dtype, "--steps", args.steps, "--guidance", args.guidance]
    with subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True) as process:
        process.stdout.readline()

        def draw_one():
            process.stdin.write("\n")
            process.stdin.flush()
            process.stdout.readline()

        yield draw_one
        process.stdin.close()


@contextlib.contextmanager
def easel(dtype, args):
    """The same of a server and its client."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EASEL_")}
    body = dict(prompt=PROMPT, steps=args.steps, guidance_scale=args.guidance, seed=7, sampler="euler",
                response_format="b64_json")
    with tempfile.TemporaryDirectory() as storage:
        command = [args.easel, "serve", "--model", "sketch", "--dtype", dtype, "--port", "0", "--storage", storage]
        process = subprocess.Popen(list(map(str, command)), env=environment, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            address = next(found[0] for line in process.stdout if (found := re.search(r"http://[\d.]+:\d+", line)))
            wait(address)
            draw(address, body)
            yield lambda: draw(address, body)
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


def seconds(call):
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--easel", default=ROOT / "target/release/easel")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--runs", type=int, default=7, help="warm pictures of each side")
    parser.add_argument("--dtypes", default="f32,bf16")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        return peer(args)
    sides = [(side, dtype) for dtype in args.dtypes.split(",") for side in (easel, diffusers)]
    with contextlib.ExitStack() as stack:
        firsts, draws = {}, {}
        for side, dtype in sides:
            if side is easel:
                with easel(dtype, args):
                    pass  # measures the cost curve, unless the start before was of this type
            firsts[side, dtype], draws[side, dtype] = seconds(lambda: stack.enter_context(side(dtype, args)))
        rounds = [{key: seconds(draw)[0] for key, draw in draws.items()} for _ in range(args.runs)]
    warm = {key: statistics.median(times[key] for times in rounds) for key in draws}
    print(f"{'side':<10} {'dtype':>5} {'first':>8} {'warm':>8}")
    for side, dtype in sides:
        print(f"{side.__name__:<10} {dtype:>5} {firsts[side, dtype]:8.2f} {warm[side, dtype]:8.3f}")
    best = lambda times, side: min(time for (of, _), time in times.items() if of is side)
    ratios = [best(times, easel) / best(times, diffusers) for times in (firsts, warm)]
    print(f"{'ratio of the best':<16} {ratios[0]:8.2f} {ratios[1]:8.3f}")


if __name__ == "__main__":
    main()
