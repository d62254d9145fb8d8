"""Writes the fixed list of held-out prompts, prompts.json: 200 of one subject, 60 of two. Run once; the list is committed."""

import argparse
import json
from pathlib import Path

from captions import plain_prompt
from scenes import SceneMaker, Scene, load_subjects

LONE, PAIRS = 200, 60


def describe(scene: Scene, subjects: list[dict], number: int) -> dict:
    word = "above" if scene.relation == "above" else "to the left of"
    return {
        "prompt": plain_prompt(scene, subjects, word), "subjects": [subjects[p.subject]["label"] for p in scene.placed],
        "tint": scene.placed[0].tint, "style": scene.style, "kind": scene.kind, "colours": list(scene.colours),
        "relation": scene.relation, "seed": 7000 + number,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("prompts.json"))
    args = parser.parse_args()
    subjects = load_subjects(args.data)
    lone, pairs, seen = [], [], set()
    for scene in SceneMaker(subjects, 77).draw_many(4000, held=True):
        whole = scene.crop == (0, 0) and scene.original == 256 and scene.scale == "normal"
        chosen = {1: lone, 2: pairs}.get(len(scene.placed))
        label = subjects[scene.placed[0].subject]["label"]
        if not whole or chosen is None or label in seen or len(chosen) == (LONE if chosen is lone else PAIRS):
            continue
        seen.add(label)
        chosen.append(describe(scene, subjects, len(lone) + 1000 * len(pairs)))
    args.out.write_text(json.dumps({"lone": lone, "pairs": pairs}, indent=1))
    print(f"{len(lone)} prompts of one subject, {len(pairs)} of two")


if __name__ == "__main__":
    main()
