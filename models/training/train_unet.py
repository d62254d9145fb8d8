"""Trains the UNet and both text encoders in latent space: `python train_unet.py --data data --state state --minutes 15`.

Needs state/vae.pt (train_vae.py) and state/pool.pt (pool.py). All scenes of the pool are rendered and encoded once. An
interrupted run goes on from state/unet_run.pt; where only the averaged weights of an earlier one (state/mean.pt) are left, it starts
from those, and with --warm from the weights of an exported folder.
"""

import argparse
import time
from pathlib import Path

import torch

from generate import Model
from networks import Conditioner, Tokens, new_text_encoders, new_unet, scheduler
from pool import rows
from render import load_sprites, render
from train_vae import load_vae
from training import Run, compiled, device_name, log, save_halved

EMPTY = 0.1  # share of empty prompts
OFFSET_NOISE = 0.05
MIN_SNR = 5.0


@torch.no_grad()
def encode_pool(args, device: str) -> dict[str, torch.Tensor]:
    """Latents (scaled), token ids and time ids of every scene, on the device."""
    vae, sprites = load_vae(args.state, device), load_sprites(args.data, device)
    pool = torch.load(args.state / "pool.pt")
    count = min(args.pool, len(pool["frame"])) if args.pool else len(pool["frame"])
    latents = torch.empty(count, 4, 32, 32, dtype=torch.float16, device=device)
    start = time.monotonic()
    for low in range(0, count, args.encode_batch):
        part = slice(low, min(low + args.encode_batch, count))
        x = render(rows(pool, part), sprites).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16):
            latents[part] = (vae.quant_conv(vae.encoder(x))[:, :4].float() * vae.config.scaling_factor).half()
    log(encoded=count, seconds=time.monotonic() - start, std=latents[:4096].float().std().item())
    return {"latents": latents, "ids": pool["ids"][:count].to(device), "frame": pool["frame"][:count].to(device)}


class Denoising(torch.nn.Module):
    """Noised latents and conditions -> the min-SNR weighted loss of the predicted noise."""

    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, latents, noise, abar, t, context, pooled, time_ids):
        signal, sigma = abar.sqrt()[:, None, None, None], (1 - abar).sqrt()[:, None, None, None]
        conditions = {"text_embeds": pooled, "time_ids": time_ids}
        noisy = (signal * latents + sigma * noise).contiguous(memory_format=torch.channels_last)
        guess = self.unet(noisy, t, context, added_cond_kwargs=conditions, return_dict=False)[0].float()
        snr = abar / (1 - abar)
        weight = snr.clamp(max=MIN_SNR) / snr
        return (weight * (guess - noise).square().mean((1, 2, 3))).mean()


def draw_batch(pool: dict, empty: torch.Tensor, abars: torch.Tensor, size: int) -> tuple:
    """Random rows of the pool, with their noise and times."""
    device = abars.device
    index = torch.randint(len(pool["latents"]), (size,), device=device)
    latents = pool["latents"][index].float()
    ids = pool["ids"][index].long()
    ids = torch.where((torch.rand(size, device=device) < EMPTY)[:, None, None], empty, ids)
    noise = torch.randn_like(latents) + OFFSET_NOISE * torch.randn(size, 4, 1, 1, device=device)
    t = torch.randint(len(abars), (size,), device=device)
    return latents, noise, abars[t], t, ids, pool["frame"][index].float()


def train_loop(args, run: Run, pool: dict) -> None:
    device = pool["latents"].device
    abars = scheduler("leading").alphas_cumprod.to(device)
    empty = Tokens(args.data)([""]).to(device)
    model, saved_at = compiled(Denoising(run.modules["unet"])), run.clock.elapsed()
    while run.clock.progress() < 1:
        latents, noise, abar, t, ids, frame = draw_batch(pool, empty, abars, args.batch)
        with torch.autocast(device.type, torch.bfloat16):
            context, pooled = run.modules["conditioner"](ids)
            loss = model(latents, noise, abar, t, context, pooled, frame)
        run.advance(loss, args.rate, warmup=300)
        if run.step % args.log_every == 0:
            log(step=run.step, loss=loss.item(), seconds=run.clock.elapsed())
        if run.clock.elapsed() - saved_at > args.save_every:
            saved_at = run.clock.elapsed()
            checkpoint(args.state, run)
    checkpoint(args.state, run)


def checkpoint(state: Path, run: Run) -> None:
    """Writes state/unet_run.pt (to go on) and state/mean.pt (the averaged weights, half precision)."""
    save_halved(state / "mean.pt", run.averages(), step=run.step)
    run.save(state / "unet_run.pt")


def begin(args, device: str) -> Run:
    """A new run; or one that goes on from a checkpoint; or a new one from the weights of an earlier one."""
    unet = new_unet().to(device, memory_format=torch.channels_last)
    conditioner = Conditioner(*new_text_encoders()).to(device)
    if args.warm:
        exported = Model(args.warm, device)
        unet.load_state_dict(exported.unet.state_dict())
        conditioner.load_state_dict(exported.conditioner.state_dict())
    if (args.state / "mean.pt").exists():
        saved = torch.load(args.state / "mean.pt", map_location=device)
        unet.load_state_dict(saved["unet"])
        conditioner.load_state_dict(saved["conditioner"])
    run = Run.start({"unet": unet, "conditioner": conditioner}, args.minutes, decay=0.01)
    run.resume(args.state / "unet_run.pt", device)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--state", type=Path, default=Path("state"))
    parser.add_argument("--warm", type=Path, help="a folder that export.py wrote")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--pool", type=int, default=0, help="use only so many scenes of the pool")
    parser.add_argument("--encode-batch", type=int, default=128)
    parser.add_argument("--log-every", type=int, default=200)
    parser.add_argument("--save-every", type=float, default=120, help="seconds")
    args = parser.parse_args()
    device = device_name()
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    pool = encode_pool(args, device)
    train_loop(args, begin(args, device), pool)


if __name__ == "__main__":
    main()
