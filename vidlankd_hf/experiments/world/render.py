"""The pictures of the grounded world: colored, moving objects, rendered with numpy and encoded as mp4.

An object has a colour, a shape and a motion. Size, position, direction, speed, exact tint, background, clutter and
noise vary, so that two renderings of an object share only its attributes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

COLOURS = {"red": 0, "yellow": 55, "green": 120, "cyan": 180, "blue": 230, "magenta": 300}  # hue in degrees
SHAPES = ("disc", "square", "triangle", "cross")
MOTIONS = ("rests", "slides", "bounces", "spins")
# The spelling "colour" is part of every world's files and of the committed results.
ATTRIBUTES = {"colour": tuple(COLOURS), "shape": SHAPES, "motion": MOTIONS}

PICTURE_SIZE = 64  # pixels, square
FPS = 12  # extraction samples at 24, so that a clip of 16 frames (2/3 s) holds 8 different ones


@dataclass(frozen=True)
class Look:
    """Colour, shape and motion of an object: values of `ATTRIBUTES`."""

    colour: str
    shape: str
    motion: str


def render_scene(looks: Sequence[Look], num_frames: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Renders a few objects over a cluttered background.

    Args:
        looks: One to three objects.
        num_frames: Length in frames at `FPS`.
        rng: Generator for size, position, speed, tint, background and noise.

    Returns:
        `(frames, visible)`: `[num_frames, 64, 64, 3]` uint8 RGB, and for each object the share of each pixel that it
        covers, `[len(looks), num_frames, 64, 64]` float32 in 0..1.
    """
    # Colours come first until the end, since numpy is slow along an axis of length 3.
    frames = np.repeat(_background(rng)[:, None], num_frames, axis=1)
    visible = np.zeros((len(looks), *frames.shape[1:]), dtype=np.float32)
    time = np.arange(num_frames, dtype=np.float32) / FPS + rng.uniform(0, 10)
    for i, (look, (x, y)) in enumerate(zip(looks, _places(len(looks), rng))):
        dx, dy, angle = _movement(look.motion, time, rng)
        angle = angle + rng.uniform(0, 2 * np.pi)
        rows, columns, coverage, lit = _cover(look.shape, rng.uniform(10, 14), x + dx, y + dy, angle)
        # One half is darker, so that rotation is visible even on a disc.
        shaded = _tint(look.colour, rng)[:, None, None, None] * np.where(lit, np.float32(1), np.float32(0.7))
        window = frames[:, :, rows, columns]
        window += coverage * (shaded - window)
        visible[:, :, rows, columns] *= 1 - coverage
        visible[i, :, rows, columns] = coverage
    frames += rng.standard_normal(frames.shape[1:], dtype=np.float32) * rng.uniform(1, 5)
    return np.stack(list(frames.clip(0, 255, out=frames).astype(np.uint8)), axis=-1), visible


def write_video(path: str | Path, frames: np.ndarray) -> None:
    """Encodes frames `[T, height, width, 3]` uint8 as h264 in mp4 at `FPS`, always to the same bytes."""
    with av.open(str(path), "w", format="mp4") as container:
        # x264's slower presets do not always turn the same frames into the same bytes.
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "20", "preset": "superfast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def _places(count: int, rng: np.random.Generator) -> np.ndarray:
    """Centers `[count, 2]` in pixels: of 30 random draws the one with the largest distance between objects."""
    draws = rng.uniform(16, PICTURE_SIZE - 16, (30, count, 2))
    distances = np.linalg.norm(draws[:, :, None] - draws[:, None], axis=-1) + 1e3 * np.eye(count)
    return draws[distances.min(axis=(1, 2)).argmax()]


def _movement(motion: str, time: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`(dx, dy, angle)`, each `[T]` or, if it does not change, `[1]`, in pixels, pixels and radians."""
    still = np.zeros(1, dtype=time.dtype)
    if motion == "slides":  # back and forth at constant speed, roughly horizontally
        reach, speed, slope = rng.uniform(9, 15), rng.uniform(18, 30), rng.uniform(-0.35, 0.35)
        phase = time * speed / (2 * reach) % 2
        shift = reach * (2 * np.abs(phase - 1) - 1)
        return shift * np.cos(slope), shift * np.sin(slope), still
    if motion == "bounces":
        height, period = rng.uniform(11, 18), rng.uniform(0.5, 0.8)
        return still, height * (0.5 - np.abs(np.sin(np.pi * time / period))), still
    if motion == "spins":
        turns = rng.uniform(0.6, 1.1) * rng.choice([-1, 1])
        return still, still, 2 * np.pi * turns * time
    return still, still, still


def _cover(shape: str, radius: float, x, y, angle) -> tuple[slice, slice, np.ndarray, np.ndarray]:
    """Returns the rows and columns that an object reaches and, of each pixel there, the anti-aliased coverage
    `[T, rows, columns]` in 0..1 and which half of the object it is in. Center and angle are `[T]` or `[1]`; if all
    are `[1]`, so is the first axis of the result."""
    columns, rows = _reached(x, radius), _reached(y, radius)
    x, y, angle = (np.asarray(value, dtype=np.float32)[:, None, None] for value in (x, y, angle))
    right = (np.arange(columns.start, columns.stop, dtype=np.float32) - x) / radius
    down = (np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - y) / radius
    u = np.cos(angle) * right + np.sin(angle) * down
    v = np.cos(angle) * down - np.sin(angle) * right
    coverage = (0.5 - _DISTANCES[shape](u, v) * radius).clip(0, 1)
    return rows, columns, coverage, u < 0


def _reached(centers: np.ndarray, radius: float) -> slice:
    """Pixels along one axis that an object touches in any frame (its outline ends 1.2 radii from its center)."""
    low, high = centers.min() - 1.2 * radius, centers.max() + 1.2 * radius
    return slice(max(0, int(low)), min(PICTURE_SIZE, int(high) + 2))


# Signed distance to the outline in radii, negative inside; all shapes have about the same area.
_DISTANCES = {
    "disc": lambda u, v: np.sqrt(u * u + v * v) - 0.85,
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) - 0.76,
    "triangle": lambda u, v: np.maximum(np.abs(u) * 0.866 - v * 0.5, v) - 0.58,
    "cross": lambda u, v: np.maximum(np.minimum(np.abs(u), np.abs(v)) - 0.3, np.maximum(np.abs(u), np.abs(v)) - 1.0),
}


def _tint(colour: str, rng: np.random.Generator) -> np.ndarray:
    """RGB `[3]` in 0..255 of a hue near the colour's, converted from HSV."""
    hue = (COLOURS[colour] + rng.uniform(-10, 10)) / 60
    saturation, value = rng.uniform(0.75, 1), rng.uniform(0.75, 1)
    k = (np.array([5, 3, 1]) + hue) % 6
    return (255 * value * (1 - saturation * np.minimum(k, 4 - k).clip(0, 1))).astype(np.float32)


def _background(rng: np.random.Generator) -> np.ndarray:
    """A gray gradient with gray blobs, `[3, 64, 64]` float32 in 0..255."""
    grid = np.arange(PICTURE_SIZE, dtype=np.float32)
    slope = rng.uniform(-0.15, 0.15, 2) / PICTURE_SIZE
    light = rng.uniform(0.25, 0.6) + slope[0] * grid[None, :] + slope[1] * grid[:, None]
    for _ in range(rng.integers(2, 6)):
        x, y = rng.uniform(0, PICTURE_SIZE, 2)
        width, height = rng.uniform(2, 7, 2)
        blob = ((grid[None, :] - x) / width) ** 2 + ((grid[:, None] - y) / height) ** 2 < 1
        light = np.where(blob, light + rng.uniform(-0.25, 0.25), light)
    dull = rng.uniform(0.9, 1.1, 3)
    return (255 * light * dull[:, None, None]).astype(np.float32)
