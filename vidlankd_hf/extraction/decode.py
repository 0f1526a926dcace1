"""Video file to frames at a requested rate, by PyAV, streaming: one frame in memory at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

ROUNDING = 1e-3  # seconds; some containers round time stamps to a millisecond
# What is in one file. A playlist (hls, dash, concat, sdp, ...) would open other files or addresses that it names.
FORMATS = (
    "mov", "matroska", "webm", "avi", "flv", "mpeg", "mpegts", "mpegvideo", "ogg", "asf", "wtv", "rm", "nut", "mxf",
    "gxf", "dv", "ivf", "gif", "swf", "nsv", "nuv", "h261", "h263", "h264", "hevc", "vvc", "m4v", "av1", "obu", "vc1",
    "mjpeg", "yuv4mpegpipe",
)  # fmt: skip
LOCAL_ONLY = {"protocol_whitelist": "file", "format_whitelist": ",".join(FORMATS)}
LONGEST_PICTURE = 3600.0  # seconds that one frame may stay on screen
REMEDY = "Give a video that FFmpeg reads (mp4, webm, mkv, avi, ...), or leave this file out."


class VideoReader:
    """A video file, opened and checked; frames are decoded by :meth:`sample`.

    Args:
        path: the video file. Its container is found from its content, not from its name. Nothing but this file is
            opened: a playlist is refused.

    Attributes:
        duration: seconds from the first frame to the end of the last one; known (not None) once all were decoded.

    Raises:
        ValueError: missing, unreadable or empty file, or no video stream in it.
        MemoryError: its pictures do not fit into the memory that this process may take.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.duration: float | None = None
        with self._open():
            pass

    def sample(self, rates: Sequence[float]) -> Iterator[tuple[int, float, np.ndarray]]:
        """Decodes once and yields the frames on screen at the times 0, 1/rate, 2/rate, ... for each rate.

        The times of presentation decide, so variable frame rates come out right; a frame that stays on screen longer
        than 1/rate is yielded several times, as the same array.

        Args:
            rates: frames per second, each > 0.

        Yields:
            ``(i, time, image)``: the index of the rate, seconds since the first frame, and the picture upright as
            ``[height, width, 3]`` uint8 RGB. Times increase for each ``i``.

        Raises:
            ValueError: a rate <= 0, or nothing, or only a part of the file, can be decoded.
        """
        for rate in rates:
            if not rate > 0:
                raise ValueError(f"Sampling rate {rate}: must be > 0 frames per second. Give e.g. 1 or 24.")
        reformatter = VideoReformatter()
        taken = [0] * len(rates)
        end = None
        for until, frame in self._shown_frames():
            stays = until - (end or 0.0)
            if stays > LONGEST_PICTURE:
                raise ValueError(f"{self.path}: one picture stays for {stays:.0f} s: its time stamps jump. {REMEDY}")
            end, image = until, None
            for i, rate in enumerate(rates):
                while (time := taken[i] / rate) < end - ROUNDING or not taken[i]:
                    image = _to_rgb(frame, reformatter) if image is None else image
                    yield i, time, image
                    taken[i] += 1
        if end is None:
            raise ValueError(f"{self.path}: not one frame can be decoded. {REMEDY}")
        self.duration = end

    def _open(self) -> av.container.InputContainer:
        try:
            # Real files carry titles that are not UTF-8; they say nothing about the pictures.
            container = av.open(
                str(self.path.absolute()), metadata_errors="ignore", container_options=dict(LOCAL_ONLY)
            )
        except MemoryError:
            raise
        except (OSError, av.error.FFmpegError) as error:
            raise ValueError(f"{self.path}: cannot be read as a video ({_reason(error)}). {REMEDY}") from error
        if not container.streams.video:
            kinds = sorted({stream.type for stream in container.streams}) or "nothing"
            container.close()
            raise ValueError(f"{self.path}: has no video stream, only {kinds}. {REMEDY}")
        if container.streams.video[0].codec_context is None:
            container.close()
            raise ValueError(f"{self.path}: its video stream is of a codec that FFmpeg here does not know. {REMEDY}")
        return container

    def _shown_frames(self) -> Iterator[tuple[float, av.VideoFrame]]:
        """Yields (end, frame): each frame and the second at which the next one, or nothing, takes its place."""
        previous = None
        for start, length, frame in self._decoded_frames():
            if previous is not None:
                yield start, previous
            previous, end = frame, start + length
        if previous is not None:
            yield end, previous

    def _decoded_frames(self) -> Iterator[tuple[float, float, av.VideoFrame]]:
        """Yields (start, nominal length, frame), start counted from the first frame and never going back."""
        with self._open() as container:
            stream = container.streams.video[0]
            # Videos are decoded side by side; threads inside one would only take memory, a stack and a heap each.
            stream.codec_context.thread_count = 1
            nominal = float(1 / stream.average_rate) if stream.average_rate else 1 / 25
            origin, start = None, 0.0
            try:
                for count, frame in enumerate(container.decode(stream)):
                    # Raw streams and some AVI files carry no time stamps: then frames are evenly spaced.
                    time = frame.time if frame.time is not None else count * nominal
                    origin = time if origin is None else origin
                    start = max(start, time - origin)
                    length = float(frame.duration * frame.time_base) if frame.duration else nominal
                    yield start, length, frame
            except MemoryError:
                raise
            except av.error.FFmpegError as error:
                raise ValueError(
                    f"{self.path}: decoding fails after {start:.2f} s ({_reason(error)}): the file is damaged or cut "
                    f"short. {REMEDY}"
                ) from error


def _to_rgb(frame: av.VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    # A reformatter of its own per frame, and threads in it, cost ten times the conversion of a small picture.
    image = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns else image


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
