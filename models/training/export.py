"""Writes the trained model as a diffusers folder in half precision: `python export.py --data data --state state --out sketch`."""

import argparse
from pathlib import Path

import torch

from networks import Conditioner, new_text_encoders, new_unet, save_pipeline
from train_vae import load_vae


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--state", type=Path, default=Path("state"))
    parser.add_argument("--out", type=Path, default=Path("sketch"))
    parser.add_argument("--spacing", default="leading")
    args = parser.parse_args()
    saved = torch.load(args.state / "mean.pt", map_location="cpu")
    unet, conditioner = new_unet(), Conditioner(*new_text_encoders())
    unet.load_state_dict(saved["unet"])
    conditioner.load_state_dict(saved["conditioner"])
    save_pipeline(args.out, args.data, load_vae(args.state, "cpu"), unet, conditioner, args.spacing)
    size = sum(f.stat().st_size for f in args.out.rglob("*") if f.is_file())
    print(f"{args.out}: {size / 1e6:.2f} MB after {saved['step']} steps")


if __name__ == "__main__":
    main()
