"""Pairs captions with videos by name and time, and reports what has no counterpart."""

import json
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from ..utils.io import atomic_write
from ..utils.messages import number_of
from .captions import Caption
from .features import FeatureStore

logger = logging.getLogger(__name__)

END_TOLERANCE = 1.0  # seconds a caption may outlast the last frame; players and subtitle tools differ by about this
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{2,4}$")
# As yt-dlp writes them: en, en-US, es-419, zh-Hans-en (translated), en-nP7-2PuUl7o (one of several), en-orig.
_LANGUAGE = re.compile(r"\.(?!(?:avi|flv|gif|mkv|mov|mpg|mts|ogg|ogv|vob|wmv)$)[a-z]{2,3}([-_][A-Za-z0-9_-]+)?$")


class Pairs(NamedTuple):
    """Captions grouped by video, sorted by time, and the captions and videos without a counterpart."""

    by_video: dict[str, list[Caption]]
    unpaired: "Unpaired"


def pair_captions(store: FeatureStore, captions: Iterable[Caption]) -> Pairs:
    """Finds the video of each caption by the rules of [`VideoNames`].

    A caption lies outside its video if it starts at or after the end of the video, or ends more than a second after
    it. A caption that ends within that second is cut at the end of the video.

    Args:
        store: The features, whose videos are searched.
        captions: Captions in any order.

    Returns:
        The captions that have a video, and what has no counterpart.

    Raises:
        ValueError: A name is ambiguous.
    """
    unpaired = Unpaired(store)
    by_video = group_by_video(iterate_pairs(store, captions, unpaired, VideoNames(store.video_ids)))
    unpaired.add_videos_without_captions()
    return Pairs(by_video, unpaired)


def iterate_pairs(
    store: FeatureStore, captions: Iterable[Caption], unpaired: "Unpaired", names: "VideoNames"
) -> Iterator[Caption]:
    """Yields each caption under the name and within the time of its video; reports the others to `unpaired`."""
    name, video = None, None
    for caption in captions:
        unpaired.counts["captions"] += 1
        if caption.video != name:
            name, video = caption.video, names.find(caption.video)
        if video is None:
            unpaired.add_without_video(caption)
            continue
        duration = store.duration(video)
        placed = place_caption(caption, video, duration)
        if placed is None:
            unpaired.add_outside_video(caption, duration)
        else:
            unpaired.paired_videos.add(video)
            yield placed


def group_by_video(captions: Iterable[Caption], key: Callable[[str], Any] | None = None) -> dict[str, list[Caption]]:
    """Captions by video; videos are sorted by `key` (default: their names), the captions of each by time."""
    by_video = defaultdict(list)
    for caption in captions:
        by_video[caption.video].append(caption)
    return {video: sorted(by_video[video], key=lambda c: (c.start, c.end)) for video in sorted(by_video, key=key)}


def place_caption(caption: Caption, video: str, duration: float) -> Caption | None:
    """The caption within a video of `duration` seconds, or None if it lies outside."""
    end = duration if caption.end is None else caption.end
    if caption.start >= duration or end > duration + END_TOLERANCE:
        return None
    return caption._replace(video=video, end=min(end, duration))


class VideoNames:
    """Finds the video in the features' index that a name in the captions refers to.

    The first rule that fits applies:

    1. the video has exactly this name;
    2. the video has this name with a suffix (`talk` finds `talk.mp4`);
    3. the video has this name without its suffix (`talk.mp4` finds `talk`), for features that came without files;
    4. the same without a language tag, as in names of subtitle files (`talk.en`, `talk.pt-BR`, `talk.es-419`,
       `talk.fil` and `talk.en-orig` find `talk.mp4` or `talk`).

    A suffix is a dot followed by two to four letters or digits.

    Args:
        video_ids: The ids in the features' index.

    Attributes:
        found: The name that was matched to each video.
    """

    def __init__(self, video_ids: Sequence[str]):
        self._ids = set(video_ids)
        self._by_stem = defaultdict(list)
        for video in video_ids:
            if (stem := _SUFFIX.sub("", video)) != video:  # a name without suffix is found as it is
                self._by_stem[stem].append(video)
        self.found: dict[str, str] = {}

    def find(self, name: str) -> str | None:
        """The id of the video, or None if there is none.

        Raises:
            ValueError: The name fits several videos, or an earlier name was already matched to the same video.
        """
        bare, by_stem = _LANGUAGE.sub("", name), self._by_stem
        choices = ([name], by_stem.get(name, ()), [_SUFFIX.sub("", name)], [bare], by_stem.get(bare, ()))
        fitting = next((ids for choice in choices if (ids := sorted(self._ids.intersection(choice)))), [])
        if len(fitting) > 1:
            raise ValueError(
                f"the video name {name!r} in the captions fits both {fitting[0]!r} and {fitting[1]!r}: use the file "
                "name with its suffix"
            )
        if not fitting:
            return None
        self.match(fitting[0], name)
        return fitting[0]

    def match(self, video: str, name: str) -> None:
        """Notes the name of a video in the captions; raises a `ValueError` if it had another name before."""
        other = self.found.setdefault(video, name)
        if other != name:
            raise ValueError(
                f"the video names {other!r} and {name!r} in the captions both refer to {video!r}: keep one of them, "
                "for example one language"
            )


class Unpaired:
    """Captions and videos without a counterpart.

    Args:
        store: The features.
        file: If given, each row is written there as a line of JSON. By default, rows are collected in `rows`.

    Attributes:
        counts: `captions` (all of them), `without_video`, `outside_video` and `videos_without_captions`.
        rows: Dicts of `what`, `video` and, for captions, `start`, `end` and `text`, in the order of the captions.
        paired_videos: Videos that have captions.
    """

    def __init__(self, store: FeatureStore, file: TextIO | None = None):
        self.store, self.counts, self.paired_videos, self.rows = store, Counter[str](), set[str](), list[dict]()
        self._add = self.rows.append if file is None else lambda row: file.write(_json_line(row))
        self._names: set[str] = set()
        self._first_outside: tuple[Caption, float] | None = None
        self._first_without_captions: str | None = None

    def add_without_video(self, caption: Caption) -> None:
        """Adds a caption whose video has no features."""
        self.counts["without_video"] += 1
        self._names.add(caption.video)
        self._add({"what": "caption without video", **caption._asdict()})

    def add_outside_video(self, caption: Caption, duration: float) -> None:
        """Adds a caption that lies outside its video of `duration` seconds."""
        self.counts["outside_video"] += 1
        self._first_outside = self._first_outside or (caption, duration)
        self._add({"what": "caption outside video", **caption._asdict(), "duration": duration})

    def state(self) -> dict[str, Any]:
        """Counts and names as values for JSON; the rows are in the file."""
        paired, names = sorted(self.paired_videos), sorted(self._names)
        return {"counts": self.counts, "paired": paired, "names": names, "outside": self._first_outside}

    def add(self, state: dict[str, Any]) -> None:
        """Adds the [`state`] of a later part of the captions."""
        self.counts.update(state["counts"])
        self.paired_videos.update(state["paired"])
        self._names.update(state["names"])
        if state["outside"] and not self._first_outside:
            caption, duration = state["outside"]
            self._first_outside = Caption(*caption), duration

    def add_videos_without_captions(self) -> None:
        """Adds the videos that no caption was paired with, after all captions."""
        without = sorted(set(self.store.video_ids) - self.paired_videos)
        self.counts["videos_without_captions"], self._first_without_captions = len(without), next(iter(without), None)
        for video in without:
            self._add({"what": "video without captions", "video": video})

    @property
    def share(self) -> float:
        """The larger of the unpaired shares of captions and of videos; infinite if nothing could be paired."""
        if not self.paired_videos:
            return float("inf")
        lost = self.counts["without_video"] + self.counts["outside_video"]
        return max(lost / self.counts["captions"], self.counts["videos_without_captions"] / len(self.store))

    def problems(self, features: str | Path, captions: str | Path) -> list[str]:
        """Returns a sentence for each kind of problem, with the number of cases and an example.

        Args:
            features, captions: Paths of the features and captions, to be named in the sentences.
        """
        found, counts = [], self.counts
        if counts["without_video"]:
            found.append(
                f"{captions} has {number_of(counts['without_video'], 'caption')} of "
                f"{number_of(len(self._names), 'video')} not in {features}, such as {min(self._names)!r}; the "
                "features are of videos such as "
                f"{self.store.video_ids[0]!r}"
            )
        if self._first_outside:
            caption, duration = self._first_outside
            end = "the end" if caption.end is None else f"{caption.end} s"
            found.append(
                f"{captions} has {number_of(counts['outside_video'], 'caption')} outside the video's time, such as "
                f"{caption.text[:200]!r} of "
                f"{caption.video}: it is from {caption.start} s to {end}, but the video ends at {duration:.2f} s"
            )
        if self._first_without_captions:
            found.append(
                f"{features} has {number_of(counts['videos_without_captions'], 'video')} without caption in "
                f"{captions}, such as "
                f"{self._first_without_captions!r}"
            )
        return found

    def write(self, path: str | Path) -> None:
        """Writes the rows as lines of JSON."""
        atomic_write(path, "".join(map(_json_line, self.rows)))


def check_share(problems: list[str], share: float, max_unpaired: float) -> None:
    """Warns about captions and videos without a counterpart, or refuses them.

    Args:
        problems: Sentences of [`Unpaired.problems`].
        share: [`Unpaired.share`].
        max_unpaired: Largest `share` that is only warned about, from 0 to 1.

    Raises:
        ValueError: `share` is larger than `max_unpaired`, or `max_unpaired` is not between 0 and 1.
    """
    if not 0 <= max_unpaired <= 1:
        raise ValueError(f"max_unpaired is {max_unpaired}: give a share from 0 to 1, such as 0.05")
    if share > max_unpaired:
        raise ValueError(
            f"{'; '.join(problems)}. Use the same file names, extract the missing videos, correct the times, or allow "
            f"a share to be left out (max_unpaired is {max_unpaired:g}, but {min(share, 1):.2g} is needed); "
            "`vidlankd inspect` lists all of them"
        )
    if problems:
        logger.warning("Left out: %s.", "; ".join(problems))


def _json_line(row: dict) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
