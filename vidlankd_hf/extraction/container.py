"""Opens video files with PyAV: which formats are read, which stream is the video, and which length it declares."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.stream import Disposition

# Formats of single files. Playlists (hls, dash, concat, sdp, ...) are left out: they open the files or URLs they name.
FORMATS = (
    "mov,matroska,webm,avi,flv,mpeg,mpegts,mpegvideo,ogg,asf,wtv,rm,nut,mxf,gxf,dv,ivf,gif,swf,nsv,nuv,h261,h263,h264,"
    "hevc,vvc,m4v,av1,obu,vc1,mjpeg,yuv4mpegpipe"
)
LOCAL_ONLY = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
# Formats whose header says how long the video is. For the others, FFmpeg estimates it from what the file holds.
DECLARING = {"mov", "matroska", "avi", "flv", "asf", "rm", "mxf", "gxf", "ivf", "wtv"}
CONTENT = {b"moov", b"moof", b"mdat"}  # boxes of mp4 and mov files
BOXES = CONTENT | {b"ftyp", b"styp", b"free", b"skip", b"wide", b"sidx", b"ssix", b"mfra", b"uuid", b"meta", b"emsg",
                   b"prft", b"pdin", b"udta", b"pnot", b"PICT"}  # fmt: skip
TS_DISCONT = 0x200  # AVFMT_TS_DISCONT of FFmpeg's avformat.h
PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails
SHORTFALL = 0.5  # seconds that may be missing at the end: the rounding of headers and a frame lost to a codec's delay
SHORTFALL_FRAMES = 3
MISSING_FRAMES = 0.1  # share of the frames
REASONS = ("unreadable", "no video", "truncated", "wrong times")
REMEDY = "Give a video that FFmpeg can read (mp4, webm, mkv, avi, ...), or remove this file."


class VideoError(ValueError):
    """A file cannot be decoded as one complete video.

    Args:
        reason: One of `REASONS`.
        detail: The file, the problem and the remedy.
    """

    def __init__(self, detail: str, reason: str = "unreadable"):
        super().__init__(detail)
        self.reason = reason


@contextmanager
def explain(path: Path, problem: Callable[[], str]) -> Iterator[None]:
    """Turns errors of FFmpeg into a [`VideoError`] that names the file, the problem and the remedy.

    Args:
        path: The file.
        problem: Describes the problem. Called after an error, so that it can tell the time that was reached.
    """
    try:
        yield
    except MemoryError:
        raise
    except (OSError, av.error.FFmpegError) as error:
        cause = getattr(error, "strerror", None) or type(error).__name__
        held = bytes_short(path)
        if held is None:
            raise VideoError(f"{path}: {problem()} ({cause}). {REMEDY}") from error
        raise VideoError(f"{path}: {problem()} ({cause}); {held}. {REMEDY}", "truncated") from error


def open_video(path: Path) -> tuple[av.container.InputContainer, av.VideoStream]:
    """Opens a file and chooses its video stream.

    Attached pictures, such as the cover of a recording, do not count. If there are several video streams, the first
    one with the default disposition is taken, otherwise the first one.

    Raises:
        VideoError: The file is missing, empty or unreadable, or has no video stream.
    """
    with explain(path, lambda: "cannot be read as a video"):
        # Some files have titles that are not UTF-8, which does not affect their frames.
        container = av.open(str(path.absolute()), metadata_errors="ignore", container_options=dict(LOCAL_ONLY))
    streams = video_streams(container)
    if not streams:
        kinds = ", ".join(sorted({kind_of(stream) for stream in container.streams})) or "nothing"
        container.close()
        raise VideoError(f"{path}: there is no video stream, only {kinds}. {REMEDY}", "no video")
    stream = streams[0]
    if stream.codec_context is None:
        container.close()
        raise VideoError(f"{path}: the installed FFmpeg does not know the codec of its video. {REMEDY}")
    # Several videos are decoded at the same time; threads within one would only take memory.
    stream.codec_context.thread_count = 1
    return container, stream


def video_streams(container: av.container.InputContainer) -> list[av.VideoStream]:
    """The video streams without attached pictures, best first."""
    streams = [stream for stream in container.streams.video if not stream.disposition & PICTURES]
    return sorted(streams, key=lambda stream: not stream.disposition & Disposition.default)


def kind_of(stream: av.stream.Stream) -> str:
    """`audio`, `subtitle`, ..., or `attached picture`."""
    is_picture = stream.type == "video" and stream.disposition & PICTURES
    return "attached picture" if is_picture else stream.type


def joins(container: av.container.InputContainer) -> bool:
    """Whether timestamps may start again in files of this format, as they do where recordings were joined."""
    return bool(container.format.flags & TS_DISCONT)


def begin_of(container: av.container.InputContainer) -> float | None:
    """The time of the container's first sound or picture in seconds, from which a player counts; None if unknown."""
    return None if container.start_time is None else container.start_time / av.time_base


def check_complete(
    path: Path, container: av.container.InputContainer, stream: av.VideoStream, begin: float, end: float, frames: int
) -> None:
    """Compares what was decoded with what the header declares.

    The file is truncated if its last picture ends more than half a second, and more than three frames, before the
    declared end, if a tenth of the declared frames is missing, or if the file ends inside a part whose size it states.
    Headers that declare no length, such as those of live recordings, are accepted.

    Args:
        path, container, stream: The file, from [`open_video`].
        begin, end: Start of the file and end of its last picture, in seconds on the file's clock.
        frames: Number of decoded frames.

    Raises:
        VideoError: The file is truncated. The message has both figures.
    """
    declared = declared_end(container, stream)
    tolerance = max(SHORTFALL, SHORTFALL_FRAMES * nominal_length(stream))
    if declared is not None and end < declared - tolerance:
        is_own, reached = _own_end(stream) is not None, end
        if not is_own:  # perhaps the sound is longer
            reached = max(end, _last_packet(path))
        if reached < declared - tolerance:
            raise VideoError(
                f"{path}: the file is truncated or damaged: {end - begin:.2f} s could be decoded, but its header "
                f"declares {declared - begin:.2f} s. Fetch it again, or remove it.",
                "truncated",
            )
    expected = _declared_frames(container, stream)
    if frames < (1 - MISSING_FRAMES) * expected - SHORTFALL_FRAMES:
        raise VideoError(
            f"{path}: the file is truncated or damaged: {frames} frames could be decoded, but its header declares "
            f"{expected}. Fetch it again, or remove it.",
            "truncated",
        )
    held = None if 0 < stream.frames <= frames else bytes_short(path)
    if held is not None:
        raise VideoError(f"{path}: the file is truncated: {held}. Fetch it again, or remove it.", "truncated")


def nominal_length(stream: av.VideoStream) -> float:
    """Seconds from one frame to the next, on average."""
    return float(1 / stream.average_rate) if stream.average_rate else 1 / 25


def declared_end(container: av.container.InputContainer, stream: av.VideoStream) -> float | None:
    """The end of the video in seconds on the file's clock as its header declares it; None if it does not."""
    names = set(container.format.name.split(","))
    if not names & DECLARING or not container.duration:
        return None
    whole, own = container.duration / av.time_base, _own_end(stream)
    if "avi" in names and stream.frames and stream.average_rate:
        return stream.frames / float(stream.average_rate)  # FFmpeg lowers the duration of a file without an index
    # Some headers hold the length and some the last time; a tag can be left over from a longer file.
    return whole if own is None else min(own, whole + max(0.0, begin_of(container) or 0.0))


def _own_end(stream: av.VideoStream) -> float | None:
    """The end of the stream itself in seconds on its own clock, from its header or its tag in Matroska."""
    if stream.duration:
        return float((stream.duration + (stream.start_time or 0)) * stream.time_base)
    hours, minutes, seconds = ([*stream.metadata.get("DURATION", "").split(":"), "", ""])[:3]
    try:
        return (int(hours) * 60 + int(minutes)) * 60 + float(seconds)
    except ValueError:
        return None


def _declared_frames(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    """The number of frames that the header declares; 0 if unknown or if edits leave some of them out."""
    if "mov" not in container.format.name.split(",") or not (stream.frames and stream.duration):
        return 0
    seconds = float(stream.duration * stream.time_base)
    return stream.frames if abs(stream.frames * nominal_length(stream) - seconds) <= 0.02 * seconds else 0


def _last_packet(path: Path) -> float:
    """The end of the last packet of any stream, in seconds on the file's clock."""
    end = 0.0
    try:
        with av.open(str(path.absolute()), metadata_errors="ignore", container_options=dict(LOCAL_ONLY)) as container:
            for packet in container.demux():
                if packet.pts is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    except (OSError, av.error.FFmpegError):  # the damaged end of a file that is found truncated
        pass
    return end


def bytes_short(path: Path) -> str | None:
    """Describes where an mp4 or mov file ends inside one of its boxes; None for complete files and other formats.

    Fragmented files have no length in their header, but each of their fragments has its size.
    """
    try:
        size, place = path.stat().st_size, 0
        with open(path, "rb") as file:
            while place + 8 <= size:
                file.seek(place)
                head = file.read(16)
                length, kind = int.from_bytes(head[:4], "big"), head[4:8]
                length = int.from_bytes(head[8:16], "big") if length == 1 else length
                if kind not in BOXES or length < 8:  # another format, bytes after the last box, or a box without size
                    return None
                if place + length > size:
                    where = f"inside its box {kind.decode()!r}, which ends at {place + length:,}"
                    return f"it ends after {size:,} bytes, {where}" if kind in CONTENT else None
                place += length
    except OSError:
        return None
    return None
