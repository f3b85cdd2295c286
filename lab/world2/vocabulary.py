"""Words for nouns, colours, patterns, scenes, times of day and motions, and word orders of captions.

The first synonym is the plain word. Training captions never use what is `held_out`.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.world import vocabulary as earlier

from .scenery import SCENES as _SCENES
from .scenery import TIMES
from .things import COLOURS, DRAWN, PATTERNS


@dataclass(frozen=True)
class Words:
    """A name of the world and its words or phrases."""

    name: str
    said: tuple[str, ...]
    held_out: tuple[str, ...] = ()


NOUNS: tuple[Words, ...] = (
    Words("cat", ("cat", "kitten"), ("kitty",)),
    Words("dog", ("dog", "puppy"), ("doggy",)),
    Words("elephant", ("elephant",)),
    Words("giraffe", ("giraffe",)),
    Words("rabbit", ("rabbit", "bunny"), ("hare",)),
    Words("penguin", ("penguin",)),
    Words("turtle", ("turtle", "tortoise")),
    Words("duck", ("duck", "duckling")),
    Words("fish", ("fish",)),
    Words("butterfly", ("butterfly", "moth")),
    Words("snail", ("snail",), ("slug",)),
    Words("car", ("car", "automobile"), ("taxi",)),
    Words("bus", ("bus", "coach")),
    Words("train", ("train", "locomotive")),
    Words("rocket", ("rocket", "spaceship")),
    Words("balloon", ("balloon",)),
)

SCENES: tuple[Words, ...] = (
    Words("street", ("on the street", "on the road", "down the street"), ("along the road",)),
    Words("beach", ("on the beach", "at the seaside", "by the sea"), ("along the beach",)),
    Words("forest", ("in the forest", "in the woods", "among the trees"), ("through the forest",)),
    Words("snow", ("in the snow", "in snowy mountains", "on a snowy mountain"), ("among snowy mountains",)),
    Words("desert", ("in the desert", "on the sand dunes", "among the cactuses"), ("through the desert",)),
    Words(
        "underwater", ("under water", "at the bottom of the ocean", "in the deep sea"), ("deep under water",)
    ),
)

TIMES_OF_DAY: tuple[Words, ...] = (
    Words("day", ("by day", "in daylight")),
    Words("evening", ("in the evening", "at sunset"), ("at dusk",)),
    Words("night", ("at night", "under the stars"), ("in the dark",)),
)

MOTIONS: tuple[Words, ...] = (
    Words("run", ("running", "racing", "moving fast", "dashing"), ("speeding",)),
    Words("jump", ("jumping", "hopping", "leaping"), ("bouncing",)),
    Words("float", ("floating", "hovering", "drifting up and down"), ("bobbing",)),
    Words("rock", ("dancing", "rocking", "swinging"), ("swaying",)),
    Words("still", ("standing still", "resting", "waiting"), ("standing",)),
    Words("pan", ("standing still while the camera looks around", "waiting while the camera pans")),
    Words("hide", ("hiding behind a wall", "playing hide and seek", "playing hide and seek behind a wall")),
    Words("away", ("coming and going", "going away and coming back"), ("leaving and coming back",)),
)

COLOUR_NAMES: tuple[str, ...] = tuple(COLOURS)
PATTERN_WORDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # before the noun, after it
    "plain": (("plain",), ()),
    "striped": (("striped",), ("with stripes",)),
    "spotted": (("spotted",), ("with spots", "with dots")),
}
DIRECTIONS: dict[int, tuple[str, ...]] = {-1: ("to the left", "leftwards"), 1: ("to the right", "rightwards")}

# {n} noun with article and looks, {m} motion, {s} scene, {d} direction, {t} time of day, each with a
# leading space or nothing
TEMPLATES: tuple[str, ...] = (
    "{n} {m}{d} {s}{t}",
    "{n} is {m}{d} {s}{t}",
    "{s}{t} {n} is {m}{d}",
    "{s}{t}, {n} {m}{d}",
    "a video of {n} {m}{d} {s}{t}",
    "{n} {s}{t}, {m}{d}",
    "there is {n} {m}{d} {s}{t}",
)
HELD_OUT_TEMPLATES: tuple[str, ...] = ("a clip of {n} {s} {m}{d}{t}", "{s} there is {n}, {m}{d}{t}")

assert {n.name for n in NOUNS} == set(DRAWN) and {s.name for s in SCENES} == set(_SCENES)
assert tuple(t.name for t in TIMES_OF_DAY) == TIMES and tuple(PATTERN_WORDS) == PATTERNS


def words() -> list[str]:
    """Return every word of training captions; sorted."""
    groups = (NOUNS, SCENES, TIMES_OF_DAY, MOTIONS)
    texts = [said for group in groups for entry in group for said in entry.said] + ["a", "an", *COLOUR_NAMES]
    texts += [w for before, after in PATTERN_WORDS.values() for w in (*before, *after)]
    texts += [w for ways in DIRECTIONS.values() for w in ways]
    return words_of([*texts, *(_bare(t) for t in TEMPLATES)])


def held_out_words() -> list[str]:
    """Return every word that only held-out captions use; sorted."""
    texts = [
        said for group in (NOUNS, SCENES, TIMES_OF_DAY, MOTIONS) for entry in group for said in entry.held_out
    ]
    return sorted({*words_of([*texts, *(_bare(t) for t in HELD_OUT_TEMPLATES)])} - {*words()})


def words_of(texts: list[str]) -> list[str]:
    """Return the words and commas of texts; sorted, unique."""
    return sorted({w for t in texts for w in t.replace(",", " , ").lower().split()})


def _bare(template: str) -> str:
    return template.format(n="", m="", s="", d="", t="")


# The nearest word of this world, for words of `lab.world` and everyday words; others follow its chains.
NEAREST: dict[str, str] = dict(
    pair.split()
    for pair in """
    kitty kitten, tiger cat, doggy puppy, pig elephant, cow elephant, horse giraffe, dinosaur giraffe,
    hare rabbit, sheep rabbit, bird duck, parrot duck, owl penguin, robot penguin, crab turtle, octopus
    turtle, whale fish, dolphin fish, ladybug snail, slug snail, taxi car, truck bus, bicycle car, boat
    car, sailboat car, airplane rocket, helicopter rocket, ufo rocket, walking running, speeding
    running, circling dancing, swaying rocking, bouncing jumping, bobbing floating, pulsing dancing,
    spinning dancing, standing still, hidden hiding, city street, hills mountains, underwater water,
    deserted desert, dusk sunset, dark night, sky stars, morning day, noon day, pink purple, violet
    purple, brown orange, golden yellow, gold yellow, grey white, gray white, dotted spotted, stripy
    striped, leaving going, along on, through in, clip video
    """.split(",")
)


def nearest_words() -> dict[str, str]:
    """Return words outside of training captions and the nearest word inside, where there is one."""
    known = frozenset(words())
    synonyms = {said: noun.name for noun in earlier.NOUNS for said in noun.synonyms}
    found = {}
    for word in {*NEAREST, *earlier.NEAREST, *synonyms} - known:
        target, seen = word, set()
        while target not in known and target not in seen:
            seen.add(target)
            target = NEAREST.get(target) or earlier.NEAREST.get(target) or synonyms.get(target, target)
        if target in known:
            found[word] = target
    return found
