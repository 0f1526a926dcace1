"""The pictures of the packages, and the noun that each of them shows."""

import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ...utils.extras import requires_extra
from ...utils.json_files import read_json
from .nouns import has_attribute
from .packages import fetch

SIZE = 128  # pixels, the longer side of a rasterised picture
EMOJI = {
    "openmoji": "package/color/svg/{}.svg",
    "twemoji": "package/{}.svg",
    "noto": "package/img/google/64/{}.png",
    "fluent": "package/assets/{}.webp",
}
FILES = {
    "art4apps": ("usr/share/games/pysiogame/res/images/art4apps", ("*.jpg",)),
    "tuxpaint": ("usr/share/tuxpaint/stamps", ("*.png",)),
    "openclipart": ("usr/share/openclipart/png", ("*.png",)),
}
FALLBACK = "openclipart"  # its pictures have the worst colours, so they are used where there is no other
GROUPS_WITH_THINGS = (3, 4, 5, 6, 7)  # animals and plants, food, places and vehicles, activities, objects
BODY = 1  # the group of people and their bodies; only what a benchmark asks about is taken from it
NOT_THINGS = ("actions", "computer", "signs_and_symbols", "shapes", "special", "geography", "unsorted", "people",
              "jobs", "flags", "symbols", "numbers", "alphabets")  # fmt: skip
MOST_OF_ONE_PACKAGE = 3  # pictures of a noun


@dataclass(frozen=True)
class Picture:
    """A picture of a package.

    Args:
        noun: What it shows.
        package: Key of `PACKAGES`.
        path: File.
    """

    noun: str
    package: str
    path: Path


def find_pictures(cache: Path, nouns: list[str]) -> list[Picture]:
    """Finds the pictures of nouns, downloading the packages if needed.

    Args:
        cache: Folder of unpacked packages.
        nouns: The benchmarks' nouns. Emoji of things with other short names are found as well.

    Returns:
        Pictures sorted by noun, package and file.
    """
    asked = {noun for noun in nouns if len(noun) > 2 and not has_attribute(noun)}
    labels = _emoji_labels(fetch("names", cache), asked)
    wanted = asked | {label for label, _ in labels if len(label.split()) <= 2 and label.replace(" ", "").isalpha()
                      and not has_attribute(label)}  # fmt: skip
    found: dict[tuple[str, str], list[Picture]] = {}
    for package, template in EMOJI.items():
        folder = fetch(package, cache)
        for label, code in labels:
            noun, path = noun_of(label, wanted), _emoji_file(folder, template, code)
            if noun and path:
                found.setdefault((noun, package), []).append(Picture(noun, package, path))
    for package, (inside, patterns) in FILES.items():
        folder = fetch(package, cache) / inside
        files = sorted(path for pattern in patterns for path in folder.rglob(pattern))
        for path in files:
            if set(path.relative_to(folder).parts[:-1]) & set(NOT_THINGS):
                continue
            noun = noun_of(name_of(path), wanted, first_words=package == FALLBACK)
            if noun and not (package == FALLBACK and any((noun, other) in found for other in (*EMOJI, *FILES)
                                                         if other != FALLBACK)):  # fmt: skip
                found.setdefault((noun, package), []).append(Picture(noun, package, path))
    return [picture for key in sorted(found) for picture in found[key][:MOST_OF_ONE_PACKAGE]]


def _emoji_labels(folder: Path, asked: set[str]) -> list[tuple[str, str]]:
    """Name and code of each emoji of a thing.

    A tag is a name too if it is in `asked`, a single emoji has it, and none has it as its name.
    """
    rows = read_json(folder / "package" / "en" / "data.json", list, "remove the folder to download it again")
    labels = [
        (row["label"].lower(), row["hexcode"])
        for row in rows
        if row.get("group") in GROUPS_WITH_THINGS or (row.get("group") == BODY and row["label"].lower() in asked)
    ]
    named = {noun_of(label, asked) for label, _ in labels}
    things = [row for row in rows if row.get("group") in GROUPS_WITH_THINGS]
    tags = [(tag, row["hexcode"]) for row in things for tag in row.get("tags", ()) if tag in asked - named]
    counts = Counter(tag for tag, _ in tags)
    return labels + [(tag, code) for tag, code in tags if counts[tag] == 1]


def _emoji_file(folder: Path, template: str, code: str) -> Path | None:
    """The file of an emoji; packages differ in case and in whether they name the variation selector."""
    for name in (code, code.replace("-FE0F", ""), f"{code}-FE0F"):
        for written in (name, name.lower()):
            if (path := folder / template.format(written)).is_file():
                return path
    return None


def name_of(path: Path) -> str:
    """The words in the name of a picture's file: `rosa_Apple-02.png` is `rosa apple`."""
    words = re.sub(r"([a-z])([A-Z])", r"\1 \2", path.stem)
    return " ".join(re.findall(r"[a-z]+", words.lower()))


def noun_of(name: str, wanted: set[str], first_words: bool = False) -> str | None:
    """The noun of a picture with this name; `None` if it shows none of the wanted ones.

    A name is that of a noun if it is the noun in singular or plural, after an attribute word ("red apple") or before
    "face" ("cat face"). With `first_words`, other words may follow, such as the name of the author.
    """
    words = name.replace("-", " ").split()
    if len(words) > 1 and has_attribute(words[0]):
        words = words[1:]
    if len(words) > 1 and words[-1] == "face":
        words = words[:-1]
    lengths = (2, 1) if first_words else (len(words),)
    for length in lengths:
        phrase = " ".join(words[:length])
        for form in (phrase, *singulars(phrase), f"{phrase}s"):
            if form in wanted:
                return form
    return None


def singulars(noun: str) -> list[str]:
    """Possible singular forms of a plural."""
    endings = (("ies", "y"), ("ves", "f"), ("es", ""), ("s", ""))
    return [noun.removesuffix(ending) + new for ending, new in endings if noun.endswith(ending) and len(noun) > 3]


def rasterise(path: Path) -> Image.Image:
    """Reads a picture as RGBA, cut to its content, with a longer side of `SIZE` pixels.

    A picture without transparency loses the background that is connected with its corners.

    Raises:
        ImportError: The extra `real` is not installed.
    """
    if path.suffix == ".svg":
        with requires_extra("real"):
            import resvg_py
        data = resvg_py.svg_to_bytes(svg_path=str(path), width=SIZE)
        image = Image.open(io.BytesIO(data)).convert("RGBA")
    else:
        with Image.open(path) as opened:
            opened.draft("RGB", (2 * SIZE, 2 * SIZE))
            image = opened.convert("RGBA")
        image.thumbnail((2 * SIZE, 2 * SIZE))
    if image.getextrema()[3][0] == 255:
        image = _without_background(image)
    image = image.crop(image.getchannel("A").point(lambda alpha: 255 * (alpha > 32)).getbbox() or (0, 0, *image.size))
    scale = SIZE / max(image.size)
    return image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BILINEAR)


def _without_background(image: Image.Image) -> Image.Image:
    """Makes the area transparent that is connected with a corner and has about its colour."""
    filled = image.convert("RGB")
    mark = (255, 0, 254)
    for corner in ((0, 0), (image.width - 1, 0), (0, image.height - 1), (image.width - 1, image.height - 1)):
        ImageDraw.floodfill(filled, corner, mark, thresh=40)
    pixels = np.array(image)
    pixels[(np.array(filled) == mark).all(-1), 3] = 0
    return Image.fromarray(pixels)


def usable(image: Image.Image) -> bool:
    """Whether a picture shows something: at least a twentieth of it is opaque."""
    return (np.asarray(image.getchannel("A")) > 128).mean() > 0.05


def read_all(pictures: list[Picture]) -> Iterator[tuple[Picture, Image.Image]]:
    """Rasterises pictures one after the other; those that show nothing are left out."""
    for picture in pictures:
        image = rasterise(picture.path)
        if usable(image):
            yield picture, image
