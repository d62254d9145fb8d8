"""Schemathesis hooks: a request stays what it is, but for what no schema can say and for what only takes long."""

import pathlib

import schemathesis

PICTURE = pathlib.Path(__file__).with_name("picture.png").read_bytes()
# The cheapest value of each number, and the bounds within which it stands for the one that was generated.
QUICK = {
    "steps": (1, 1, 1000),
    "num_inference_steps": (1, 1, 1000),
    "n": (1, 1, 10),
    "guidance_scale": (1, 1, 100),
    "cfg_scale": (1, 1, 100),
}
# A prompt may have 32,000 characters and 1,200 tokens; a schema counts characters alone. A character has up to four
# tokens.
PROMPT_CHARACTERS = 300


@schemathesis.hook
def before_call(context, case, kwargs):
    """Makes pictures of files' bytes, cuts prompts to what surely fits, and lets every picture be drawn in one step."""
    if isinstance(case.body, dict):
        case.body = {name: tamed(name, value) for name, value in case.body.items()}


def tamed(name, value):
    if name in ("image", "mask") and is_file(value):
        return PICTURE
    if name in ("prompt", "negative_prompt") and isinstance(value, str):
        return value[:PROMPT_CHARACTERS]
    if name in QUICK and isinstance(value, int | float) and not isinstance(value, bool):
        quick, least, most = QUICK[name]
        return quick if least <= value <= most else value
    return value


def is_file(value):
    """Whether a schema takes it for a file: any bytes but none. Schemathesis has bytes within an empty str, too."""
    data = getattr(value, "data", value)
    return isinstance(data, bytes | str) and len(data) > 0
