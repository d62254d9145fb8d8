"""Which emoji are subjects, and the words that name them.

The choice leaves out what a small model cannot tell apart or should not spend itself on: flags, skin tones, lettered
buttons, the man/woman doubles of a role, clock faces, most signs and arrows.
"""

import json
import re
from collections import Counter
from pathlib import Path

WHOLE_GROUPS = {0, 3, 4, 5, 6, 7}  # smileys, animals, food, places, activities, objects
PEOPLE_SUBGROUPS = {
    "hand-fingers-open", "hand-fingers-partial", "hand-single-finger", "hand-fingers-closed", "hands", "hand-prop",
    "body-parts", "person", "person-role", "person-fantasy",
}
PICKED = {  # from the groups that are otherwise left out
    "warning", "no entry", "prohibited", "radioactive", "yin yang", "peace symbol", "check mark button", "check mark",
    "cross mark", "recycling symbol", "infinity", "sparkle", "red question mark", "red exclamation mark", "atom symbol",
    "red circle", "orange circle", "yellow circle", "green circle", "blue circle", "purple circle", "brown circle",
    "black circle", "white circle", "red square", "orange square", "yellow square", "green square", "blue square",
    "purple square", "brown square", "footprints", "fingerprint", "horse racing", "snowboarder", "ballet dancer",
    "person in lotus position", "person surfing", "play button",
}
DROPPED = re.compile(
    r"o’clock|-thirty|^(wo)?man |^(wo)?man: |^person: |^Mx |waxing|waning|quarter moon|middle finger|^Japanese |^non-|"
    r"^level slider|^card index|banknote$|with (raised|lowered) flag|low volume|medium volume|^couple|^kiss(:|$)|^kaaba|"
    r"^banknote|hourglass not done|round pushpin|backhand index pointing (left|down)|^love hotel|cigarette|nazar|hamsa|"
    r"^placard|^identification|^right anger bubble|^left speech|^closed book|^trolleybus|^oncoming (bus|taxi|police)|"
    r"tilted right|^rolled-up|^page facing|(left|right)wards|^(left|right)-facing|^heart decoration|^hole$|^elevator|"
    r"^(incoming envelope|envelope with arrow|outbox tray|bookmark tabs|linked paperclips|film frames|pager|videocassette)",
)
# Everyday words that the data's labels do not use.
EVERYDAY = {
    "automobile": ["car"], "cat": ["kitty"], "cat face": ["kitten"], "dog face": ["puppy"], "bicycle": ["bike"],
    "snow-capped mountain": ["snowy mountain"], "hot beverage": ["coffee", "cup of coffee", "tea"], "birthday cake": ["cake"],
    "evergreen tree": ["pine tree", "fir tree"], "deciduous tree": ["tree"], "airplane": ["plane", "aeroplane"],
    "red heart": ["heart"], "smiling face with heart-eyes": ["face in love"], "grinning face": ["smiley", "happy face"],
    "face with tears of joy": ["laughing face"], "crying face": ["sad face"], "enraged face": ["angry face"],
    "ghost": ["spooky ghost"], "T-Rex": ["dinosaur", "tyrannosaurus"], "sauropod": ["brontosaurus"], "soft ice cream": ["ice cream cone"],
    "spiral shell": ["seashell", "shell"], "honeybee": ["bee"], "lady beetle": ["ladybug", "ladybird"], "ship": ["big ship"],
    "sailboat": ["boat", "sailing boat"], "hamburger": ["burger", "cheeseburger"], "french fries": ["fries", "chips"],
    "red apple": ["apple"], "tangerine": ["orange fruit", "mandarin"], "ear of corn": ["corn"], "beer mug": ["beer"],
    "wine glass": ["wine", "glass of wine"], "soccer ball": ["football"], "american football": ["rugby ball"],
    "video game": ["game controller", "gamepad"], "mobile phone": ["phone", "smartphone"], "television": ["tv"],
    "laptop": ["notebook computer"], "house with garden": ["home"], "flying saucer": ["ufo"], "high voltage": ["lightning bolt", "lightning"],
    "droplet": ["water drop"], "umbrella with rain drops": ["rainy umbrella"], "snowman without snow": ["plain snowman"],
    "wrapped gift": ["present", "gift"], "balloon": ["party balloon"], "Christmas tree": ["xmas tree"], "jack-o-lantern": ["halloween pumpkin", "pumpkin"],
    "teddy bear": ["plush bear"], "gem stone": ["diamond", "gem"], "t-shirt": ["shirt"], "running shoe": ["sneaker", "shoe"],
    "top hat": ["hat"], "glasses": ["spectacles"], "headphone": ["headphones"], "closed umbrella": ["folded umbrella"],
    "locked": ["padlock", "lock"], "unlocked": ["open padlock", "open lock"], "old key": ["antique key"], "light bulb": ["lightbulb"],
    "magnifying glass tilted left": ["magnifying glass"], "alarm clock": ["clock"], "hourglass done": ["hourglass"],
    "octopus": ["squid-like octopus"], "spouting whale": ["blue whale"], "tropical fish": ["colorful fish"], "horse face": ["horse head"],
    "rabbit face": ["bunny"], "cow face": ["cow head"], "pig face": ["piggy"], "mouse face": ["little mouse"], "monkey face": ["monkey head"],
    "tiger face": ["tiger head"], "lion": ["lion head"], "bear": ["bear head"], "unicorn": ["unicorn head"], "dragon face": ["dragon head"],
    "shortcake": ["piece of cake"], "doughnut": ["donut"], "cooking": ["fried egg"], "chequered flag": ["checkered flag"],
    "fire engine": ["fire truck"], "delivery truck": ["truck", "lorry"], "steam locomotive": ["steam train"], "locomotive": ["steam engine"],
    "police car light": ["siren"], "rocket": ["spaceship", "space rocket"], "ringed planet": ["saturn", "planet"],
    "globe showing Americas": ["earth", "globe", "planet earth"], "person": ["adult"], "merperson": ["merfolk"], "health worker": ["doctor", "nurse"],
    "cook": ["chef"], "mage": ["wizard"], "police officer": ["policeman", "cop"], "red circle": ["red ball"], "skull": ["skeleton head"],
    "pile of poo": ["poop"], "thumbs up": ["like", "thumb up"], "flexed biceps": ["strong arm", "muscle"], "waving hand": ["hello hand"],
    "potted plant": ["house plant"], "herb": ["green leaves"], "leaf fluttering in wind": ["leaf", "leaves"], "maple leaf": ["autumn leaf"],
    "rose": ["red rose"], "tulip": ["pink tulip"], "hibiscus": ["tropical flower"], "blossom": ["flower"], "palm tree": ["coconut tree"],
    "artist palette": ["paint palette", "palette"], "game die": ["dice", "die"], "puzzle piece": ["jigsaw piece"], "guitar": ["electric guitar"],
    "musical keyboard": ["piano"], "camera": ["photo camera"], "battery": ["full battery"], "crossed swords": ["swords"], "dagger": ["sword", "knife blade"],
    "cut of meat": ["steak"], "poultry leg": ["chicken leg", "drumstick"], "spaghetti": ["pasta"], "steaming bowl": ["ramen", "noodles", "bowl of noodles"],
    "bread": ["loaf of bread"], "cheese wedge": ["cheese"], "glass of milk": ["milk"], "candy": ["sweet"], "chocolate bar": ["chocolate"],
}


def key(hexcode: str) -> str:
    """The code points of an emoji without variation selectors: the name all packages agree on."""
    parts = [p for p in hexcode.lower().replace("_", "-").split("-") if p not in ("fe0f", "fe0e")]
    return "-".join(p.lstrip("0") or "0" for p in parts)


def is_subject(entry: dict, subgroup: str) -> bool:
    """Whether an emojibase entry is drawn by this model."""
    label = entry["label"]
    if label in PICKED:
        return True
    if DROPPED.search(label):
        return False
    return entry.get("group") in WHOLE_GROUPS or (entry.get("group") == 1 and subgroup in PEOPLE_SUBGROUPS)


def clean(label: str) -> str:
    """A label as a person would type it."""
    return re.sub(r"\s+", " ", label.replace("’", "'").replace("“", "").replace("”", "").replace(":", "")).strip().lower()


def load(emojibase: Path) -> list[dict]:
    """Every subject as {key, label, everyday, tags}: other everyday words for it, and the data's tags that mean it alone."""
    entries = json.loads((emojibase / "en" / "data.json").read_text())
    subgroups = json.loads((emojibase / "meta" / "groups.json").read_text())["subgroups"]
    chosen = [e for e in entries if is_subject(e, subgroups.get(str(e.get("subgroup")), ""))]
    tags = Counter(clean(t) for e in chosen for t in e.get("tags", []))
    taken = {clean(e["label"]) for e in chosen} | {clean(w) for words in EVERYDAY.values() for w in words}
    subjects = []
    for entry in chosen:
        label = clean(entry["label"])
        everyday = [clean(w) for w in EVERYDAY.get(entry["label"], [])]
        unique = [t for t in map(clean, entry.get("tags", [])) if tags[t] == 1 and t not in taken and len(t) > 2]
        subjects.append({"key": key(entry["hexcode"]), "label": label, "everyday": everyday, "tags": unique})
    return subjects
