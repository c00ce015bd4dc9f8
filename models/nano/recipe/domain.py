"""What nano can say: sentence templates over some two hundred words, for the corpus and for the recogniser's grammar.

A template is words and {slots}; a slot is a list of choices, which may hold slots in turn.
"""

from __future__ import annotations

import random
import re

_SLOTS: dict[str, list[str]] = {
    name: [c.strip() for c in choices.split(",")] if "," in choices else choices.split()
    for name, choices in {
        "digit": "zero one two three four five six seven eight nine",
        "count": "one two three four five six seven eight nine",
        "teen": "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen",
        "tens": "twenty thirty forty fifty sixty seventy eighty ninety",
        "number": "{digit}, {teen}, {tens}, {tens} {count}, {tens} {count}, {count} hundred, "
        "{count} hundred and {tens}",
        "hour": "one two three four five six seven eight nine ten eleven twelve",
        "minute": "ten, fifteen, twenty, twenty five, thirty, forty, forty five, fifty",
        "part": "morning afternoon evening",
        "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
        "month": "January February March April May June July August September October November December",
        "ordinal": "first second third fourth fifth sixth seventh eighth ninth tenth",
        "color": "red green blue yellow black white brown orange",
        "animal": "dog cat fox horse bird fish mouse rabbit tiger monkey",
        "thing": "door window table chair box book lamp radio car bottle paper garden",
        "things": "dogs cats birds books boxes chairs houses",
        "device": "light radio lamp television music heater",
        "adjective": "quick lazy small big old new happy quiet little clever",
        "weather": "cold warm sunny rainy windy cloudy dry hot",
        "name": "Anna Peter Maria David Robert Laura Thomas Emma",
        "food": "coffee water bread cheese apples sugar soup rice",
        "place": "house station market school city park river office",
        "act": "open close clean move paint find bring take",
        "moves": "jumps runs walks looks flies sleeps",
        "where": "over under behind near",
        "unit": "seconds minutes hours days weeks",
        "switch": "on off",
    }.items()
}

_TEMPLATES = [
    "It is {hour} {minute} in the {part}.",
    "Today is {day}, {month} {ordinal}.",
    "The {adjective} {animal} {moves} {where} the {adjective} {animal}.",
    "The {adjective} {color} {animal} {moves} {where} the {adjective} {animal}.",
    "Please {act} the {color} {thing}.",
    "Turn {switch} the {device} in the {place}.",
    "My name is {name}.",
    "Hello {name}, how are you today?",
    "Good {part} {name}, welcome to the {place}.",
    "The weather is {weather} and {weather} today.",
    "I would like some {food} and {food}.",
    "The number is {number}.",
    "Your code is {digit} {digit} {digit} {digit}.",
    "{digit} {digit} {digit} {digit} {digit}.",
    "{digit} {digit} {digit}.",
    "{number} and {number} is {number}.",
    "Wait {number} {unit}.",
    "There are {number} {things} near the {place}.",
    "Can you hear my {adjective} voice?",
    "This is a {adjective} model and it can speak.",
    "Thank you very much, {name}.",
]

_SLOT = re.compile(r"\{(\w+)\}")


def words(text: str) -> list[str]:
    """The words of a text as the recogniser writes them."""
    return re.sub(r"[^a-z ]", "", text.lower()).split()


WORDS = sorted(
    {w for choices in _SLOTS.values() for c in choices for w in words(_SLOT.sub("", c))}
    | {w for t in _TEMPLATES for w in words(_SLOT.sub("", t))}
)
NAMES = {c for slot in ("day", "month", "name") for c in _SLOTS[slot]} | {"I"}


def sentence(rng: random.Random) -> str:
    """One filled template."""
    text = rng.choice(_TEMPLATES)
    while slot := _SLOT.search(text):
        text = text[: slot.start()] + rng.choice(_SLOTS[slot[1]]) + text[slot.end() :]
    return text[0].upper() + text[1:]


def word_string(rng: random.Random, least: int, most: int) -> str:
    """Random words: without them the talker learns the sentences by heart and stops reading."""
    chosen = [rng.choice(WORDS) for _ in range(rng.randint(least, most))]
    spelt = " ".join(w.capitalize() if w.capitalize() in NAMES else w for w in chosen)
    return spelt[0].upper() + spelt[1:] + rng.choice("...?")


def plainly(text: str, rng: random.Random) -> str:
    """The text as people type it: now and then without the full stop, or without the capital."""
    if rng.random() < 0.3:
        text = text.rstrip(".?")
    first = text.split()[0].strip(".,?")
    if rng.random() < 0.3 and first not in NAMES:
        text = text[0].lower() + text[1:]
    return text


def grammar() -> str:
    """A JSGF grammar of exactly the templates."""

    def alternatives(choices: list[str]) -> str:
        return "(" + " | ".join(dict.fromkeys(expand(c) for c in choices)) + ")"

    def expand(text: str) -> str:
        pieces = _SLOT.split(text)
        return " ".join(
            alternatives(_SLOTS[piece]) if i % 2 else " ".join(words(piece)) for i, piece in enumerate(pieces)
        )

    return f"#JSGF V1.0; grammar nano; public <sentence> = {alternatives(_TEMPLATES)} ;"
