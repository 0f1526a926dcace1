"""A decoding child: a process with little memory of its own that reads paths and writes clips, small and ready.

What a broken or crafted file does to it happens to nothing else. It does not import transformers. Requests are lines
of JSON on standard input, the first with the limits. Each answer is a length in 4 bytes, as much JSON, and for a clip
its pixels:

    {"stream": i, "time": seconds, "shape": [frames, height, width, 3]}     a clip
    {"duration": seconds}                                                   the end of a video
    {"reason": "unreadable" | "memory", "detail": ...}                      the end of one that failed
"""

import ctypes
import json
import os
import resource
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .decode import VideoReader
from .pixels import resized

PR_SET_PDEATHSIG = 1


class Clips:
    """Gathers the frames of one stream to clips.

    Args:
        length: Frames of a clip. The last clip ends with the video and may overlap the one before it; in a video of
            fewer frames the last frame is repeated.
        pixels: See `pixel_settings`.
    """

    def __init__(self, length: int, pixels: dict[str, Any]):
        self.length, self.pixels = length, pixels
        self._frames: deque[tuple[float, np.ndarray]] = deque(maxlen=length)
        self._count = 0
        self._seen: tuple[Any, Any] = (None, None)

    def add(self, time: float, image: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
        """Takes the next frame; yields the clip that it completes, if it does, as (time of its middle, pixels)."""
        if self._seen[0] is not image:  # a frame that is shown for long comes several times
            self._seen = image, resized(image, self.pixels)
        self._frames.append((time, self._seen[1]))
        self._count += 1
        if self._count % self.length == 0:
            yield self._clip()

    def rest(self) -> Iterator[tuple[float, np.ndarray]]:
        """Yields the clip of what no clip has seen yet, if there is any."""
        if self._count % self.length:
            yield self._clip()

    def _clip(self) -> tuple[float, np.ndarray]:
        times, images = zip(*self._frames)
        images += images[-1:] * (self.length - len(images))
        return (times[0] + times[-1]) / 2, np.stack(images)


def video_clips(path: str, streams: list[dict[str, Any]]) -> Iterator[tuple[int, float, np.ndarray] | float]:
    """Yields (stream, time, `[frames, height, width, 3]` uint8) for each clip of a video, then its duration.

    Args:
        path: Of the video.
        streams: For each `{"rate", "clip_length", "pixels"}`.

    Raises:
        ValueError: The file cannot be decoded.
    """
    gathered = [Clips(stream["clip_length"], stream["pixels"]) for stream in streams]
    reader = VideoReader(path)
    for i, time, image in reader.sample([stream["rate"] for stream in streams]):
        yield from ((i, *clip) for clip in gathered[i].add(time, image))
    for i, clips in enumerate(gathered):
        yield from ((i, *clip) for clip in clips.rest())
    yield reader.duration


def answer(request: dict, streams: list[dict], send: Callable[..., None]) -> None:
    """Sends the clips of one video and how it ended."""
    try:
        for item in video_clips(request["path"], streams):
            if isinstance(item, tuple):
                i, time, pixels = item
                send({"stream": i, "time": time, "shape": pixels.shape}, pixels)
            else:
                send({"duration": item})
    except MemoryError as error:
        send({"reason": "memory", "detail": str(error) or "out of memory"})
    except ValueError as error:
        send({"reason": "unreadable", "detail": str(error)})


def main() -> None:
    """Serves requests until standard input ends."""
    # Libraries may print; nothing but answers goes to the pipe.
    pipe = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.readline())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # also if it hangs when the parent is killed
        libraries = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        limit = libraries + settings["memory_bytes"]
        resource.setrlimit(resource.RLIMIT_AS, (limit if most == resource.RLIM_INFINITY else min(limit, most),) * 2)

    def send(message: dict, pixels: np.ndarray | None = None) -> None:
        text = json.dumps(message).encode()
        for part in (len(text).to_bytes(4, "little") + text, pixels):
            view = memoryview(b"" if part is None else part).cast("B")
            while view:
                view = view[pipe.write(view) :]

    send({"ready": True})
    for line in sys.stdin:
        answer(json.loads(line), settings["streams"], send)
