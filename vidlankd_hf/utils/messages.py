"""Parts of messages: the name that a mistyped one probably means, and words that agree with their number."""

import difflib
from collections.abc import Collection
from typing import Any


def nearest(name: Any, known: Collection[str], prefix: str = "") -> str:
    """Returns "; did you mean X?" with the known name closest to `name`, or "" if none is close or `name` is known."""
    near = [] if name in known else difflib.get_close_matches(str(name), list(known), 1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def number_of(number: int, noun: str, plural: str | None = None) -> str:
    """Returns `1 video` or `2 videos`."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def name_seeds(seeds: Collection[int]) -> str:
    """Returns `seed 1` or `seeds 1, 2`."""
    return f"{'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}"
