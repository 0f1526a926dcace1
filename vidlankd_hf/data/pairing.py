"""Where captions meet video: which captions are of which video, and the windows they make."""

import json
import math
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..utils.io import atomic_write
from .captions import Caption, read_captions
from .features import FeatureStore
from .matching import check_share, describe_unpaired, match_videos, place_caption
from .streaming import VideoTextStream
from .window_shards import prepare_windows
from .windows import WindowReader, divide


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
    streaming: bool = False,
    cache_dir: str | Path = "outputs/cache",
) -> Dataset | VideoTextStream:
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
        streaming: Return a [`VideoTextStream`] of the same windows instead, whose memory does not depend on how much
            data there are. The captions are then divided once and kept, shard by shard, below `cache_dir`.
        cache_dir: For streaming; a second call with the same arguments and files opens what the first one wrote.

    Raises:
        ValueError: More captions or videos are without their counterpart than `max_unpaired` allows.
    """
    if streaming:
        if shuffle_videos_seed is not None:
            raise ValueError("videos cannot be shuffled with streaming=True: leave out one of the two")
        folder = prepare_windows(
            features, captions, tokenizer, max_length - 2, cache_dir, max_unpaired, caption_format, remove_overlap
        )
        return VideoTextStream(features, folder, streams, seed)
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
        return describe_unpaired(
            features,
            captions,
            known=next(iter([*self.by_video, *self.without_captions])),
            without_video=(len(self.without_video), {caption.video for caption in self.without_video}),
            outside_video=(len(self.outside_video), next(iter(self.outside_video), None)),
            without_captions=(len(self.without_captions), next(iter(self.without_captions), None)),
        )

    def check(self, max_unpaired: float, features: str | Path, captions: str | Path) -> None:
        """Warns of all that found no counterpart, or raises a ValueError if it is more than `max_unpaired` of it."""
        captions_lost = (len(self.without_video) + len(self.outside_video)) / self.num_captions
        share = max(captions_lost, len(self.without_captions) / self.num_videos)
        check_share(self.problems(features, captions), share if self.by_video else math.inf, max_unpaired)

    def write(self, path: str | Path) -> None:
        """Lists all that found no counterpart as jsonl of {"what", "video", "start", "end", "text"}."""
        rows = [{"what": "caption without video", **caption._asdict()} for caption in self.without_video]
        rows += [
            {"what": "caption outside video", **c._asdict(), "duration": duration}
            for c, duration in self.outside_video
        ]
        rows += [{"what": "video without captions", "video": video} for video in self.without_captions]
        atomic_write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


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
        placed = place_caption(caption, video, store.duration(video))
        if placed is None:
            outside_video.append((caption, store.duration(video)))
        else:
            by_video[video].append(placed)
    ordered = {video: sorted(by_video[video], key=lambda c: (c.start, c.end)) for video in sorted(by_video)}
    silent = sorted(set(store.video_ids) - set(by_video))
    return Pairs(ordered, without_video, outside_video, silent, len(store))


def split_by_video(dataset: Dataset | VideoTextStream, share: float, seed: int = 0):
    """Training and held-out windows; no video is in both. About `share` of the videos are held out, at least one.

    Of a stream, `seed` has no meaning: which videos are held out depends on their names alone.
    """
    if isinstance(dataset, VideoTextStream):
        return dataset.split_by_video(share)
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
