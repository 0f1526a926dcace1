"""Decodes video files with PyAV, holding one frame in memory at a time."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np

from .container import (
    REMEDY,
    VideoError,
    begin_of,
    check_complete,
    explain,
    joins,
    nominal_length,
    open_video,
    video_streams,
)
from .pictures import Pictures

ROUNDING = 1e-3  # seconds; some containers round time stamps to a millisecond
TOGETHER = 0.1  # seconds; picture and sound that start no further apart count as simultaneous (a codec's delay)
DISORDER = 0.1  # seconds by which a frame may be too early without being a jump; it is shown at once, as in a player
LONGEST_FRAME = 3600.0  # seconds that one frame may stay on screen
LONGEST_GAP = 60.0  # the same, in formats of broadcasts, where a longer one is a jump between two recordings


class VideoReader:
    """Opens and checks a video file. [`sample`] and [`frames_at`] decode it.

    Times count from the start of the file's first stream, as in players and subtitles: if the sound of a recording
    starts 5 s before its pictures, the first picture is at 5 s.

    Args:
        path: The video file. Its format is detected from its content, not from its name. No other file is opened:
            playlists are refused.

    Attributes:
        duration: Seconds to the end of the last picture; `None` until [`sample`] has decoded all.
        notes: Sentences about choices made, such as between several video streams.

    Raises:
        VideoError: The file is missing, empty or unreadable, or has no video stream.
        MemoryError: Its frames do not fit into the memory limit of this process.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.duration: float | None = None
        self.notes: list[str] = []
        self._begin = 0.0  # on the file's clock
        container, stream = open_video(self.path)
        with container:
            streams = video_streams(container)
            if len(streams) > 1:
                name = stream.codec_context.name
                self.notes.append(f"of {len(streams)} video streams, number {stream.index} ({name}) is used")

    def sample(self, rates: Sequence[float]) -> Iterator[tuple[int, float, np.ndarray]]:
        """Decodes the file once and yields the pictures on screen at 0, 1/rate, 2/rate, ... seconds for each rate.

        Sampling follows the presentation timestamps, so it is correct for variable frame rates. A picture that stays
        on screen longer than 1/rate is yielded several times, as the same array. If the pictures start after the
        sound, sampling starts with the first picture.

        Args:
            rates: Pictures per second, each > 0.

        Yields:
            `(i, time, image)`: index of the rate, seconds, and the picture as [`Pictures`] makes it, `[height, width,
            3]` uint8 RGB, all of the same size. Times increase for each `i`.

        Raises:
            ValueError: A rate is not positive.
            VideoError: The file cannot be decoded to its end, is truncated, or its timestamps are wrong.
        """
        for rate in rates:
            if not rate > 0:
                raise ValueError(f"Sampling rate {rate} must be > 0 frames per second. Give e.g. 1 or 24.")
        first, due = None, [0] * len(rates)
        taken = list(due)
        for start, end, frame, pictures in self._shown_frames():
            if first is None:
                first = start
                due = [math.ceil((start - ROUNDING) * rate) if start else 0 for rate in rates]
            image = None
            for i, rate in enumerate(rates):
                while (time := due[i] / rate) < end - ROUNDING or not (taken[i] or start):
                    image = pictures.convert(frame) if image is None else image
                    yield i, time, image
                    due[i], taken[i] = due[i] + 1, taken[i] + 1
        if first is None:
            raise VideoError(f"{self.path}: no frame can be decoded. {REMEDY}")
        for i in range(len(rates)):
            if not taken[i]:  # a late and short video at a low rate
                yield i, start, pictures.convert(frame)
        self.duration = end

    def frames_at(self, times: Sequence[float]) -> Iterator[np.ndarray]:
        """Yields the picture on screen at each time, and seeks instead of decoding everything before it.

        Args:
            times: Seconds. Before the first picture, the first one is yielded.

        Yields:
            The picture, `[height, width, 3]` uint8 RGB.

        Raises:
            VideoError: There is no picture at a time, or it cannot be decoded.
        """
        for time in times:
            try:
                image = self._frame_at(time)
            except VideoError:  # some files mark frames as key frames that are not
                image = None
            yield self._decode_until(time) if image is None else image

    def _frame_at(self, time: float) -> np.ndarray | None:
        """The picture found by seeking; None where that is not certain to be the right one."""
        container, stream = open_video(self.path)
        with container, explain(self.path, lambda: f"decoding fails at {time:.2f} s"):
            begin, first = begin_of(container), float((stream.start_time or 0) * stream.time_base)
            if begin is None or joins(container):
                return None
            begin = first if first - begin <= TOGETHER else begin
            if time < first - begin:
                return None
            shown = None
            container.seek(int((begin + time) / stream.time_base), stream=stream, backward=True)
            for frame in container.decode(stream):
                if frame.time is not None and frame.time - begin > time:
                    break
                shown = frame
            return None if shown is None else Pictures(stream).convert(shown)

    def _decode_until(self, time: float) -> np.ndarray:
        shown = None
        for start, _, frame, pictures in self._shown_frames(complete=False):
            if shown is not None and start > time:
                break
            shown = frame, pictures
        if shown is None:
            raise VideoError(f"{self.path}: there is no frame at {time:.2f} s. {REMEDY}")
        return shown[1].convert(shown[0])

    def _shown_frames(self, complete: bool = True) -> Iterator[tuple[float, float, av.VideoFrame, Pictures]]:
        """Yields (start, end, frame, converter): each frame and the times in seconds between which it is on screen.

        Args:
            complete: Whether to check that the file is complete.

        Raises:
            VideoError: The file is damaged or truncated, or its timestamps are wrong.
        """
        previous, start, end, count = None, 0.0, 0.0, 0
        container, stream = open_video(self.path)
        problem = explain(
            self.path, lambda: f"the file is damaged or truncated, since decoding fails after {end:.2f} s"
        )
        with container, problem:
            pictures = Pictures(stream)
            longest = LONGEST_GAP if joins(container) else LONGEST_FRAME
            try:
                for time, length, frame in self._timed_frames(container, stream):
                    count += 1
                    if previous is not None:
                        if time - start > longest:
                            raise VideoError(
                                f"{self.path}: one frame lasts {time - start:.0f} s, so its timestamps are wrong "
                                f"(from {start:.2f} s to {time:.2f} s). {REMEDY}",
                                "wrong times",
                            )
                        yield start, time, previous, pictures
                    previous, start, end = frame, time, time + length
            except av.error.FFmpegError:
                if complete and count:  # more precise, if the end is missing
                    check_complete(self.path, container, stream, self._begin, self._begin + end, count)
                raise
            if complete and count:
                check_complete(self.path, container, stream, self._begin, self._begin + end, count)
        if previous is not None:
            yield start, end, previous, pictures

    def _timed_frames(
        self, container: av.container.InputContainer, stream: av.VideoStream
    ) -> Iterator[tuple[float, float, av.VideoFrame]]:
        """Yields (start, length, frame) in seconds; start never decreases.

        Where recordings were joined, timestamps start again. In formats that allow it, the second recording follows
        the first, as players show it.

        Raises:
            VideoError: Timestamps jump back in another format.
        """
        nominal, may_join, unit = nominal_length(stream), joins(container), stream.time_base
        origin, start, before, length = None, 0.0, None, 0.0
        for count, frame in enumerate(container.decode(stream)):
            # Raw streams and some AVI files have no timestamps; their frames are evenly spaced.
            time = frame.time if frame.time is not None else count * nominal
            if origin is None:
                begin = begin_of(container)
                origin = time if begin is None or time - begin <= TOGETHER else begin
                self._begin = origin
            elif time < before - DISORDER:
                place = f"from {before - origin:.2f} s to {time - origin:.2f} s"
                if not may_join:
                    raise VideoError(
                        f"{self.path}: the timestamps jump back {place}. Repair the file, for example with ffmpeg "
                        "-fflags +genpts, or remove it.",
                        "wrong times",
                    )
                self._note(f"the timestamps jump back {place}: joined recordings, read one after another")
                origin = time - start - length
            before, start = time, max(start, time - origin)
            # This equals float(frame.duration * frame.time_base), without the slow arithmetic of fractions.
            length = frame.duration * unit.numerator / unit.denominator if frame.duration else nominal
            yield start, length, frame

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)
