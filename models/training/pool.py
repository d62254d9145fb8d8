"""Plans many scenes with their captions, in parallel: `python pool.py --data data --out state/pool.pt --count 300000`."""

import argparse
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from captions import Captioner
from render import pack
from scenes import SceneMaker, load_subjects

CHUNK = 4096


def _plan(job: tuple) -> dict[str, torch.Tensor]:
    """One chunk: packed scenes and, if asked for, the token ids of their captions [N, 2, 77]."""
    data, count, seed, held, captioned = job
    torch.set_num_threads(1)
    subjects = load_subjects(data)
    scenes = SceneMaker(subjects, seed).draw_many(count, held)
    arrays = pack(scenes)
    if captioned:
        from networks import Tokens

        captioner = Captioner(subjects, seed + 1_000_003)
        arrays["ids"] = Tokens(data)([captioner.describe(scene) for scene in scenes]).to(torch.int16)
    return {name: array.numpy() for name, array in arrays.items()}


def plan(data: Path, count: int, seed: int, held: bool = False, captioned: bool = False, workers: int = 0) -> dict[str, torch.Tensor]:
    """`count` scenes as arrays on the CPU; the same for the same seed, whatever the number of workers."""
    jobs = [(data, min(CHUNK, count - start), seed * 1000 + start // CHUNK, held, captioned) for start in range(0, count, CHUNK)]
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    if workers == 1:
        parts = [_plan(job) for job in jobs]
    else:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            parts = list(pool.map(_plan, jobs))
    return {name: torch.cat([torch.from_numpy(part[name]) for part in parts]) for name in parts[0]}


def rows(arrays: dict[str, torch.Tensor], index) -> dict[str, torch.Tensor]:
    """Some rows of every array."""
    return {name: array[index] for name, array in arrays.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("state/pool.pt"))
    parser.add_argument("--count", type=int, default=300_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args()
    arrays = plan(args.data, args.count, args.seed, captioned=True, workers=args.workers)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(arrays, args.out)
    print(f"{args.count} scenes planned")


if __name__ == "__main__":
    main()
