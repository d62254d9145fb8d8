"""The named colours: backgrounds, subject tints, and the words people use for each."""

# name -> (RGB 0..255, other words for it). Far enough apart that a classifier can tell them after a little jitter.
BACKGROUNDS = {
    "white": ((250, 250, 250), []),
    "black": ((16, 16, 18), []),
    "gray": ((140, 142, 146), ["grey"]),
    "red": ((214, 38, 42), ["bright red"]),
    "orange": ((250, 140, 32), []),
    "yellow": ((253, 215, 60), ["bright yellow"]),
    "green": ((58, 170, 72), ["bright green"]),
    "dark green": ((18, 82, 46), ["forest green"]),
    "mint": ((172, 236, 196), ["light green", "pale green"]),
    "teal": ((20, 142, 146), ["turquoise"]),
    "light blue": ((150, 208, 248), ["sky blue", "pale blue"]),
    "blue": ((44, 100, 222), ["bright blue"]),
    "navy": ((20, 32, 88), ["dark blue", "navy blue"]),
    "purple": ((116, 52, 168), ["violet"]),
    "lavender": ((206, 186, 244), ["light purple", "lilac"]),
    "pink": ((250, 168, 200), ["light pink"]),
    "brown": ((122, 76, 44), []),
    "beige": ((240, 224, 192), ["cream", "sand"]),
}
BACKGROUND_NAMES = list(BACKGROUNDS)

# Colours a subject can be repainted in.
TINTS = {
    "red": (222, 44, 48),
    "orange": (246, 136, 28),
    "yellow": (246, 204, 44),
    "green": (60, 174, 76),
    "blue": (48, 108, 226),
    "purple": (132, 66, 186),
    "pink": (246, 124, 176),
}
TINT_NAMES = list(TINTS)

# Words in a subject's own name that forbid a repainting ("red apple" is never painted blue).
COLOUR_WORDS = {word for name in [*BACKGROUNDS, *TINTS, "grey", "golden", "gold"] for word in name.split()}
