"""Trains the judge on the renders of state/pool.pt: `python train_classifier.py --data data --state state --minutes 3`."""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F

from classifier import SIDE, Classifier, scores
from palette import BACKGROUND_NAMES
from pool import plan, rows
from render import load_sprites, render
from scenes import load_subjects
from training import Clock, device_name, log, optimizer, step_optimizer


def blemish(x: torch.Tensor) -> torch.Tensor:
    """Some blur and grain, so that a judge raised on clean renders does not stumble over a model's small faults."""
    n = len(x)
    soft = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    x = torch.where((torch.rand(n, 1, 1, 1, device=x.device) < 0.4), soft, x)
    return x + torch.randn_like(x) * 0.06 * torch.rand(n, 1, 1, 1, device=x.device)


def targets(batch: dict[str, torch.Tensor], device: str) -> dict[str, torch.Tensor]:
    ground = batch["ground"].to(device)
    return {
        "lone": ground[:, 6] == 1, "subject": batch["subject"][:, 0].long().to(device), "style": ground[:, 5], "kind": ground[:, 0],
        "colours": ground[:, 1:3],
    }


def loss_of(out: dict, want: dict) -> torch.Tensor:
    subject = F.cross_entropy(out["subject"], want["subject"], reduction="none", label_smoothing=0.05)
    present = F.one_hot(want["colours"], len(BACKGROUND_NAMES)).float()
    present = present[:, 0] + present[:, 1] * (want["kind"] > 0)[:, None]
    heads = F.cross_entropy(out["style"], want["style"]) + F.cross_entropy(out["kind"], want["kind"])
    colours = F.binary_cross_entropy_with_logits(out["colours"], present)
    return (subject * want["lone"]).sum() / want["lone"].sum().clamp(min=1) + 0.5 * heads + 5 * colours


@torch.no_grad()
def rendered(scenes: dict[str, torch.Tensor], sprites) -> torch.Tensor:
    """All scenes at the judge's size, as u8 on the device."""
    count = len(scenes["frame"])
    out = torch.empty(count, 3, SIDE, SIDE, dtype=torch.uint8, device=sprites[0].device)
    for low in range(0, count, 256):
        small = F.interpolate(render(rows(scenes, slice(low, low + 256)), sprites), SIDE, mode="area")
        out[low : low + 256] = ((small + 1) * 127.5).round().to(torch.uint8)
    return out


@torch.no_grad()
def accuracy(model, sprites, scenes, device) -> dict[str, float]:
    """Shares of right answers on scenes of one subject."""
    totals = {}
    lone = rows(scenes, scenes["ground"][:, 6] == 1)
    count = len(lone["frame"])
    for low in range(0, count, 128):
        batch = rows(lone, slice(low, low + 128))
        want = targets(batch, device)
        got = scores(model(render(batch, sprites)), want["subject"], want["style"], want["kind"], want["colours"])
        for name, right in got.items():
            totals[name] = totals.get(name, 0) + right.sum().item() / count
    return totals


def fit(args, model, pictures: torch.Tensor, train: dict[str, torch.Tensor], device: str) -> int:
    """Trains for the given minutes; the number of steps it made."""
    want_all = targets(train, device)
    opt, clock, step = optimizer([model], 0.02), Clock(args.minutes), 0
    while clock.progress() < 1:
        index = torch.randint(len(pictures), (args.batch,), device=device)
        want = {name: values[index] for name, values in want_all.items()}
        x = blemish(pictures[index].float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16):
            loss = loss_of(model(x), want)
        step_optimizer(opt, loss, clock.rate(args.rate, step, 100), clip=5.0)
        step += 1
        if step % 200 == 0:
            log(step=step, loss=loss.item(), seconds=clock.elapsed())
    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--state", type=Path, default=Path("state"))
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--test", type=int, default=2048, help="held-out scenes to measure the judge on")
    args = parser.parse_args()
    device = device_name()
    torch.manual_seed(2)
    sprites = load_sprites(args.data, device)
    train, test = torch.load(args.state / "pool.pt"), plan(args.data, args.test, 6, held=True)
    model = Classifier(len(load_subjects(args.data))).to(device, memory_format=torch.channels_last)
    step = fit(args, model, rendered(train, sprites), train, device)
    model.eval()
    log(step=step, **accuracy(model, sprites, test, device))
    args.state.mkdir(parents=True, exist_ok=True)
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}, args.state / "classifier.pt")


if __name__ == "__main__":
    main()
