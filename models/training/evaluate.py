"""Judges a diffusers folder on the held-out prompts: `python evaluate.py --model sketch --data data --state state --out results.json`.

Scores: whether the judge (classifier.py) sees the subject, style, background colours and kind that the prompt asked for; the
Fréchet distance between the judge's features of drawn and of rendered held-out captions; the autoencoder's PSNR.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from exam import Exam, frechet
from generate import Model, Settings
from pool import plan
from render import render
from train_vae import UNSEEN, psnr
from training import device_name, log

GUIDANCES = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0]
OTHERS = [("euler", "trailing", 25), ("euler", "leading", 12), ("euler", "leading", 40), ("dpmpp_2m", "karras", 12),
          ("dpmpp_2m", "karras", 20), ("dpmpp_2m", "trailing", 12), ("dpmpp_2m", "trailing", 20)]


def drawn(model: Model, texts: list[str], seeds: list[int], settings: Settings, batch: int) -> torch.Tensor:
    return torch.cat([model.draw(texts[i : i + batch], seeds[i : i + batch], settings) for i in range(0, len(texts), batch)])


def trial(exam: Exam, model: Model, settings: Settings, batch: int, captions: bool) -> dict:
    """All scores of one setting."""
    lone, pairs = exam.prompts["lone"], exam.prompts["pairs"]
    result = {**asdict(settings), **exam.mark(drawn(model, [i["prompt"] for i in lone], [i["seed"] for i in lone], settings, batch))}
    result["pairs"] = exam.mark_pairs(drawn(model, [i["prompt"] for i in pairs], [i["seed"] for i in pairs], settings, batch))
    if captions:
        pictures = drawn(model, exam.captions, list(range(len(exam.captions))), settings, batch)
        result["frechet"] = round(frechet(exam.features(pictures), exam.reference), 3)
    log(**{k: v for k, v in result.items()})
    return result


def autoencoder(exam: Exam, model: Model, data: Path, count: int) -> dict[str, float]:
    """PSNR on held-out renders at the model's own size: all, and those with a subject that the VAE never saw."""
    arrays = plan(data, count, 9, held=True)
    pictures = torch.cat([render({k: v[i : i + 64] for k, v in arrays.items()}, exam.sprites) for i in range(0, count, 64)])
    pictures = torch.nn.functional.interpolate(pictures, model.side * 8, mode="area")
    values = psnr(model.vae, pictures)
    unseen = ((arrays["subject"] >= 0) & (arrays["subject"] % UNSEEN == 0)).any(1)
    return {"mean_db": round(values.mean().item(), 2), "lowest_tenth_db": round(values.quantile(0.1).item(), 2),
            "unseen_subjects_mean_db": round(values[unseen.to(values.device)].mean().item(), 2), "pictures": count}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("sketch"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--state", type=Path, default=Path("state"), help="holds classifier.pt")
    parser.add_argument("--prompts", type=Path, default=Path(__file__).with_name("prompts.json"))
    parser.add_argument("--out", type=Path, default=Path("results.json"))
    parser.add_argument("--only", action="store_true", help="one setting alone: Euler, --steps, --guidance")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--captions", type=int, default=1200)
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--limit", type=int, default=200)
    args = parser.parse_args()
    device = device_name()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = device == "cuda"
    exam, model = Exam(args, device), Model(args.model, device)
    renders = {name: exam.rendered([exam.scene(i) for i in items]) for name, items in exam.prompts.items()}
    results = {
        "subjects": len(exam.subjects), "prompts": {k: len(v) for k, v in exam.prompts.items()}, "captions": len(exam.captions),
        "vae_psnr": autoencoder(exam, model, args.data, min(512, args.captions)),
        "renders": {
            **exam.mark(renders["lone"]), "pairs": exam.mark_pairs(renders["pairs"]),
            "frechet": round(frechet(exam.other, exam.reference), 3),
        },
    }
    log(**results)
    guidances = [args.guidance] if args.only else GUIDANCES
    results["guidance"] = [trial(exam, model, Settings(args.steps, g), args.batch, True) for g in guidances]
    args.out.write_text(json.dumps(results, indent=1))
    if not args.only:
        best = max(results["guidance"], key=lambda r: r["subject_top5"] + r["colour"] + r["style"])["guidance"]
        results["samplers"] = [trial(exam, model, Settings(n, best, s, spacing), args.batch, True) for s, spacing, n in OTHERS]
        args.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
