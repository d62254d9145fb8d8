"""Words for a scene: many ways to say it, and saying only part of it, so that prompts compose."""

import numpy as np

from palette import BACKGROUNDS, BACKGROUND_NAMES, TINT_NAMES
from scenes import STYLES, Scene

STYLE_WORDS = {
    "flat": ["flat", "flat style", "flat design", "in a flat style", "flat illustration"],
    "3d": ["3d", "3d style", "3d render", "in a 3d style", "3d rendered"],
    "cartoon": ["cartoon", "cartoon style", "cartoon drawing", "in a cartoon style", "cartoon"],
}
STYLE_NAMED = 0.85  # of the captions; where fewer name it, what was asked as flat is more often drawn as a cartoon
SCALE_WORDS = {"small": ["small", "tiny", "little"], "large": ["large", "big", "huge", "close-up of a"]}
NO_ARTICLE = {"grapes", "peanuts", "bread", "fire", "salt", "butter", "bacon", "popcorn", "sushi", "ice", "soap", "dna"}


def with_article(words: str) -> str:
    """"cat" -> "a cat"; plurals and materials stay bare."""
    last = words.split()[-1]
    if words in NO_ARTICLE or (last.endswith("s") and not last.endswith(("ss", "us", "is"))) or words[0].isdigit():
        return words
    return ("an " if words[0] in "aeiou" else "a ") + words


class Captioner:
    """Describes scenes, choosing among synonyms with one generator."""

    def __init__(self, subjects: list[dict], seed: int):
        self.subjects = subjects
        self.rng = np.random.default_rng(seed)

    def _pick(self, words: list[str]) -> str:
        return words[int(self.rng.integers(len(words)))]

    def name(self, subject: dict) -> str:
        """A subject's label, or now and then another word for it."""
        chance = self.rng.random()
        if subject["everyday"] and chance < 0.4:
            return self._pick(subject["everyday"])
        if subject["tags"] and chance > 0.93:
            return self._pick(subject["tags"])
        return subject["label"]

    def colour(self, index: int) -> str:
        name = BACKGROUND_NAMES[index]
        others = BACKGROUNDS[name][1]
        return self._pick(others) if others and self.rng.random() < 0.3 else name

    def _background(self, scene: Scene) -> str:
        """A phrase that may follow "on" or stand alone after a comma, without its article."""
        one, two = self.colour(scene.colours[0]), self.colour(scene.colours[1])
        if scene.kind == 0:
            return f"{one} background"
        if scene.kind == 1:
            return self._pick([f"{one} to {two} gradient background", f"gradient background from {one} to {two}",
                               f"{one} and {two} gradient"])
        if scene.kind == 2:
            return self._pick([f"{one} and {two} striped background", f"background with {one} and {two} stripes"])
        if scene.kind == 3:
            return self._pick([f"{one} background with {two} dots", f"{one} and {two} polka dot background"])
        return self._pick([f"{one} and {two} checkered background", f"background of {one} and {two} checks"])

    def _subject(self, scene: Scene, i: int, article: bool) -> str:
        placed = scene.placed[i]
        words = self.name(self.subjects[placed.subject])
        if placed.tint >= 0:
            words = f"{TINT_NAMES[placed.tint]} {words}"
        scale = SCALE_WORDS.get(scene.scale) if len(scene.placed) == 1 else None
        if scale and self.rng.random() < 0.85:
            size = self._pick(scale)
            if size.endswith(" a"):
                return f"{size[:-2]} {with_article(words)}"
            words = f"{size} {words}"
        return with_article(words) if article else words

    def _several(self, scene: Scene, article: bool) -> str:
        names = [self._subject(scene, i, article) for i in range(len(scene.placed))]
        if len(names) == 3:
            a, b, c = names
            return self._pick([f"{a}, {b} and {c}", f"{a} next to {b} and {c}", f"{b} between {a} and {c}"])
        a, b = names
        if scene.relation == "above":
            return self._pick([f"{a} above {b}", f"{a} on top of {b}", f"{b} below {a}", f"{b} under {a}"])
        return self._pick([f"{a} and {b}", f"{a} to the left of {b}", f"{b} to the right of {a}", f"{a} next to {b}",
                           f"{a} on the left and {b} on the right", f"{a} left of {b}"])

    def describe(self, scene: Scene) -> str:
        """One caption; style and background are each named most of the time."""
        article = self.rng.random() < 0.6
        many = len(scene.placed) > 1
        text = self._several(scene, article) if many else self._subject(scene, 0, article)
        style = self._pick(STYLE_WORDS[STYLES[scene.style]]) if self.rng.random() < STYLE_NAMED else None
        says_background = self.rng.random() < 0.85
        if style == STYLES[scene.style] and article and not many and text.split()[0] in ("a", "an"):
            text, style = f"a {style} {text.split(' ', 1)[1]}", None
        elif style and style.endswith(("render", "drawing", "illustration")) and article:
            text, style = f"a {style} of {text}", None
        elif style and style.startswith("in a"):
            text, style = f"{text} {style}", None
        if says_background:
            background = self._background(scene)
            if self.rng.random() < 0.75:
                text = f"{text} on {with_article(background)}"
            else:
                text = f"{text}, {background}"
        return f"{text}, {style}" if style else text


def plain_prompt(scene: Scene, subjects: list[dict], relation_word: str = "to the left of") -> str:
    """The fixed wording of the evaluation: every attribute named once, by its first name."""
    one, two = (BACKGROUND_NAMES[c] for c in scene.colours)
    background = [f"{one} background", f"{one} to {two} gradient background", f"{one} and {two} striped background",
                  f"{one} background with {two} dots", f"{one} and {two} checkered background"][scene.kind]
    names = []
    for placed in scene.placed:
        words = subjects[placed.subject]["label"]
        names.append(with_article(f"{TINT_NAMES[placed.tint]} {words}" if placed.tint >= 0 else words))
    style = STYLES[scene.style]
    return f"{f' {relation_word} '.join(names)} on {with_article(background)}, {style} style"
