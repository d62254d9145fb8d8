"""Compare the bundled model's pictures with diffusers': `python tests/compare_sketch.py` from the repository's root.

Needs `cargo build --release` and the packages of tests/fixtures/requirements.txt. Both sides work in f32 with torch's
CPU generator. Prints the mean and the largest absolute difference of every prompt in units of 1/255, and fails if any
mean reached 0.5.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
from PIL import Image

PROMPTS = [
    "a red heart on a light blue background, 3d style",
    "a pizza on a blue background",
    "a panda on a mint background, flat style",
    "a house above a tree",
    "a smiley with sunglasses",
    "a rocket on a navy background with white dots, cartoon style",
    "a blue frog, flat style",
    "Café ☕ & croissant!",
]
LIMIT = 0.5


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="models/sketch", help="a diffusers folder")
    parser.add_argument("--binary", default="target/release/easel")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=7, help="the first prompt's seed; each next prompt has one more")
    parser.add_argument("--keep", type=Path, help="a folder for the pictures of both sides")
    parser.add_argument("--diffusers-only", action="store_true", help="draw diffusers' pictures and compare nothing")
    return parser.parse_args()


def load(model: str) -> StableDiffusionXLPipeline:
    """The model in f32 with the Euler scheduler of its own configuration."""
    pipe = StableDiffusionXLPipeline.from_pretrained(
        model, dtype=torch.float32, add_watermarker=False, local_files_only=True)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def theirs(pipe: StableDiffusionXLPipeline, prompt: str, seed: int, args: argparse.Namespace) -> Image.Image:
    """Diffusers' picture."""
    return pipe(prompt, num_inference_steps=args.steps, guidance_scale=args.guidance,
                generator=torch.Generator().manual_seed(seed)).images[0]


def ours(prompt: str, seed: int, size: tuple[int, int], file: Path, args: argparse.Namespace) -> Image.Image:
    """The binary's picture of the same request."""
    subprocess.run(
        [args.binary, "generate", prompt, "--model", args.model, "--seed", str(seed), "--steps", str(args.steps),
         "--guidance", str(args.guidance), "--sampler", "euler", "--dtype", "f32", "--device", "cpu",
         "--size", f"{size[0]}x{size[1]}", "-o", str(file)],
        check=True, stdout=subprocess.DEVNULL)
    return Image.open(file).convert("RGB")


def difference(left: Image.Image, right: Image.Image) -> tuple[float, int]:
    """Mean and largest absolute difference in units of 1/255."""
    apart = np.abs(np.asarray(left, dtype=np.int16) - np.asarray(right, dtype=np.int16))
    return float(apart.mean()), int(apart.max())


def compare(pipe: StableDiffusionXLPipeline, folder: Path, args: argparse.Namespace) -> list[float]:
    """Draw every prompt on both sides, print a line each, and give the means."""
    means = []
    print(f"{'mean':>8} {'max':>4}  seed  prompt")
    for index, prompt in enumerate(PROMPTS):
        seed = args.seed + index
        reference = theirs(pipe, prompt, seed, args)
        reference.save(folder / f"{seed}-diffusers.png")
        if args.diffusers_only:
            continue
        mean, most = difference(reference, ours(prompt, seed, reference.size, folder / f"{seed}-easel.png", args))
        means.append(mean)
        print(f"{mean:8.4f} {most:4d}  {seed:4d}  {prompt}", flush=True)
    return means


def main() -> int:
    """Zero if every prompt's mean difference is under the limit."""
    args = parse()
    torch.set_num_threads(1)
    pipe = load(args.model)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        means = compare(pipe, folder, args)
    worst = max(means, default=0.0)
    print(f"worst mean {worst:.4f}, limit {LIMIT}")
    return int(worst >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
