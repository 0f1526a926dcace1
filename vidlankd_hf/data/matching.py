"""Which video a caption is of, and what is said of captions and videos that have no counterpart."""

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from .captions import Caption

logger = logging.getLogger(__name__)

END_TOLERANCE = 1.0  # seconds a caption may outlast the last frame; players and subtitle tools differ by about this
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{2,4}$")
_LANGUAGE = re.compile(r"\.[a-z]{2}(-[A-Za-z]+)?$")


def match_videos(names: Iterable[str], video_ids: Sequence[str]) -> dict[str, str]:
    """The video of the index that each name in the captions means.

    In this order: the video of just this name; of this name and a suffix (`talk` means `talk.mp4`); of this name
    without its suffix (`talk.mp4` means `talk`, as where features came without files); of this name without a tag of
    language, as subtitle files have (`talk.en`, `talk.pt-BR` mean `talk.mp4` or `talk`). A suffix is a dot and two to
    four letters or digits.

    Returns:
        Of each name that means a video.

    Raises:
        ValueError: A name means several videos, or two names mean one.
    """
    videos = VideoNames(video_ids)
    found = {name: videos.find(name) for name in sorted(names)}
    return {name: video for name, video in found.items() if video is not None}


class VideoNames:
    """Finds videos by the rules of [`match_videos`], one name after another."""

    def __init__(self, video_ids: Sequence[str]):
        self._ids = set(video_ids)
        self._by_stem = defaultdict(list)
        for video in video_ids:
            self._by_stem[_SUFFIX.sub("", video)].append(video)
        self._named: dict[str, str] = {}

    def find(self, name: str) -> str | None:
        """The video that `name` means, if any; a ValueError where it may mean two, or another name meant the same."""
        bare, by_stem = _LANGUAGE.sub("", name), self._by_stem
        choices = (
            [name],
            by_stem.get(name, ()),
            [_SUFFIX.sub("", name)],
            [bare],
            by_stem.get(bare, ()) if bare != name else (),
        )
        meant = next((kept for choice in choices if (kept := sorted(self._ids.intersection(choice)))), [])
        if len(meant) > 1:
            raise ValueError(
                f"the captions' video {name!r} may be {meant[0]!r} or {meant[1]!r}: give its file name with suffix"
            )
        if not meant:
            return None
        other = self._named.setdefault(meant[0], name)
        if other != name:
            raise ValueError(
                f"the captions' videos {other!r} and {name!r} both mean {meant[0]!r}: keep one of them, for "
                "example one language"
            )
        return meant[0]


def place_caption(caption: Caption, video: str, duration: float) -> Caption | None:
    """The caption within its video, of `duration` seconds, or None where it is outside."""
    end = duration if caption.end is None else caption.end
    if caption.start >= duration or end > duration + END_TOLERANCE:
        return None
    return caption._replace(video=video, end=min(end, duration))


def describe_unpaired(
    features: str | Path,
    captions: str | Path,
    known: str,
    without_video: tuple[int, set[str]],
    outside_video: tuple[int, tuple[Caption, float] | None],
    without_captions: tuple[int, str | None],
) -> list[str]:
    """One sentence for each kind of what found no counterpart: its number, and the first (or, of names, all)."""
    found = []
    if without_video[0]:
        found.append(
            f"{captions} has {without_video[0]} captions of {len(without_video[1])} videos that are not in "
            f"{features}, such as {min(without_video[1])!r}; the features are of videos such as {known!r}"
        )
    if outside_video[0]:
        caption, duration = outside_video[1]
        end = "the end" if caption.end is None else f"{caption.end} s"
        found.append(
            f"{outside_video[0]} captions lie outside their video, such as {caption.text[:200]!r} of "
            f"{caption.video}: it is from {caption.start} s to {end}, but the video ends at {duration:.2f} s"
        )
    if without_captions[0]:
        found.append(
            f"{without_captions[0]} videos in {features} have no caption in {captions}, such as "
            f"{without_captions[1]!r}"
        )
    return found


def check_share(problems: list[str], share: float, max_unpaired: float) -> None:
    """Warns of what found no counterpart; a ValueError if that is more than `max_unpaired`, or (infinite) all."""
    if not 0 <= max_unpaired <= 1:
        raise ValueError(f"max_unpaired is {max_unpaired}: give a share from 0 to 1, such as 0.05")
    if share > max_unpaired:
        raise ValueError(
            f"{'; '.join(problems)}. Use the same file names, extract the rest, correct the times, or let a share be "
            f"left out (max_unpaired is {max_unpaired:g}, this takes {min(share, 1):.2g}); examples/inspect_data.py "
            "lists all"
        )
    if problems:
        logger.warning("Left out: %s.", "; ".join(problems))
