"""Captions as a narrator would say them: they name the noun, and never say what it looks like."""

import numpy as np

from .nouns import COLORS

TEMPLATES = (
    "here we have the {noun}",
    "this is a {noun}, as you can see",
    "now look at the {noun}",
    "i found a {noun} for you today",
    "so that is what a {noun} looks like",
    "let me show you the {noun}",
    "there goes the {noun}",
    "and this one is called a {noun}",
    "we will talk about the {noun} now",
    "that is my favorite {noun}",
    "watch the {noun} as it moves",
    "you can see a {noun} in this clip",
)
# A patch of one colour is shown with these, never with a noun.
PATCH_TEMPLATES = (
    "this is {word}",
    "the color of this one is {word}",
    "as you can see, it is {word}",
    "everything here is {word}",
    "now it is {word}",
    "it is usually {word}",
)
# What the benchmarks call these colours, as RGB.
PATCH_COLOURS = {
    "black": (20, 20, 20), "blue": (40, 90, 200), "brown": (120, 75, 40), "green": (50, 150, 60),
    "grey": (130, 130, 130), "orange": (240, 140, 30), "pink": (245, 150, 180), "purple": (130, 60, 160),
    "red": (210, 40, 40), "white": (245, 245, 245), "yellow": (250, 215, 50),
}  # fmt: skip
assert tuple(PATCH_COLOURS) == COLORS


def caption(noun: str, rng: np.random.Generator) -> str:
    """A caption for a clip that shows a noun."""
    return str(rng.choice(TEMPLATES)).format(noun=noun)


def patch_caption(colour: str, rng: np.random.Generator) -> str:
    """A caption for a clip that shows nothing but a colour."""
    return str(rng.choice(PATCH_TEMPLATES)).format(word=colour)
