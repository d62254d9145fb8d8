"""Draws scenes with torch, many at a time, on any device."""

import io
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from palette import BACKGROUNDS, TINTS
from scenes import SIZE, Scene

SLOTS = 3  # subjects in a scene at most
FIELDS = 8  # numbers of a background, see `pack`


def load_sprites(data: Path, device: str) -> list[torch.Tensor]:
    """All sprites, premultiplied, as u8 [N, 4, side, side] at full, half and quarter size."""
    with zipfile.ZipFile(data / "sprites.zip") as archive:
        blobs = [archive.read(name) for name in sorted(archive.namelist())]
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(lambda blob: np.asarray(Image.open(io.BytesIO(blob)).convert("RGBA")), blobs))
    levels = [[], [], []]
    for start in range(0, len(images), 256):
        rgba = torch.from_numpy(np.stack(images[start : start + 256])).to(device).permute(0, 3, 1, 2).float() / 255
        rgba = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)
        for level in range(3):
            small = F.avg_pool2d(rgba, 2**level) if level else rgba
            levels[level].append((small * 255).round().to(torch.uint8))
    return [torch.cat(level) for level in levels]


def pack(scenes: list[Scene]) -> dict[str, torch.Tensor]:
    """Scenes as a few arrays, which index and travel well."""
    n = len(scenes)
    sprite = np.full((n, SLOTS), -1, np.int32)
    place = np.zeros((n, SLOTS, 3), np.float32)  # x, y, size in the original's side
    tint = np.full((n, SLOTS), -1, np.int8)
    subject = np.full((n, SLOTS), -1, np.int16)
    ground = np.zeros((n, FIELDS), np.int64)  # kind, colour, colour, direction, seed, style, count, relation
    frame = np.zeros((n, 6), np.int16)  # SDXL's time ids
    for i, scene in enumerate(scenes):
        for j, p in enumerate(scene.placed):
            sprite[i, j], tint[i, j], subject[i, j] = p.sprite, p.tint, p.subject
            place[i, j] = p.x, p.y, p.size
        ground[i] = (scene.kind, *scene.colours, scene.direction, scene.seed, scene.style, len(scene.placed),
                     scene.relation == "above")
        frame[i] = scene.time_ids()
    arrays = {"sprite": sprite, "place": place, "tint": tint, "subject": subject, "ground": ground, "frame": frame}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _noise(seed: torch.Tensor, k: int) -> torch.Tensor:
    """A number in 0..1 from each seed, the k-th of its own stream."""
    mixed = (seed * 2654435761 + (k + 1) * 40503) % 2147483647
    mixed = (mixed * 48271 + 11) % 2147483647
    return (mixed % 65536).float() / 65536


def _table(colours: dict, device) -> torch.Tensor:
    rgb = [c[0] if isinstance(c[0], tuple) else c for c in colours.values()]
    return torch.tensor(rgb, dtype=torch.float32, device=device) / 255


def _backgrounds(ground: torch.Tensor, xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
    """[B, 3, H, W] from the original's coordinates xs, ys [B, H, W] in 0..1."""
    kind, first, second, direction, seed = ground[:, 0], ground[:, 1], ground[:, 2], ground[:, 3], ground[:, 4]
    palette = _table(BACKGROUNDS, ground.device)
    jitter = torch.stack([_noise(seed, k) for k in range(6)], 1).view(-1, 2, 3) - 0.5
    pair = (torch.stack([palette[first], palette[second]], 1) + jitter * 0.05).clamp(0, 1)
    pick = lambda *options: torch.stack(options)[direction, torch.arange(len(seed), device=seed.device)]  # noqa: E731
    radius = ((xs - 0.5) ** 2 + (ys - 0.5) ** 2).sqrt() * 1.41
    ramp = pick(ys, xs, (xs + ys) / 2, radius).clamp(0, 1)
    period = 1 / (3 + (_noise(seed, 7) * 3).floor())[:, None, None]
    along = pick(ys, xs, (xs + ys) * 0.7, (xs - ys) * 0.7)
    edge = lambda v, w: (v * SIZE * w / 2 + 0.5).clamp(0, 1)  # noqa: E731  a step softened over two pixels
    wave = lambda v: (((v / period) % 1) - 0.5).abs() - 0.25  # noqa: E731
    stripes = edge(wave(along) * period, 1)
    checks_x, checks_y = edge(wave(xs) * period, 1), edge(wave(ys) * period, 1)
    checks = checks_x * (1 - checks_y) + checks_y * (1 - checks_x)
    cell = ((((xs / period) % 1) - 0.5) ** 2 + (((ys / period) % 1) - 0.5) ** 2).sqrt()
    dots = edge((0.27 - cell) * period, 1)
    options = torch.stack([torch.zeros_like(ramp), ramp, stripes, dots, checks])
    mix = options[kind, torch.arange(len(kind), device=kind.device)][:, None]
    return pair[:, 0, :, None, None] * (1 - mix) + pair[:, 1, :, None, None] * mix


def _repaint(rgba: torch.Tensor, tint: torch.Tensor) -> torch.Tensor:
    """Premultiplied [B, 4, H, W] in the tint's colour where tint >= 0: shading stays, darkest and lightest parts too."""
    palette = _table(TINTS, rgba.device)
    alpha = rgba[:, 3:].clamp(min=1e-4)
    rgb = (rgba[:, :3] / alpha).clamp(0, 1)
    light = (rgb * torch.tensor([0.299, 0.587, 0.114], device=rgba.device).view(1, 3, 1, 1)).sum(1, keepdim=True)
    target = palette[tint.clamp(min=0).long()][:, :, None, None]
    dark = target * (light / 0.55).clamp(0, 1)
    painted = dark + (1 - target) * ((light - 0.55) / 0.45).clamp(0, 1) * 0.75
    painted = 0.9 * painted + 0.1 * rgb
    out = torch.cat([painted * rgba[:, 3:], rgba[:, 3:]], 1)
    return torch.where((tint >= 0)[:, None, None, None], out, rgba)


def _paste(canvas, sprites, host, batch, slot: int, xs, ys):
    """Lays the subjects of one slot over the canvas. `host` is the batch before its transfer: choosing rows on it waits for
    no device."""
    chosen = (host["sprite"][:, slot] >= 0).nonzero()[:, 0]
    if len(chosen) == 0:
        return canvas
    pixels = host["place"][chosen, slot, 2] * host["frame"][chosen, 0].clamp(min=SIZE)
    rows = chosen.to(xs.device, non_blocking=True)
    x, y, size = batch["place"][rows, slot].unbind(1)
    grid = torch.stack([xs[rows] - x[:, None, None], ys[rows] - y[:, None, None]], -1) * (2 / size[:, None, None, None])
    layer = torch.zeros(len(rows), 4, *xs.shape[1:], device=xs.device)
    for level, (low, high) in enumerate([(130, 9999), (70, 130), (0, 70)]):
        part = ((pixels >= low) & (pixels < high)).nonzero()[:, 0].to(xs.device, non_blocking=True)
        if len(part):
            source = sprites[level][batch["sprite"][rows[part], slot].long()].float() / 255
            layer[part] = F.grid_sample(source, grid[part], align_corners=False)
    if slot == 0:  # only a lone subject is ever repainted
        layer = _repaint(layer, batch["tint"][rows, slot])
    canvas[rows] = canvas[rows] * (1 - layer[:, 3:]) + layer[:, :3]
    return canvas


@torch.no_grad()
def render(batch: dict[str, torch.Tensor], sprites: list[torch.Tensor]) -> torch.Tensor:
    """The pictures of packed scenes (on the sprites' device): [B, 3, 256, 256] in -1..1."""
    device, host = sprites[0].device, batch
    batch = {name: array.to(device, non_blocking=True) for name, array in host.items()}
    original = batch["frame"][:, 0].clamp(min=SIZE).float()[:, None]
    pixel = torch.arange(SIZE, device=device).float()[None] + 0.5
    ys = ((pixel + batch["frame"][:, 2:3]) / original)[:, :, None].expand(-1, SIZE, SIZE)
    xs = ((pixel + batch["frame"][:, 3:4]) / original)[:, None, :].expand(-1, SIZE, SIZE)
    canvas = _backgrounds(batch["ground"], xs, ys)
    for slot in range(SLOTS):
        canvas = _paste(canvas, sprites, host, batch, slot, xs, ys)
    for small in (64, 128):  # pictures enlarged from a small original
        rows = (host["frame"][:, 0] == small).nonzero()[:, 0].to(device, non_blocking=True)
        if len(rows):
            down = F.avg_pool2d(canvas[rows], SIZE // small)
            canvas[rows] = F.interpolate(down, SIZE, mode="bilinear", align_corners=False)
    return canvas.clamp(0, 1) * 2 - 1
