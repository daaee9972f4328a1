"""The strikes benchmark's words: what a clip's facts are, how captions tell them, and which are kept for the test.

A combination is a colour, a kind, a material and a count. It is held out where the SHA-256 of its sentence, as a number
modulo 100, is below 12: a rule on combinations, the same for every seed and size of set. Clips in split `test` show
held-out combinations only, those in `train` and `validation` never do.
"""

import hashlib
import re
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from mmdiff.data.manifest import Entry

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white")
KINDS = ("ball", "mallet", "pendulum", "drop")
MATERIALS = ("wood", "metal", "glass", "stone", "drum")
COUNTS = (1, 2, 3, 4)
FACTS = {"colour": COLOURS, "kind": KINDS, "material": MATERIALS, "count": COUNTS}
HELD_OUT_PERCENT = 12

SENTENCES = {
    "ball": (
        "{a_colour} ball bounces {times} on {substance}",
        "{a_colour} ball hits {thing} {times}",
        "{thing} is struck {times} by {a_colour} ball",
    ),
    "mallet": (
        "{a_colour} mallet strikes {thing} {times}",
        "{a_colour} mallet hits {substance} {times}",
        "{thing} is struck {times} by {a_colour} mallet",
    ),
    "pendulum": (
        "{a_colour} pendulum swings against {thing} {times}",
        "{a_colour} pendulum knocks {times} on {substance}",
        "{thing} is struck {times} by {a_colour} pendulum",
    ),
    "drop": (
        "{number} {colour} {drops} on {substance}",
        "{a_colour} drop lands on {thing} {times}",
        "{thing} is struck {times} by {a_colour} drop",
    ),
}
TIMES = ("once", "twice", "three times", "four times")
NUMBERS = ("one", "two", "three", "four")
WORDS: dict[str, tuple[str, Any]] = {
    **{colour: ("colour", colour) for colour in COLOURS},
    **{word: ("kind", kind) for kind in KINDS for word in (kind, f"{kind}s")},
    **{material: ("material", material) for material in MATERIALS},
    "wooden": ("material", "wood"),
    "drums": ("material", "drum"),
    "once": ("count", 1),
    "twice": ("count", 2),
    **{word: ("count", count) for count, word in zip(COUNTS, NUMBERS)},
}


@dataclass(frozen=True)
class Facts:
    """What can be checked in a clip: what colour strikes, what it is, on which material, and how often."""

    colour: str
    kind: str
    material: str
    count: int

    def __str__(self) -> str:
        """Return for example `red ball on wood twice`."""
        return f"{self.detail} {TIMES[self.count - 1]}"

    @property
    def detail(self) -> str:
        """What an event of the manifest holds, for example `red ball on wood`; there is one event for each blow."""
        return f"{self.colour} {self.kind} on {self.material}"

    @property
    def is_held_out(self) -> bool:
        """Whether only the test split may show this combination."""
        return int(hashlib.sha256(str(self).encode()).hexdigest(), 16) % 100 < HELD_OUT_PERCENT


def all_facts() -> list[Facts]:
    """Return every combination there is."""
    return [Facts(*values) for values in product(*FACTS.values())]


def facts_of_split(split: str) -> list[Facts]:
    """Return the combinations that a split may show."""
    return [facts for facts in all_facts() if facts.is_held_out == (split == "test")]


def tell(facts: Facts, rng: np.random.Generator) -> str:
    """Return a caption in one of the phrasings of its kind."""
    sentences = SENTENCES[facts.kind]
    return sentences[rng.integers(len(sentences))].format(
        colour=facts.colour,
        a_colour=f"{'an' if facts.colour[0] in 'aeiou' else 'a'} {facts.colour}",
        substance="a drum" if facts.material == "drum" else facts.material,
        thing={"drum": "a drum", "wood": "a wooden bar"}.get(facts.material, f"a {facts.material} bar"),
        times=TIMES[facts.count - 1],
        number=NUMBERS[facts.count - 1],
        drops="drop falls" if facts.count == 1 else "drops fall",
    )


def read_prompt(text: str) -> dict[str, Any]:
    """Return what a prompt says, by the names of `Facts`; what it leaves open or says in two ways is left out."""
    said: dict[str, set] = {}
    for word in re.findall(r"[a-z]+", text.lower()):
        if word in WORDS:
            name, value = WORDS[word]
            said.setdefault(name, set()).add(value)
    return {name: said[name].copy().pop() for name in FACTS if len(said.get(name, ())) == 1}


def facts_of(entry: Entry) -> Facts:
    """Return the facts of a manifest's row, from its events.

    Errors: `ValueError` where the row is not of this benchmark.
    """
    details = {event.detail for event in entry.events}
    found = re.fullmatch(r"(\w+) (\w+) on (\w+)", details.pop()) if len(details) == 1 else None
    values = dict(zip(FACTS, (*found.groups(), len(entry.events)))) if found else {}
    if not values or any(values[name] not in known for name, known in FACTS.items()):
        raise ValueError(f"{entry.key}: not of the strikes benchmark; make some with `mmdiff-data synthesize strikes`")
    return Facts(**values)
