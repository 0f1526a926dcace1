"""The decoding child process: reads paths from standard input and writes resized clips to standard output.

A broken or malicious file can only crash this process, whose memory is limited. It does not import transformers, to
start quickly. The first line of standard input has streams and limits, each further line is a request, in JSON:

    {"path": path}                                                          all clips of all streams of a video
    {"path": path, "times": [seconds, ...], "size": [width, height]}        single frames, no larger than size
    {"path": path, "probe": true}                                           only whether it is a video

Each answer is a length in 4 bytes, that many bytes of JSON, and the pixels of a clip:

    {"stream": i, "time": seconds, "shape": [frames, height, width, 3]}     a clip, or a single frame
    {"duration": seconds, "notes": [...]}                                   the video is complete; choices made
    {"reason": reason of a VideoError | "memory", "detail": ...}            the video failed
"""

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
from PIL import Image

from ..utils.children import end_with_parent
from .container import VideoError
from .decode import VideoReader
from .pixels import resized


class Clips:
    """Groups the frames of one stream into clips.

    Args:
        length: Frames per clip. The last clip ends with the video and may overlap the one before it. In a shorter
            video, the last frame is repeated.
        pixels: Output of [`pixel_settings`].
    """

    def __init__(self, length: int, pixels: dict[str, Any]):
        self.length, self.pixels = length, pixels
        self._frames: deque[tuple[float, np.ndarray]] = deque(maxlen=length)
        self._count = 0
        self._seen: tuple[Any, Any] = (None, None)

    def add(self, time: float, image: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
        """Adds the next frame, and yields (time of the middle, pixels) of a clip if the frame completes one."""
        if self._seen[0] is not image:  # a frame that stays on screen is added several times
            self._seen = image, resized(image, self.pixels)
        self._frames.append((time, self._seen[1]))
        self._count += 1
        if self._count % self.length == 0:
            yield self._clip()

    def rest(self) -> Iterator[tuple[float, np.ndarray]]:
        """Yields a last clip if some frames are not in any clip yet."""
        if self._count % self.length:
            yield self._clip()

    def _clip(self) -> tuple[float, np.ndarray]:
        times, images = zip(*self._frames)
        images += images[-1:] * (self.length - len(images))
        return (times[0] + times[-1]) / 2, np.stack(images)


def video_clips(path: str, streams: list[dict[str, Any]]) -> Iterator[tuple[int, float, np.ndarray] | VideoReader]:
    """Yields (stream, time, `[frames, height, width, 3]` uint8) for each clip of a video, then its reader.

    Args:
        path: The video file.
        streams: `{"rate", "clip_length", "pixels"}` for each stream.

    Raises:
        ValueError: The file cannot be decoded.
    """
    gathered = [Clips(stream["clip_length"], stream["pixels"]) for stream in streams]
    reader = VideoReader(path)
    for i, time, image in reader.sample([stream["rate"] for stream in streams]):
        yield from ((i, *clip) for clip in gathered[i].add(time, image))
    for i, clips in enumerate(gathered):
        yield from ((i, *clip) for clip in clips.rest())
    yield reader


def single_frames(
    path: str, times: list[float], size: list[int]
) -> Iterator[tuple[int, float, np.ndarray] | VideoReader]:
    """Yields (0, time, `[1, height, width, 3]` uint8) for the frame on screen at each time, then the reader."""
    reader = VideoReader(path)
    for time, image in zip(times, reader.frames_at(times)):
        thumbnail = Image.fromarray(image)
        thumbnail.thumbnail((size[0], size[1]))
        yield 0, time, np.asarray(thumbnail)[None]
    yield reader


def answer(request: dict, streams: list[dict], send: Callable[..., None]) -> None:
    """Answers a request: sends clips or frames, then how decoding ended."""
    try:
        if "probe" in request:
            items: Iterator = iter([VideoReader(request["path"])])
        else:
            items = single_frames(**request) if "times" in request else video_clips(request["path"], streams)
        for item in items:
            if isinstance(item, tuple):
                i, time, pixels = item
                send({"stream": i, "time": time, "shape": pixels.shape}, pixels)
            else:
                send({"duration": item.duration or 0.0, "notes": item.notes})
    except MemoryError as error:
        send({"reason": "memory", "detail": str(error) or "out of memory"})
    except VideoError as error:
        send({"reason": error.reason, "detail": str(error)})
    except ValueError as error:
        send({"reason": "unreadable", "detail": str(error)})


def main() -> None:
    """Answers requests until standard input ends."""
    # Libraries that print must not write into the pipe.
    pipe = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.readline())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends this one
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    end_with_parent()  # even if it hangs when the parent is killed
    if sys.platform == "linux":
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
