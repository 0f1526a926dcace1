"""Limits of time and memory for one video."""

from typing import NamedTuple


class Limits(NamedTuple):
    """Limits for one video. A video that exceeds one fails, and the run continues.

    Args:
        stall_seconds: Time without a new clip while the run waits for one, and time without data during a download.
        video_seconds: Total time that the run waits for the clips of a video, and total time of its download.
        memory_bytes: Address space of a decoding child (Linux only), in addition to that of its libraries.
        download_bytes: Size of a downloaded video.
    """

    stall_seconds: float = 60.0
    video_seconds: float = 4 * 3600.0
    memory_bytes: int = 4 * 2**30
    download_bytes: int = 64 * 2**30
