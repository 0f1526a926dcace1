"""Where captions meet video: which captions are of which video, and the windows they make."""

import json
import logging
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from .captions import Caption, read_captions
from .shards import FeatureStore, write_atomically
from .windows import WindowReader, divide

logger = logging.getLogger(__name__)

END_TOLERANCE = 1.0  # seconds a caption may outlast the last frame; players and subtitle tools differ by about this
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{2,4}$")
_LANGUAGE = re.compile(r"\.[a-z]{2}(-[A-Za-z]+)?$")


def load_video_text(
    features: str | Path,
    captions: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int = 128,
    shuffle_videos_seed: int | None = None,
    streams: Sequence[str] | None = None,
    seed: int | None = None,
    max_unpaired: float = 0.0,
    caption_format: str | None = None,
    remove_overlap: bool | None = None,
) -> Dataset:
    """Captioned video as a `datasets.Dataset` with the columns that [`VideoTextCollator`] takes.

    Consecutive captions of a video are joined to windows of at most `max_length` tokens; the windows cover all
    captions. A caption longer than a window is divided between words, and its time in proportion. The clip of a window
    spans its captions' times. With a `seed`, our trainers see other windows in each epoch but the first; there are as
    many, and they cover all captions too.

    Columns: `id` (`video#window`), `video`, `text`, `start` and `end` in seconds, `video_features` [T, F] float16 and
    `times` [T] in seconds. The last two are read from the shards when a row is asked for. To bring your own data, make
    any map-style data set with `id`, `text`, `video_features` and, where a video has several rows, `video`.

    Args:
        features: Folder that `extract_features` wrote.
        captions: File or folder for [`read_captions`].
        tokenizer: Counts the tokens of a window.
        max_length: Most tokens of a window, [CLS] and [SEP] included.
        shuffle_videos_seed: If given, each video's captions are paired with *another* video's clips, chosen once: the
            control in which the teacher sees as much video but learns nothing true from it.
        streams: Of the features, by name; all by default.
        seed: With it, windows start at other lines in each epoch: a pure function of (seed, epoch, video).
        max_unpaired: Captions without video or outside it, and videos without captions, are left out, with a warning,
            up to this share of all captions or of all videos; see [`pair_captions`].
        caption_format, remove_overlap: For [`read_captions`].

    Raises:
        ValueError: More captions or videos are without their counterpart than `max_unpaired` allows.
    """
    store = FeatureStore(features, streams)
    pairs = pair_captions(store, read_captions(captions, caption_format, remove_overlap))
    pairs.check(max_unpaired, features, captions)

    lines, spans = [], {}
    for video, spoken in pairs.by_video.items():
        first = len(lines)
        lines += divide(spoken, tokenizer, max_length - 2)
        spans[video] = (first, len(lines))
    reader = WindowReader(store, lines, max_length - 2, seed, own_clips=shuffle_videos_seed is None)
    rows = [
        {"id": f"{video}#{i}", "video": video, "text": text, "start": start, "end": end,
         "window": i, "first_line": first, "last_line": last}
        for video, (first, last) in spans.items()
        for i, (text, start, end) in enumerate(reader.windows(first, last))
    ]  # fmt: skip
    if shuffle_videos_seed is not None:
        _pair_with_other_videos(rows, store, shuffle_videos_seed)
    return Dataset.from_list(rows).with_transform(reader)


class Pairs(NamedTuple):
    """Captions by the video in the index that they are of, in the order of time, and all that found no counterpart."""

    by_video: dict[str, list[Caption]]
    without_video: list[Caption]
    outside_video: list[tuple[Caption, float]]  # with the duration of the video
    without_captions: list[str]
    num_videos: int

    @property
    def num_captions(self) -> int:
        return sum(map(len, self.by_video.values())) + len(self.without_video) + len(self.outside_video)

    def problems(self, features: str | Path, captions: str | Path) -> list[str]:
        """What found no counterpart, one sentence for each kind, with the number and the first of them."""
        found = []
        if self.without_video:
            videos = sorted({caption.video for caption in self.without_video})
            known = next(iter([*self.by_video, *self.without_captions]))
            found.append(
                f"{captions} has {len(self.without_video)} captions of {len(videos)} videos that are not in "
                f"{features}, such as {videos[0]!r}; the features are of videos such as {known!r}"
            )
        if self.outside_video:
            caption, duration = self.outside_video[0]
            end = "the end" if caption.end is None else f"{caption.end} s"
            found.append(
                f"{len(self.outside_video)} captions lie outside their video, such as {caption.text[:200]!r} of "
                f"{caption.video}: it is from {caption.start} s to {end}, but the video ends at {duration:.2f} s"
            )
        if self.without_captions:
            found.append(
                f"{len(self.without_captions)} videos in {features} have no caption in {captions}, such as "
                f"{self.without_captions[0]!r}"
            )
        return found

    def check(self, max_unpaired: float, features: str | Path, captions: str | Path) -> None:
        """Warns of all that found no counterpart, or raises a ValueError if it is more than `max_unpaired` of it."""
        if not 0 <= max_unpaired <= 1:
            raise ValueError(f"max_unpaired is {max_unpaired}: give a share from 0 to 1, such as 0.05")
        problems = "; ".join(self.problems(features, captions))
        captions_lost = (len(self.without_video) + len(self.outside_video)) / self.num_captions
        share = max(captions_lost, len(self.without_captions) / self.num_videos)
        if share > max_unpaired or not self.by_video:
            raise ValueError(
                f"{problems}. Use the same file names, extract the rest, correct the times, or let a share be left "
                f"out (max_unpaired is {max_unpaired:g}, this takes {share:.2g}); examples/inspect_data.py lists all"
            )
        if problems:
            logger.warning("Left out: %s.", problems)

    def write(self, path: str | Path) -> None:
        """Lists all that found no counterpart as jsonl of {"what", "video", "start", "end", "text"}."""
        rows = [{"what": "caption without video", **caption._asdict()} for caption in self.without_video]
        rows += [
            {"what": "caption outside video", **c._asdict(), "duration": duration}
            for c, duration in self.outside_video
        ]
        rows += [{"what": "video without captions", "video": video} for video in self.without_captions]
        write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def pair_captions(store: FeatureStore, captions: Iterable[Caption]) -> Pairs:
    """Finds the video of each caption, by [`match_videos`], and what has none.

    A caption is outside its video if it starts at or after its end, or ends more than a second after it; within that
    second it is cut to the end.

    Raises:
        ValueError: Names that are ambiguous.
    """
    captions = list(captions)
    matched = match_videos({caption.video for caption in captions}, store.video_ids)
    by_video, without_video, outside_video = defaultdict(list), [], []
    for caption in captions:
        video = matched.get(caption.video)
        if video is None:
            without_video.append(caption)
            continue
        duration = store.duration(video)
        end = duration if caption.end is None else caption.end
        if caption.start >= duration or end > duration + END_TOLERANCE:
            outside_video.append((caption, duration))
        else:
            by_video[video].append(caption._replace(video=video, end=min(end, duration)))
    ordered = {video: sorted(by_video[video], key=lambda c: (c.start, c.end)) for video in sorted(by_video)}
    silent = sorted(set(store.video_ids) - set(by_video))
    return Pairs(ordered, without_video, outside_video, silent, len(store))


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
    ids = set(video_ids)
    by_stem = defaultdict(list)
    for video in video_ids:
        by_stem[_SUFFIX.sub("", video)].append(video)
    found, named = {}, {}
    for name in sorted(names):
        bare = _LANGUAGE.sub("", name)
        choices = [[name], by_stem[name], [_SUFFIX.sub("", name)], [bare], by_stem[bare] if bare != name else []]
        meant = next((kept for choice in choices if (kept := sorted(ids.intersection(choice)))), [])
        if len(meant) > 1:
            raise ValueError(
                f"the captions' video {name!r} may be {meant[0]!r} or {meant[1]!r}: give its file name with suffix"
            )
        if meant:
            other = named.setdefault(meant[0], name)
            if other != name:
                raise ValueError(
                    f"the captions' videos {other!r} and {name!r} both mean {meant[0]!r}: keep one of them, for "
                    "example one language"
                )
            found[name] = meant[0]
    return found


def split_by_video(dataset: Dataset, share: float, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Training and held-out windows; no video is in both. About `share` of the videos are held out, at least one."""
    videos = dataset.with_format(None)["video"]
    names = sorted(set(videos))
    count = max(1, round(share * len(names)))
    if count >= len(names):
        raise ValueError(f"cannot hold out {count} of {len(names)} videos: add videos or lower the share")
    held_out = set(random.Random(seed).sample(names, count))
    indices = [[i for i, v in enumerate(videos) if (v in held_out) == flag] for flag in (False, True)]
    return dataset.select(indices[0]), dataset.select(indices[1])


def _pair_with_other_videos(rows: list[dict], store: FeatureStore, seed: int) -> None:
    names = sorted({row["video"] for row in rows})
    if len(names) < 2:
        raise ValueError("shuffling videos needs at least 2 videos")
    order = random.Random(seed).sample(names, len(names))
    other = dict(zip(order, order[1:] + order[:1]))
    for row in rows:
        video = row["video"] = other[row["video"]]
        scale = store.duration(video)
        row["start"], row["end"] = 0.0, scale
