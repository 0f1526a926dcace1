"""Turns decoded frames into the pictures that a player shows: upright, with square pixels, without interlacing."""

from fractions import Fraction

import av
import av.filter
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import VideoReformatter
from PIL import Image

from .container import REMEDY, VideoError

SQUARE = 0.01  # pixels that are wider or taller by at most this share count as square
MOST_STRETCHED = 8.0


class Pictures:
    """Converts the frames of one video to `[height, width, 3]` uint8 RGB.

    - The display matrix is applied: rotations by quarter turns, and mirrors.
    - Pixels become square. The shorter side of a pixel is stretched, so nothing is lost.
    - For an interlaced frame only the top field is used, stretched to the full height. It shows one moment; the two
      fields together show moving edges as combs.
    - If the size changes within the video, later pictures are fitted into the first one's size, with black bars, as
      in a player's window.

    Args:
        stream: The video stream.
    """

    def __init__(self, stream: av.VideoStream):
        self._reformatter = VideoReformatter()
        self._name, ratio = stream.container.name, stream.sample_aspect_ratio
        self._stretch = float(ratio) if ratio else 1.0  # width of a pixel / its height
        if abs(self._stretch - 1) <= SQUARE:
            self._stretch = 1.0
        self._shape: tuple[int, int] | None = None
        self._matrices: dict[int, np.ndarray | None] = {}  # display matrices, by the rotation that PyAV finds in them
        self._field: tuple[tuple, av.filter.Graph] | None = None
        if not 1 / MOST_STRETCHED <= self._stretch <= MOST_STRETCHED:
            raise VideoError(
                f"{self._name}: its pixels have an aspect ratio of {ratio.numerator}:{ratio.denominator}, beyond "
                f"{MOST_STRETCHED:g}:1. {REMEDY}"
            )

    def convert(self, frame: av.VideoFrame) -> np.ndarray:
        """The picture of a frame. The first one determines the size of all."""
        image = self._upright(frame)
        if self._shape is None:
            self._shape = image.shape[:2]
        return image if image.shape[:2] == self._shape else _fit(image, *self._shape)

    def _upright(self, frame: av.VideoFrame) -> np.ndarray:
        width, height, stretch = frame.width, frame.height, self._stretch
        if stretch > 1:
            width = round(width * stretch)
        elif stretch < 1:
            height = round(height / stretch)
        matrix = self._matrix(frame)
        if frame.interlaced_frame:
            frame = self._top_field(frame)
        # For small frames, a new reformatter per frame and threads in it cost ten times the conversion.
        image = self._reformatter.reformat(frame, width, height, "rgb24", threads=1).to_ndarray()
        return image if matrix is None else _transformed(image, matrix)

    def _matrix(self, frame: av.VideoFrame) -> np.ndarray | None:
        """The display matrix of a frame, which is read once: a file has one for all its frames.

        A frame whose side data are read refers to itself, and stays in memory until the next garbage collection.
        """
        rotation = frame.rotation
        if rotation not in self._matrices:
            matrix = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]
            self._matrices[rotation] = None if matrix is None else np.frombuffer(bytes(matrix), np.int32)
        return self._matrices[rotation]

    def _top_field(self, frame: av.VideoFrame) -> av.VideoFrame:
        kind = frame.width, frame.height, frame.format.name
        if self._field is None or self._field[0] != kind:
            graph = av.filter.Graph()
            time_base = frame.time_base or Fraction(1, 25)
            source = graph.add_buffer(width=kind[0], height=kind[1], format=frame.format, time_base=time_base)
            graph.link_nodes(source, graph.add("field", "type=top"), graph.add("buffersink")).configure()
            self._field = kind, graph
        self._field[1].push(frame)
        return self._field[1].pull()  # type: ignore[return-value]


def _transformed(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Applies a display matrix (FFmpeg's libavutil/display.h), to the nearest quarter turn and mirror."""
    a, b, _, c, d = matrix[:5].tolist()  # a point (x, y) is shown at (a x + c y, b x + d y)
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, a, d = image.swapaxes(0, 1), c, b
    image = image[:, ::-1] if a < 0 else image
    image = image[::-1] if d < 0 else image
    return np.ascontiguousarray(image)


def _fit(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scales an image into this size and fills the rest with black."""
    scale = min(height / image.shape[0], width / image.shape[1])
    inner = max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    fitted = np.zeros((height, width, 3), np.uint8)
    scaled = Image.fromarray(image).resize(inner[::-1], Image.Resampling.BILINEAR)
    fitted[top : top + inner[0], left : left + inner[1]] = np.asarray(scaled)
    return fitted
