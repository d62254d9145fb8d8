"""Random scenes: which subjects stand where, how large, in which style and colour, on which background.

A scene is plain data (no pixels): render.py draws it and captions.py describes it. Coordinates are fractions of the
picture's side. Part of all combinations is held out: `held_out` scenes are never drawn for training.
"""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palette import BACKGROUND_NAMES, TINT_NAMES, COLOUR_WORDS

SIZE = 256  # the picture's side, pixels
STYLES = ["flat", "3d", "cartoon"]
STYLE_WEIGHTS = [0.35, 0.4, 0.25]
KINDS = ["plain", "gradient", "stripes", "dots", "checks"]
KIND_WEIGHTS = [0.62, 0.2, 0.06, 0.06, 0.06]
HELD_OUT = 16  # one combination in so many is held out


@dataclass
class Placed:
    """One subject in a scene. `tint` is an index into TINT_NAMES, or -1."""

    subject: int
    sprite: int
    x: float
    y: float
    size: float
    tint: int = -1


@dataclass
class Scene:
    """`placed` runs left to right (relation "beside") or top to bottom ("above")."""

    placed: list[Placed]
    style: int
    kind: int
    colours: tuple[int, int]
    scale: str = "normal"  # of a lone subject: small, normal, large
    relation: str = "beside"
    direction: int = 0  # of gradients and stripes: 0 vertical, 1 horizontal, 2 diagonal, 3 radial
    original: int = SIZE  # the side of the picture that this one is cut from, or was enlarged from
    crop: tuple[int, int] = (0, 0)  # y, x of the cut in the original
    seed: int = 0  # of the colours' jitter and the pattern's phase

    def time_ids(self) -> list[int]:
        """SDXL's size conditioning: original (h, w), crop (y, x), target (h, w)."""
        return [self.original, self.original, *self.crop, SIZE, SIZE]


def load_subjects(data: Path) -> list[dict]:
    return json.loads((data / "subjects.json").read_text())


def _bucket(*parts) -> int:
    return zlib.crc32("|".join(map(str, parts)).encode()) % HELD_OUT


def held_out(scene: Scene, subjects: list[dict]) -> bool:
    """Whether this combination is kept from training: a lone subject's (subject, style, background colour) or
    (subject, tint), or the pair of subjects that stand together in any style."""
    labels = [subjects[p.subject]["label"] for p in scene.placed]
    if len(labels) == 1:
        tint = scene.placed[0].tint
        return _bucket(labels[0], scene.style, scene.colours[0]) == 0 or (tint >= 0 and _bucket(labels[0], "tint", tint) == 0)
    return any(_bucket(*sorted(pair), "pair") == 0 for pair in zip(labels, labels[1:]))


def tintable(subject: dict) -> bool:
    """A subject whose own name speaks of a colour is never repainted."""
    return not COLOUR_WORDS & set(subject["label"].split())


class SceneMaker:
    """Draws random scenes from one generator."""

    def __init__(self, subjects: list[dict], seed: int):
        self.subjects = subjects
        self.rng = np.random.default_rng(seed)

    def _lone(self, scene_style: int) -> tuple[list[Placed], str]:
        rng = self.rng
        scale = str(rng.choice(["small", "normal", "large"], p=[0.14, 0.72, 0.14]))
        low, high = {"small": (0.34, 0.44), "normal": (0.66, 0.76), "large": (0.9, 0.98)}[scale]
        slack = {"small": 0.04, "normal": 0.03, "large": 0.005}[scale]
        x, y = 0.5 + rng.uniform(-slack, slack, 2)
        placed = self._place(scene_style, x, y, rng.uniform(low, high))
        if rng.random() < 0.16 and tintable(self.subjects[placed.subject]):
            placed.tint = int(rng.integers(len(TINT_NAMES)))
        return [placed], scale

    def _place(self, style: int, x: float, y: float, size: float) -> Placed:
        subject = int(self.rng.integers(len(self.subjects)))
        sprites = self.subjects[subject]["sprites"]
        sprite = sprites.get(STYLES[style], sprites["flat"])
        return Placed(subject, sprite, float(x), float(y), float(size))

    def _several(self, style: int, count: int) -> tuple[list[Placed], str]:
        rng = self.rng
        relation = "beside" if count == 3 or rng.random() < 0.65 else "above"
        span, size = (0.5, (0.4, 0.47)) if count == 2 else (0.325, (0.28, 0.32))
        placed = []
        for i in range(count):
            along = 0.5 + (i - (count - 1) / 2) * span + rng.uniform(-0.01, 0.01)
            across = 0.5 + rng.uniform(-0.03, 0.03)
            x, y = (along, across) if relation == "beside" else (across, along)
            placed.append(self._place(style, x, y, rng.uniform(*size)))
        return placed, relation

    def draw(self) -> Scene:
        """One scene, held out or not."""
        rng = self.rng
        style = int(rng.choice(len(STYLES), p=STYLE_WEIGHTS))
        kind = int(rng.choice(len(KINDS), p=KIND_WEIGHTS))
        first, second = rng.choice(len(BACKGROUND_NAMES), 2, replace=False)
        scene = Scene([], style, kind, (int(first), int(second)), seed=int(rng.integers(2**31)))
        scene.direction = int(rng.integers(4))
        count = int(rng.choice([1, 2, 3], p=[0.7, 0.23, 0.07]))
        if count == 1:
            scene.placed, scene.scale = self._lone(style)
        else:
            scene.placed, scene.relation = self._several(style, count)
        chance = rng.random()
        if chance < 0.07:
            scene.original = int(rng.choice([64, 128]))
        elif chance < 0.17:
            scene.original = int(rng.integers(280, 385))
            scene.crop = tuple(int(v) for v in rng.integers(0, scene.original - SIZE + 1, 2))
        return scene

    def draw_many(self, count: int, held: bool = False) -> list[Scene]:
        """`count` scenes that are held out (`held`) or that are not."""
        scenes = []
        while len(scenes) < count:
            scene = self.draw()
            if held_out(scene, self.subjects) == held:
                scenes.append(scene)
        return scenes
