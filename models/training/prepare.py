"""Renders the emoji packages into one archive of sprites: `python prepare.py --packages node_modules --out data`.

Writes data/subjects.json (the subjects, their words, and the sprite number of each in each style) and data/sprites.zip
(one lossy WebP with alpha a sprite, SIZE pixels wide).
"""

import argparse
import io
import json
import zipfile
from pathlib import Path

import resvg_py
from PIL import Image

import subjects

SIZE = 224
STYLES = ["flat", "3d", "cartoon"]  # Fluent flat, Fluent 3D, Noto
ICON_SETS = {"flat": "fluent-emoji-flat", "cartoon": "noto"}


def icon_bodies(folder: Path) -> tuple[dict[str, str], int]:
    """Every icon of an Iconify set by emoji key, as SVG text, and the set's view box size."""
    icons = json.loads((folder / "icons.json").read_text())
    names = json.loads((folder / "chars.json").read_text())
    aliases = {name: alias["parent"] for name, alias in icons.get("aliases", {}).items() if set(alias) == {"parent"}}
    size = icons.get("width", 16)
    bodies = {}
    for hexcode, name in names.items():
        icon = icons["icons"].get(aliases.get(name, name))
        if icon is not None:
            bodies[subjects.key(hexcode)] = icon["body"]
    return bodies, size


def render_svg(body: str, box: int) -> Image.Image:
    """One icon at SIZE pixels."""
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {box} {box}" width="{SIZE}" height="{SIZE}">{body}</svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def sources(packages: Path) -> dict[str, dict]:
    """For each style a table: emoji key -> a function that draws it."""
    tables = {}
    for style, name in ICON_SETS.items():
        bodies, box = icon_bodies(packages / "@iconify-json" / name)
        tables[style] = {k: (lambda b=body, s=box: render_svg(b, s)) for k, body in bodies.items()}
    assets = packages / "@lobehub" / "fluent-emoji-3d" / "assets"
    tables["3d"] = {
        subjects.key(path.stem): (lambda p=path: Image.open(p).convert("RGBA").resize((SIZE, SIZE), Image.LANCZOS))
        for path in sorted(assets.glob("*.webp"))
    }
    return tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=Path, default=Path("node_modules"))
    parser.add_argument("--out", type=Path, default=Path("data"))
    parser.add_argument("--quality", type=int, default=88)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    tables = sources(args.packages)
    kept, count = [], 0
    with zipfile.ZipFile(args.out / "sprites.zip", "w", zipfile.ZIP_STORED) as archive:
        for subject in subjects.load(args.packages / "emojibase-data"):
            sprites = {}
            for style in STYLES:
                draw = tables[style].get(subject["key"])
                if draw is None:
                    continue
                buffer = io.BytesIO()
                draw().save(buffer, "WEBP", quality=args.quality, alpha_quality=90, method=4)
                archive.writestr(f"{count:05d}.webp", buffer.getvalue())
                sprites[style] = count
                count += 1
            if {"flat", "3d"} <= set(sprites):
                kept.append({**subject, "sprites": sprites})
    (args.out / "subjects.json").write_text(json.dumps(kept, indent=0))
    print(f"{len(kept)} subjects, {count} sprites")


if __name__ == "__main__":
    main()
