"""Schemathesis hooks: a request stays what it is, but for what no schema can say and for what only takes long."""

import base64
import pathlib
import re

import schemathesis
from schemathesis.transport.serialization import Binary

FILE = pathlib.Path(__file__).with_name("picture.png").read_bytes()
# The type by which Schemathesis knows that bytes are right where the document says string.
PICTURE = Binary(FILE)
ADDRESS = "data:image/png;base64," + base64.b64encode(FILE).decode()
# The cheapest value of each number, and the bounds within which it stands for the one that was generated.
QUICK = {
    "steps": (1, 1, 1000),
    "num_inference_steps": (1, 1, 1000),
    "n": (1, 1, 10),
    "guidance_scale": (1, 1, 100),
    "cfg_scale": (1, 1, 100),
    # Less strength needs more steps.
    "strength": (1, 0.001, 1),
    # How many layers there are to skip depends on the model; the bound is that of the largest.
    "clip_skip": (1, 1, 12),
}
# A prompt may have 32,000 characters and 1,200 tokens; a schema counts characters alone. A character has up to four
# tokens.
PROMPT_CHARACTERS = 300
MOST_CHARACTERS = 32_000
# Fields that take any text, as which a form writes numbers too.
TEXTS = ("prompt", "negative_prompt", "model", "user")


@schemathesis.hook
def filter_case(context, case):
    """Leaves out a form whose fault it cannot carry: a number where any text is right arrives as that text."""
    if case.media_type != "multipart/form-data" or not isinstance(case.body, dict):
        return True
    return not any(isinstance(case.body.get(name), int | float) for name in TEXTS)


@schemathesis.hook
def before_call(context, case, kwargs):
    """Makes pictures of files' bytes, cuts prompts to what surely fits, and lets every picture be drawn in one step."""
    if isinstance(case.body, dict):
        is_form = case.media_type == "multipart/form-data"
        case.body.update({name: tamed(name, value, is_form) for name, value in case.body.items()})
        if is_form:
            # No header of a part can hold such a name, and no form a null: Schemathesis would write the word.
            for name in [name for name, value in case.body.items() if not name.isprintable() or value is None]:
                del case.body[name]
        # What was valid stays so, and what was not; judged anew, any body with bytes in it would count as not.
        case._sync_validated_hashes()


def tamed(name, value, is_form):
    if is_form and isinstance(value, list):
        return " "  # a form writes no list: an empty one would be no field, and one of one value that value
    if is_form and is_nothing(value):
        return " "  # an empty field of a form is as good as none, which no schema says; a blank one is what it looks like
    if name in ("image", "mask") and is_form and is_file(value):
        return PICTURE
    if name == "images" and isinstance(value, list):
        return [tamed("mask", reference, is_form) for reference in value]
    if name == "mask" and isinstance(value, dict) and is_picture_address(value.get("image_url")):
        return value | {"image_url": ADDRESS}
    if name in ("prompt", "negative_prompt") and isinstance(value, str):
        return value[:PROMPT_CHARACTERS] if len(value) <= MOST_CHARACTERS else value
    if name in QUICK and isinstance(value, int | float) and not isinstance(value, bool):
        quick, least, most = QUICK[name]
        return quick if least <= value <= most else value
    return value


def is_picture_address(value):
    """Whether a schema takes it for a picture: base64 whatever it holds."""
    return isinstance(value, str) and re.fullmatch(r"data:image/(png|jpeg|webp);base64,[A-Za-z0-9+/]+={0,2}", value)


def is_nothing(value):
    """Whether a form writes it as an empty field."""
    return isinstance(value, str) and not value and not getattr(value, "data", b"")


def is_file(value):
    """Whether a schema takes it for a file: any bytes but none. Schemathesis has bytes within an empty str, too."""
    data = getattr(value, "data", value)
    return isinstance(data, bytes | str) and len(data) > 0
