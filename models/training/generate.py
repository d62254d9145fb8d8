"""Draws prompts with a diffusers folder, many at once: the same arithmetic as the SDXL pipeline, batched for evaluation.

`python generate.py --model FOLDER --out grid.png "a fox on a teal background, 3d style" ...` draws a grid.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, EulerDiscreteScheduler, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from networks import Conditioner, Tokens
from training import device_name


@dataclass
class Settings:
    steps: int = 25
    guidance: float = 4.0
    sampler: str = "euler"  # or dpmpp_2m
    spacing: str = "leading"  # or trailing; with dpmpp_2m also karras


class Model:
    """A diffusers folder's parts on one device, in f32."""

    def __init__(self, folder: Path, device: str):
        self.device = device
        self.unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32).to(device).eval()
        self.vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).to(device).eval()
        first = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        second = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2", dtype=torch.float32)
        self.conditioner = Conditioner(first, second).to(device).eval()
        self.tokens = Tokens(folder)
        self.table = EulerDiscreteScheduler.from_pretrained(folder / "scheduler")
        self.side = self.unet.config.sample_size

    def scheduler(self, settings: Settings):
        if settings.sampler == "euler":
            return EulerDiscreteScheduler.from_config(self.table.config, timestep_spacing=settings.spacing)
        karras = settings.spacing == "karras"
        return DPMSolverMultistepScheduler.from_config(
            self.table.config, use_karras_sigmas=karras, timestep_spacing="trailing" if karras else settings.spacing
        )

    def noise(self, seeds: list[int]) -> torch.Tensor:
        """Each picture's own noise, drawn on the CPU."""
        draw = lambda s: torch.randn(4, self.side, self.side, generator=torch.Generator().manual_seed(s))  # noqa: E731
        return torch.stack([draw(s) for s in seeds]).to(self.device)

    @torch.no_grad()
    def draw(self, texts: list[str], seeds: list[int], settings: Settings) -> torch.Tensor:
        """Pictures [B, 3, H, W] in -1..1."""
        n, pixels = len(texts), self.side * 8
        context, pooled = self.conditioner(self.tokens(texts + [""] * n).to(self.device))
        times = torch.tensor([[pixels, pixels, 0, 0, pixels, pixels]], device=self.device).expand(2 * n, -1)
        scheduler = self.scheduler(settings)
        scheduler.set_timesteps(settings.steps, device=self.device)
        x = self.noise(seeds) * scheduler.init_noise_sigma
        rows = n if settings.guidance == 1 else 2 * n
        conditions = {"text_embeds": pooled[:rows], "time_ids": times[:rows]}
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, t)
            scaled = scaled if rows == n else torch.cat([scaled, scaled])
            guess = self.unet(scaled, t, context[:rows], added_cond_kwargs=conditions, return_dict=False)[0]
            if rows > n:
                guess = guess[n:] + settings.guidance * (guess[:n] - guess[n:])
            x = scheduler.step(guess, t, x, return_dict=False)[0]
        parts = [self.vae.decode(part / self.vae.config.scaling_factor).sample for part in x.split(32)]
        return torch.cat(parts).clamp(-1, 1)


def save_grid(pictures: torch.Tensor, columns: int, path: Path) -> None:
    pixels = ((pictures + 1) * 127.5).round().byte().cpu().permute(0, 2, 3, 1).numpy()
    lines = [np.concatenate(list(pixels[i : i + columns]), 1) for i in range(0, len(pixels), columns)]
    Image.fromarray(np.concatenate(lines, 0)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompts", nargs="+", help="prompts, or one file with a prompt a line")
    parser.add_argument("--model", type=Path, default=Path("sketch"))
    parser.add_argument("--out", type=Path, default=Path("grid.png"))
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--guidance", type=float, default=Settings.guidance)
    parser.add_argument("--sampler", default=Settings.sampler)
    parser.add_argument("--spacing", default=Settings.spacing)
    args = parser.parse_args()
    prompts = args.prompts
    if len(prompts) == 1 and Path(prompts[0]).is_file():
        prompts = [line for line in Path(prompts[0]).read_text().splitlines() if line]
    model = Model(args.model, device_name())
    settings = Settings(args.steps, args.guidance, args.sampler, args.spacing)
    save_grid(model.draw(prompts, [args.seed + i for i in range(len(prompts))], settings), args.columns, args.out)


if __name__ == "__main__":
    main()
