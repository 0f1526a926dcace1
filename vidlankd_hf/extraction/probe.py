"""Asks FFmpeg, in a child process, which files are videos."""

from collections.abc import Sequence

from .decoders import DecodingChild, Failed, Limits
from .videos import Video


def reasons_against(paths: Sequence[str]) -> list[str | None]:
    """For each file the reason why it is not a video; None for videos."""
    reasons: list[str | None] = []
    child = None
    for path in paths:
        if child is None or not child.is_usable():
            if child is not None:
                child.kill()
            child = DecodingChild([], Limits())
        (event,) = child.decode(Video(path, path, 0.0), path, probe=True)
        reasons.append(event.detail.removeprefix(f"{path}: ") if isinstance(event, Failed) else None)
    if child is not None:
        child.kill()
    return reasons
