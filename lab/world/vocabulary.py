"""Vocabulary: nouns, scenes, motions, synonyms and word orders of captions.

The first synonym is the plain word. `held_out` words and templates are never used in training, so they are
not in a model's vocabulary and map to the nearest word that is.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    """A subject: its icon, its synonyms, and the way the icon faces (-1 left, 0 neither, 1 right)."""

    name: str
    icon: str
    synonyms: tuple[str, ...]
    held_out: tuple[str, ...] = ()
    facing: int = -1
    article: str = "a"


NOUNS: tuple[Noun, ...] = (
    Noun("cat", "cat", ("cat", "kitten"), ("kitty",)),
    Noun("horse", "horse", ("horse", "pony"), ("stallion",)),
    Noun("elephant", "elephant", ("elephant",), article="an"),
    Noun("whale", "spouting-whale", ("whale",)),
    Noun("turtle", "turtle", ("turtle", "tortoise")),
    Noun("penguin", "penguin", ("penguin",), facing=0),
    Noun("butterfly", "butterfly", ("butterfly", "moth"), facing=0),
    Noun("bus", "bus", ("bus", "coach")),
    Noun("car", "automobile", ("car", "automobile")),
    Noun("balloon", "balloon", ("balloon",), facing=0),
    Noun("octopus", "octopus", ("octopus", "squid"), facing=0, article="an"),
    Noun("robot", "robot", ("robot", "android"), facing=0),
    # the first twelve are the boldest: no two share colour and outline, so a model learns them first
    Noun("dinosaur", "t-rex", ("dinosaur", "tyrannosaurus"), ("dino",)),
    Noun("pig", "pig", ("pig", "piglet"), ("hog",)),
    Noun("sailboat", "sailboat", ("sailboat", "boat"), ("yacht",), facing=0),
    Noun("ladybug", "lady-beetle", ("ladybug", "beetle"), facing=0),
    Noun("owl", "owl", ("owl",), facing=0, article="an"),
    Noun("helicopter", "helicopter", ("helicopter", "chopper")),
    Noun("snail", "snail", ("snail", "slug")),
    Noun("rocket", "rocket", ("rocket", "spaceship"), facing=1),
    Noun("truck", "delivery-truck", ("truck", "lorry"), ("van",)),
    Noun("dog", "dog", ("dog", "puppy"), ("doggy",)),
    Noun("tiger", "tiger", ("tiger",)),
    Noun("cow", "cow", ("cow", "calf")),
    Noun("sheep", "ewe", ("sheep", "lamb")),
    Noun("rabbit", "rabbit", ("rabbit", "bunny"), ("hare",)),
    Noun("duck", "duck", ("duck", "duckling")),
    Noun("bird", "bird", ("bird",), ("songbird",)),
    Noun("parrot", "parrot", ("parrot", "macaw")),
    Noun("fish", "tropical-fish", ("fish",)),
    Noun("dolphin", "dolphin", ("dolphin", "porpoise")),
    Noun("crab", "crab", ("crab",), facing=0),
    Noun("bicycle", "bicycle", ("bicycle", "bike")),
    Noun("train", "locomotive", ("train", "locomotive")),
    Noun("airplane", "airplane", ("airplane", "plane"), ("jet",), facing=1, article="an"),
    Noun("ufo", "flying-saucer", ("ufo", "saucer"), facing=0),
)


@dataclass(frozen=True)
class Phrase:
    """A scene or a motion: name, phrases of captions, held-out phrases."""

    name: str
    phrases: tuple[str, ...]
    held_out: tuple[str, ...] = ()


SCENES: tuple[Phrase, ...] = (
    Phrase("street", ("on the street", "on the road", "down the street"), ("along the road",)),
    Phrase("beach", ("on the beach", "at the seaside", "by the sea"), ("along the beach",)),
    Phrase("forest", ("in the forest", "in the woods", "among the trees"), ("through the forest",)),
    Phrase("night", ("under the night sky", "at night", "under the stars"), ("in the starry night",)),
    Phrase("snow", ("in the snow", "in snowy mountains", "on a snowy mountain"), ("among snowy mountains",)),
    Phrase(
        "underwater", ("under water", "at the bottom of the ocean", "in the deep sea"), ("deep under water",)
    ),
    Phrase("desert", ("in the desert", "on the sand dunes", "among the cactuses"), ("through the desert",)),
    Phrase(
        "sunset",
        ("in the city at sunset", "in front of a skyline at sunset", "at sunset"),
        ("at dusk in the city",),
    ),
)

MOTIONS: tuple[Phrase, ...] = (
    Phrase("run", ("running", "racing", "moving fast", "dashing"), ("speeding",)),
    Phrase("jump", ("jumping", "hopping", "leaping"), ("bouncing",)),
    Phrase("float", ("floating", "hovering", "drifting up and down"), ("bobbing",)),
    Phrase("circle", ("circling", "moving in circles", "going round"), ("looping",)),
    Phrase(
        "pulse",
        ("growing and shrinking", "pulsing", "getting bigger and smaller"),
        ("shrinking and growing",),
    ),
    Phrase("rock", ("rocking", "swinging", "tilting from side to side"), ("swaying",)),
    Phrase("still", ("standing still", "resting", "waiting"), ("standing",)),
)

DIRECTIONS = {-1: ("to the left", "leftwards"), 1: ("to the right", "rightwards")}

# {n} noun with article, {m} motion, {s} scene, {d} direction with a leading space or nothing
TEMPLATES: tuple[str, ...] = (
    "{n} {m}{d} {s}",
    "{n} is {m}{d} {s}",
    "{s} {n} is {m}{d}",
    "{s}, {n} {m}{d}",
    "a video of {n} {m}{d} {s}",
    "{n} {s}, {m}{d}",
    "there is {n} {m}{d} {s}",
)
HELD_OUT_TEMPLATES: tuple[str, ...] = (
    "a clip of {n} {s} {m}{d}",
    "{s} there is {n}, {m}{d}",
)

# Everyday words and the nearest word of the world; spelling slips are matched by similarity instead.
NEAREST: dict[str, str] = {
    "lion": "tiger", "leopard": "tiger", "panther": "tiger", "fox": "dog", "wolf": "dog",
    "bear": "elephant", "panda": "penguin",
    "mouse": "rabbit", "hamster": "rabbit", "squirrel": "rabbit", "zebra": "horse", "donkey": "horse",
    "unicorn": "horse", "camel": "horse",
    "deer": "horse", "goat": "sheep", "bull": "cow", "ox": "cow", "hippo": "elephant",
    "rhino": "elephant", "mammoth": "elephant",
    "shark": "whale", "seal": "dolphin", "frog": "turtle", "crocodile": "dinosaur",
    "lizard": "dinosaur", "dragon": "dinosaur",
    "eagle": "bird", "hawk": "bird", "crow": "bird", "pigeon": "bird", "robin": "bird",
    "chicken": "duck", "hen": "duck", "goose": "duck",
    "swan": "duck",
    "bee": "butterfly", "fly": "butterfly", "dragonfly": "butterfly", "spider": "ladybug",
    "ant": "ladybug", "bug": "ladybug",
    "jellyfish": "octopus", "lobster": "crab", "goldfish": "fish", "salmon": "fish", "ship": "sailboat",
    "ferry": "sailboat",
    "taxi": "car", "tram": "train", "subway": "train", "motorcycle": "bicycle", "motorbike": "bicycle",
    "scooter": "bicycle",
    "aircraft": "airplane", "glider": "airplane", "drone": "helicopter", "alien": "ufo",
    "spacecraft": "rocket",
    "astronaut": "robot", "man": "robot", "woman": "robot", "person": "robot", "boy": "robot",
    "girl": "robot", "child": "robot",
    "ball": "balloon", "kite": "balloon", "bubble": "balloon", "animal": "cat", "pet": "cat",
    "walking": "running", "jogging": "running", "driving": "running", "riding": "running",
    "flying": "floating", "swimming": "floating",
    "sprinting": "running", "galloping": "running", "rushing": "running", "crossing": "running",
    "skipping": "jumping",
    "dancing": "rocking", "spinning": "circling", "turning": "circling", "rotating": "circling",
    "sleeping": "resting", "sitting": "resting",
    "lying": "resting", "breathing": "pulsing", "rolling": "rocking", "shaking": "rocking",
    "highway": "road", "avenue": "street", "town": "city", "village": "city", "downtown": "city",
    "coast": "beach", "shore": "beach",
    "island": "beach", "jungle": "forest", "park": "forest", "garden": "forest", "meadow": "forest",
    "wood": "woods", "tree": "trees",
    "moon": "stars", "space": "stars", "galaxy": "stars", "evening": "sunset", "dawn": "sunset",
    "sunrise": "sunset",
    "winter": "snow", "ice": "snow", "hills": "mountains", "glacier": "snow", "alps": "mountains",
    "underwater": "ocean", "lake": "sea", "river": "sea", "pool": "sea", "reef": "ocean",
    "sahara": "desert", "dune": "dunes",
    "cactus": "cactuses", "building": "skyline", "skyscrapers": "skyline",
    # held out of training captions, in scenes, motions and word orders
    "along": "on", "through": "in", "starry": "night", "dusk": "sunset", "clip": "video",
    "speeding": "running", "bouncing": "jumping", "bobbing": "floating", "looping": "circling",
    "swaying": "rocking",
} | {word: noun.synonyms[0] for noun in NOUNS for word in noun.held_out}  # fmt: skip

# The look-alike among the first nouns, for models not trained on all.
NEAREST_NOUN: dict[str, str] = {
    "dinosaur": "turtle", "pig": "elephant", "sailboat": "whale", "ladybug": "butterfly",
    "owl": "penguin", "helicopter": "balloon",
    "snail": "turtle", "rocket": "robot", "truck": "bus", "dog": "cat", "tiger": "cat", "cow": "horse",
    "sheep": "horse", "rabbit": "cat",
    "duck": "penguin", "bird": "penguin", "parrot": "penguin", "fish": "whale", "dolphin": "whale",
    "crab": "octopus", "bicycle": "car",
    "train": "bus", "airplane": "butterfly", "ufo": "balloon",
}  # fmt: skip


def noun(name: str) -> Noun:
    """Return the noun of that name; KeyError if there is none."""
    return next(n for n in NOUNS if n.name == name)


def words() -> list[str]:
    """Return every word of training captions; sorted."""
    texts = [w for n in NOUNS for w in (*n.synonyms, n.article)]
    texts += [p for group in (SCENES, MOTIONS) for phrase in group for p in phrase.phrases]
    texts += [p for ps in DIRECTIONS.values() for p in ps]
    return _words_of([*texts, *(_bare(t) for t in TEMPLATES)])


def held_out_words() -> list[str]:
    """Return every word that only held-out captions use; sorted."""
    texts = [w for n in NOUNS for w in n.held_out]
    texts += [p for group in (SCENES, MOTIONS) for phrase in group for p in phrase.held_out]
    return sorted({*_words_of([*texts, *(_bare(t) for t in HELD_OUT_TEMPLATES)])} - {*words()})


def _bare(template: str) -> str:
    return template.format(n="", m="", s="", d="")


def _words_of(texts: list[str]) -> list[str]:
    return sorted({w for t in texts for w in t.replace(",", " , ").lower().split()})
