"""The nouns: which ones the benchmarks ask about, which words are attributes, and which nouns the recipe may be
chosen on."""

import hashlib
import re
from pathlib import Path

from ...evaluation.zero_shot import CODA_COLORS, COLORS, MATERIALS, VICOMTE_COLORS, ZERO_SHOT

SHAPES = ("round", "square", "triangular", "rectangular", "oval", "circular", "flat", "long", "curved", "cross",
          "cube", "cylinder", "circle", "triangle", "rectangle", "sphere", "cone")  # fmt: skip
OTHER_COLOURS = ("golden", "violet", "cyan", "magenta", "beige", "tan", "turquoise", "dark", "light", "bright", "pale",
                 "colorful", "coloured", "colored")  # fmt: skip
SIZES = ("big", "small", "large", "little", "tiny", "huge", "tall", "short", "wide", "narrow", "larger", "smaller",
         "taller", "shorter", "bigger")  # fmt: skip
OTHER_MATERIALS = ("wooden", "steel", "silver", "brass", "copper", "wool", "silk", "clay", "metallic")
ATTRIBUTES = frozenset(
    (*COLORS, *CODA_COLORS, *VICOMTE_COLORS, *MATERIALS, *SHAPES, *OTHER_COLOURS, *SIZES, *OTHER_MATERIALS)
)
PROBED_SETS = ("memory_colors", "coda", "vicomte_color", "vicomte_material")
PARTS = ("selection", "report")


def has_attribute(text: str) -> bool:
    """Whether a text has a word for a colour, shape, size or material."""
    return not ATTRIBUTES.isdisjoint(re.findall(r"[a-z]+", text.lower()))


def part_of(noun: str, memory_colors: frozenset[str]) -> str:
    """Whether a noun is for choosing the recipe or for the report: `"selection"` or `"report"`.

    All nouns of Memory Colors are for the report. The others are divided by a hash, the same in every run.
    """
    if noun in memory_colors:
        return "report"
    return PARTS[hashlib.sha256(noun.encode()).digest()[0] % 2]


def read_items(name: str, source: str | Path) -> list[dict]:
    """The items of a set of `ZERO_SHOT` of all its splits, with objects in lower case, the first item of each object.

    Args:
        name: Name of a set with attributes, one of `PROBED_SETS`.
        source: Folder of the benchmarks.
    """
    task = ZERO_SHOT[name]
    items: dict[str, dict] = {}
    for split in task.files:
        for item in task.items(source, split):
            items.setdefault(item["object"].lower(), {**item, "object": item["object"].lower()})
    return list(items.values())


def benchmark_nouns(source: str | Path) -> list[str]:
    """All nouns that the benchmarks ask about, sorted."""
    nouns = {item["object"] for name in PROBED_SETS for item in read_items(name, source)}
    for name in ("spatial_size", "spatial_height", "spatial_position"):
        nouns |= {item[side].lower() for item in ZERO_SHOT[name].items(source) for side in ("object", "other")}
    return sorted(nouns)
