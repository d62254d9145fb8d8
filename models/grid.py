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
    "a red heart on a light blue background, 3d style",
    "a hamburger on a purple background, 3d style",
    "a sunflower on a blue to lavender gradient background, flat style",
    "a panda on a mint background, flat style",
    "a frog on a pink background, 3d style",
    "an avocado on a pink background, flat style",
    "an alien on a navy background, 3d style",
    "a house above a tree on a light blue background, flat style",
    "a watermelon on a light blue background, 3d style",
    "a butterfly on a lavender background, flat style",
    "a basketball on a teal background, 3d style",
    "a ghost on a purple background, flat style",
    "a large pizza on a beige background, flat style",
    "a smiley on a blue background, 3d style",
    "a doughnut on a mint background, 3d style",
    "a light bulb on a navy background, 3d style",
]
COLUMNS = 4


def main():
    easel = ROOT / "target/release/easel"
    with tempfile.TemporaryDirectory() as folder:
        pictures = []
        for index, prompt in enumerate(PROMPTS):
            path = Path(folder) / f"{index}.png"
            subprocess.run([easel, "generate", prompt, "--seed", "1", "-o", path], check=True, stdout=sys.stderr)
            pictures.append(Image.open(path).convert("RGB"))
    width, height = pictures[0].size
    grid = Image.new("RGB", (COLUMNS * width, -(-len(pictures) // COLUMNS) * height))
    for index, picture in enumerate(pictures):
        grid.paste(picture, (index % COLUMNS * width, index // COLUMNS * height))
    grid.save(ROOT / "models/grid.webp", quality=90)


if __name__ == "__main__":
    main()
