"""Decodes video files with PyAV, holding one frame in memory at a time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

ROUNDING = 1e-3  # seconds; some containers round time stamps to a millisecond
# Formats of single files. Playlists (hls, dash, concat, sdp, ...) are left out: they open the files or URLs they name.
FORMATS = (
    "mov,matroska,webm,avi,flv,mpeg,mpegts,mpegvideo,ogg,asf,wtv,rm,nut,mxf,gxf,dv,ivf,gif,swf,nsv,nuv,h261,h263,h264,"
    "hevc,vvc,m4v,av1,obu,vc1,mjpeg,yuv4mpegpipe"
)
LOCAL_ONLY = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
LONGEST_FRAME = 3600.0  # seconds that one frame may stay on screen
REMEDY = "Give a video that FFmpeg can read (mp4, webm, mkv, avi, ...), or remove this file."


class VideoReader:
    """Opens and checks a video file. [`sample`] and [`frames_at`] decode it.

    Args:
        path: The video file. Its format is detected from its content, not from its name. No other file is opened:
            playlists are refused.

    Attributes:
        duration: Seconds from the first frame to the end of the last one; `None` until [`sample`] has decoded all.

    Raises:
        ValueError: The file is missing, empty or unreadable, or has no video stream.
        MemoryError: Its frames do not fit into the memory limit of this process.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.duration: float | None = None
        with self._open():
            pass

    def sample(self, rates: Sequence[float]) -> Iterator[tuple[int, float, np.ndarray]]:
        """Decodes the file once and yields the frames on screen at 0, 1/rate, 2/rate, ... seconds for each rate.

        Sampling follows the presentation timestamps, so it is correct for variable frame rates. A frame that stays on
        screen longer than 1/rate is yielded several times, as the same array.

        Args:
            rates: Frames per second, each > 0.

        Yields:
            `(i, time, image)`: index of the rate, seconds since the first frame, and the frame upright as
            `[height, width, 3]` uint8 RGB. Times increase for each `i`.

        Raises:
            ValueError: A rate is not positive, or the file cannot be decoded to its end.
        """
        for rate in rates:
            if not rate > 0:
                raise ValueError(f"Sampling rate {rate} must be > 0 frames per second. Give e.g. 1 or 24.")
        reformatter = VideoReformatter()
        taken = [0] * len(rates)
        end = None
        for until, frame in self._shown_frames():
            stays = until - (end or 0.0)
            if stays > LONGEST_FRAME:
                raise ValueError(f"{self.path}: one frame lasts {stays:.0f} s, so its timestamps are wrong. {REMEDY}")
            end, image = until, None
            for i, rate in enumerate(rates):
                while (time := taken[i] / rate) < end - ROUNDING or not taken[i]:
                    image = _to_rgb(frame, reformatter) if image is None else image
                    yield i, time, image
                    taken[i] += 1
        if end is None:
            raise ValueError(f"{self.path}: no frame can be decoded. {REMEDY}")
        self.duration = end

    def frames_at(self, times: Sequence[float]) -> Iterator[np.ndarray]:
        """Yields the frame on screen at each time, and seeks instead of decoding everything before it.

        Args:
            times: Seconds since the first frame.

        Yields:
            The frame upright as `[height, width, 3]` uint8 RGB.

        Raises:
            ValueError: There is no frame at a time, or it cannot be decoded.
        """
        for time in times:
            try:
                image = self._frame_at(time, seek=True)
            except ValueError:  # some files mark frames as key frames that are not
                image = self._frame_at(time, seek=False)
            yield image

    def _frame_at(self, time: float, seek: bool) -> np.ndarray:
        with self._open() as container, self._explain(lambda: f"decoding fails at {time:.2f} s"):
            stream = container.streams.video[0]
            begin = float((stream.start_time or 0) * stream.time_base)
            shown = None
            if seek:
                container.seek(int((begin + time) / stream.time_base), stream=stream, backward=True)
            for frame in container.decode(stream):
                if frame.time is not None and frame.time - begin > time:
                    # Before the first frame of a file, show the first one. After a seek it is another time's.
                    shown = frame if shown is None and not seek else shown
                    break
                shown = frame
            if shown is None:
                raise ValueError(f"{self.path}: there is no frame at {time:.2f} s. {REMEDY}")
            return _to_rgb(shown, VideoReformatter())

    def _open(self) -> av.container.InputContainer:
        with self._explain(lambda: "cannot be read as a video"):
            # Some files have titles that are not UTF-8, which does not affect their frames.
            path, options = str(self.path.absolute()), dict(LOCAL_ONLY)
            container = av.open(path, metadata_errors="ignore", container_options=options)
        if not container.streams.video:
            kinds = sorted({stream.type for stream in container.streams}) or "nothing"
            container.close()
            raise ValueError(f"{self.path}: there is no video stream, only {kinds}. {REMEDY}")
        if container.streams.video[0].codec_context is None:
            container.close()
            raise ValueError(f"{self.path}: the installed FFmpeg does not know the codec of its video. {REMEDY}")
        # Several videos are decoded at the same time; threads within one would only take memory.
        container.streams.video[0].codec_context.thread_count = 1
        return container

    @contextmanager
    def _explain(self, problem: Callable[[], str]) -> Iterator[None]:
        """Turns errors of FFmpeg into a ValueError that names the file, the problem and the remedy.

        Args:
            problem: Describes the problem. Called after an error, so that it can tell the time that was reached.
        """
        try:
            yield
        except MemoryError:
            raise
        except (OSError, av.error.FFmpegError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise ValueError(f"{self.path}: {problem()} ({reason}). {REMEDY}") from error

    def _shown_frames(self) -> Iterator[tuple[float, av.VideoFrame]]:
        """Yields (end, frame): each frame and the time in seconds until which it is on screen."""
        previous = None
        for start, length, frame in self._decoded_frames():
            if previous is not None:
                yield start, previous
            previous, end = frame, start + length
        if previous is not None:
            yield end, previous

    def _decoded_frames(self) -> Iterator[tuple[float, float, av.VideoFrame]]:
        """Yields (start, nominal length, frame); start is counted from the first frame and never decreases."""
        origin, start = None, 0.0
        damaged = self._explain(lambda: f"the file is damaged or truncated, since decoding fails after {start:.2f} s")
        with self._open() as container, damaged:
            stream = container.streams.video[0]
            nominal = float(1 / stream.average_rate) if stream.average_rate else 1 / 25
            for count, frame in enumerate(container.decode(stream)):
                # Raw streams and some AVI files have no timestamps; their frames are evenly spaced.
                time = frame.time if frame.time is not None else count * nominal
                origin = time if origin is None else origin
                start = max(start, time - origin)
                length = float(frame.duration * frame.time_base) if frame.duration else nominal
                yield start, length, frame


def _to_rgb(frame: av.VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    # For small frames, a new reformatter per frame and threads in it cost ten times the conversion.
    image = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns else image
