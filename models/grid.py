#!/usr/bin/env python3
"""Draws the README's grid: sixteen pictures of the bundled model by `easel generate`, four by four.

    cargo build --release && python3 models/grid.py          # needs Pillow
"""
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = [
    "grinning face", "red heart on a yellow background", "tree", "cat face on a blue background",
    "3d emoji of pizza on a blue background", "red apple", "sun on a light blue background", "blue car",
    "smiling face with sunglasses", "green leaf on a white background", "dog face", "snowman on a blue background",
    "yellow star on a purple background", "mushroom", "strawberry on a pink background", "house with garden",
]
COLUMNS = 4


def main():
    easel = ROOT / "target/release/easel"
    with tempfile.TemporaryDirectory() as folder:
        pictures = []
        for seed, prompt in enumerate(PROMPTS):
            path = Path(folder) / f"{seed}.png"
            subprocess.run([easel, "generate", prompt, "--seed", str(seed), "-o", path], check=True, stdout=sys.stderr)
            pictures.append(Image.open(path).convert("RGB"))
    width, height = pictures[0].size
    grid = Image.new("RGB", (COLUMNS * width, -(-len(pictures) // COLUMNS) * height))
    for index, picture in enumerate(pictures):
        grid.paste(picture, (index % COLUMNS * width, index // COLUMNS * height))
    grid.save(ROOT / "models/grid.webp", quality=90)


if __name__ == "__main__":
    main()
