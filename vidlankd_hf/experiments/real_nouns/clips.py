"""Moving clips: a picture slides over a plain, muted background; encoded as video."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from ...utils.io import atomic_dir, atomic_write
from ..world.render import write_video
from .captions import PATCH_COLOURS, caption, patch_caption
from .pictures import Picture, read_all
from .sizes import CENTIMETERS

SIDE = 96  # pixels
FRAMES = 24  # two seconds
SCALES = (0.6, 0.85)  # longer side of the picture, as a share of the frame
SIZE_SCALES = (0.35, 0.95)  # the same of the smallest and the largest object, if relative sizes are kept
PATCHES_PER_COLOUR = 30


def make_clips(
    pictures: list[Picture], folder: Path, seed: int, with_patches: bool = False, keep_sizes: bool = False
) -> int:
    """Renders a clip and writes a caption for every picture.

    `folder` then holds `videos/*.mp4`, `captions.jsonl` ({video, start, end, text}) and `pictures.jsonl` ({video,
    noun, package}). It appears when everything is complete.

    Args:
        pictures: The pictures.
        folder: New folder.
        seed: Seed of places, movements, backgrounds and captions.
        with_patches: Whether to add clips of plain colours, captioned with the colour.
        keep_sizes: Whether objects of known size keep their relative sizes.

    Returns:
        The number of clips.
    """
    captions, shown = [], []
    with atomic_dir(folder) as part:
        (part / "videos").mkdir()
        for number, (picture, image) in enumerate(
            tqdm(read_all(pictures), total=len(pictures), desc="rendering clips", unit="clip")
        ):
            rng = np.random.default_rng((seed, number))
            video = f"clip-{number:05d}.mp4"
            write_video(part / "videos" / video, slide(image, rng, scale_of(picture.noun) if keep_sizes else None))
            captions.append({"video": video, "start": 0.0, "end": 2.0, "text": caption(picture.noun, rng)})
            shown.append({"video": video, "noun": picture.noun, "package": picture.package})
        if len(shown) < len(pictures):
            print(f"{len(pictures) - len(shown)} pictures are almost empty and left out.")
        for colour, rgb in PATCH_COLOURS.items() if with_patches else ():
            for number in range(PATCHES_PER_COLOUR):
                rng = np.random.default_rng((seed, 1, number, *rgb))
                video = f"patch-{colour}-{number:02d}.mp4"
                write_video(part / "videos" / video, patch(rgb, rng))
                captions.append({"video": video, "start": 0.0, "end": 2.0, "text": patch_caption(colour, rng)})
        atomic_write(part / "captions.jsonl", "".join(json.dumps(line) + "\n" for line in captions))
        atomic_write(part / "pictures.jsonl", "".join(json.dumps(line) + "\n" for line in shown))
    return len(captions)


def scale_of(noun: str) -> float | None:
    """Longer side of an object in its relative size, as a share of the frame; `None` if its size is not known.

    It grows with the logarithm of the size, because a truck is two thousand times as long as an ant.
    """
    if noun not in CENTIMETERS:
        return None
    ends = np.log([min(CENTIMETERS.values()), max(CENTIMETERS.values())])
    return float(np.interp(np.log(CENTIMETERS[noun]), ends, SIZE_SCALES))


def slide(image: Image.Image, rng: np.random.Generator, scale: float | None = None) -> np.ndarray:
    """Frames `[FRAMES, SIDE, SIDE, 3]` uint8 in which a picture moves from one random place to another.

    Args:
        image: The picture.
        rng: Chooses places, background and, without `scale`, the scale.
        scale: Longer side of the picture, as a share of the frame.
    """
    factor = (rng.uniform(*SCALES) if scale is None else scale) * SIDE / max(image.size)
    image = image.resize([max(1, round(side * factor)) for side in image.size], Image.Resampling.BILINEAR)
    room = np.array([SIDE - image.width, SIDE - image.height])
    start, end = rng.uniform(0, 1, (2, 2)) * room
    background = _background(rng)
    frames = []
    for time in np.linspace(0, 1, FRAMES):
        frame = Image.new("RGB", (SIDE, SIDE), background)
        x, y = np.round(start + time * (end - start)).astype(int)
        frame.paste(image, (int(x), int(y)), image)
        frames.append(np.asarray(frame))
    return np.stack(frames)


def patch(rgb: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """Frames `[FRAMES, SIDE, SIDE, 3]` uint8 of a moving square of about one colour."""
    tint = tuple(int(value) for value in np.clip(rng.normal(rgb, 12), 0, 255))
    side = int(rng.uniform(*SCALES) * SIDE)
    return slide(Image.new("RGBA", (side, side), (*tint, 255)), rng)


def _background(rng: np.random.Generator) -> tuple[int, int, int]:
    """A muted tint between dark and light grey."""
    grey = rng.uniform(60, 200)
    return tuple(int(value) for value in np.clip(grey + rng.uniform(-18, 18, 3), 0, 255))
