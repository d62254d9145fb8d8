"""Trains the autoencoder on rendered scenes: `python train_vae.py --data data --state state --minutes 5`.

Subjects whose number is a multiple of UNSEEN are never shown to it, so that it can be judged on new drawings as well.
"""

import argparse
from pathlib import Path

import torch

from networks import new_vae
from pool import plan, rows
from render import load_sprites, render
from training import Run, compiled, device_name, log, save_halved

UNSEEN = 16
KL_WEIGHT = 1e-4


class Reconstruction(torch.nn.Module):
    """Pictures -> the training loss: L1, a little MSE, L1 of gradients, and a light KL term."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        mean, logvar = self.vae.quant_conv(self.vae.encoder(x)).float().chunk(2, 1)
        logvar = logvar.clamp(-30, 20)
        latents = mean + (0.5 * logvar).exp() * noise
        y = self.vae.decoder(self.vae.post_quant_conv(latents)).float()
        d = y - x
        slope = (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return d.abs().mean() + 2 * d.square().mean() + 0.5 * slope + KL_WEIGHT * kl


@torch.no_grad()
def psnr(vae, pictures: torch.Tensor) -> torch.Tensor:
    """Decibels of each picture's reconstruction, through the mode of its posterior, in 8-bit values."""
    out = []
    for x in pictures.split(32):
        y = vae.decode(vae.encode(x).latent_dist.mode()).sample.float()
        to8 = lambda v: ((v.float() + 1) * 127.5).clamp(0, 255).round()  # noqa: E731
        out.append(10 * torch.log10(255**2 / (to8(x) - to8(y)).square().mean((1, 2, 3)).clamp(min=1e-3)))
    return torch.cat(out)


def seen(arrays: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Only the scenes with none of the UNSEEN subjects."""
    hidden = ((arrays["subject"] >= 0) & (arrays["subject"] % UNSEEN == 0)).any(1)
    return rows(arrays, ~hidden)


@torch.no_grad()
def scaling_factor(vae, pictures: torch.Tensor) -> float:
    """One over the latents' standard deviation."""
    return float(1 / torch.cat([vae.encode(x).latent_dist.mode().float() for x in pictures.split(32)]).std())


def checkpoint(args, run: Run, test: torch.Tensor) -> None:
    """Writes state/vae_run.pt (to go on) and state/vae.pt (the averaged weights, half precision), and logs the PSNR."""
    mean = run.average.modules[0]
    factor = scaling_factor(mean, test)
    log(step=run.step, psnr=psnr(mean, test).mean().item(), scaling_factor=factor)
    run.save(args.state / "vae_run.pt")
    save_halved(args.state / "vae.pt", {"mean": mean.state_dict()}, scaling_factor=factor)


def train_loop(args, run: Run, train: dict[str, torch.Tensor], test: torch.Tensor, sprites) -> None:
    device = test.device.type
    model, saved_at = compiled(Reconstruction(run.modules["vae"])), run.clock.elapsed()
    while run.clock.progress() < 1:
        index = torch.randint(len(train["frame"]), (args.batch,))
        x = render(rows(train, index), sprites).contiguous(memory_format=torch.channels_last)
        noise = torch.randn(args.batch, 4, x.shape[2] // 8, x.shape[3] // 8, device=device)
        with torch.autocast(device, torch.bfloat16):
            loss = model(x, noise)
        run.advance(loss, args.rate, warmup=100)
        if run.step % 200 == 0:
            log(step=run.step, loss=loss.item(), seconds=run.clock.elapsed())
        if run.clock.elapsed() - saved_at > args.save_every:
            saved_at = run.clock.elapsed()
            checkpoint(args, run, test)
    checkpoint(args, run, test)


def load_vae(state: Path, device: str):
    """The averaged autoencoder of state/vae.pt, with its scaling factor in its configuration."""
    saved = torch.load(state / "vae.pt", map_location=device, weights_only=False)
    vae = new_vae().to(device, memory_format=torch.channels_last)
    vae.load_state_dict(saved["mean"])
    vae.register_to_config(scaling_factor=saved["scaling_factor"])
    return vae.eval().requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--state", type=Path, default=Path("state"))
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--scenes", type=int, default=80_000)
    parser.add_argument("--save-every", type=float, default=60, help="seconds")
    args = parser.parse_args()
    device = device_name()
    torch.manual_seed(0)
    sprites = load_sprites(args.data, device)
    train = seen(plan(args.data, args.scenes, 2))
    test = render(plan(args.data, 128, 3, held=True), sprites)
    run = Run.start({"vae": new_vae().to(device, memory_format=torch.channels_last)}, args.minutes)
    run.resume(args.state / "vae_run.pt", device)
    train_loop(args, run, train, test, sprites)


if __name__ == "__main__":
    main()
