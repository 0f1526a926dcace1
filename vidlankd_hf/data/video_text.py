"""Captioned video as a map-style data set of windows: text and the features of the clip that goes with it."""

import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..utils.messages import number_of
from .captions import naming_the_line, read_captions
from .features import FeatureStore
from .held_out import MOST_HELD_OUT, check_held_out
from .pairing import check_share, pair_captions
from .source_files import combined_hash
from .streaming import HELD_OUT_SHARE, VideoTextStream
from .window_shards import prepare_windows
from .windows import Windows, check_candidates, make_windows, shift_of


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
    caption_encoding: str | None = None,
    mil_candidates: int | None = None,
    caption_columns: Sequence[str] | None = None,
    num_proc: int | None = None,
) -> Dataset | VideoTextStream:
    """Loads captioned video as a data set with the columns that [`VideoTextCollator`] takes.

    Consecutive captions of a video are joined to windows of at most `max_length` tokens; the windows cover all
    captions. A caption longer than a window is divided between words, its time in proportion to the tokens. The clip
    of a window spans the times of its captions. With a `seed`, our trainers see different windows in every epoch after
    the first; their number stays the same, and they cover all captions too.

    Columns: `id` (`video#window`), `video`, `text`, `start` and `end` in seconds, `video_features` `[T, F]` float16
    and `times` `[T]` in seconds. Features and times are read from the shards when a row is accessed. With
    `mil_candidates` there is also `candidates`, a list of texts. To bring your own data, make any map-style data set
    with `id`, `text`, `video_features` and, where a video has several rows, `video`.

    Args:
        features: Folder written by `extract_features`.
        captions: File or folder for [`read_captions`].
        tokenizer: Counts the tokens of a window.
        max_length: Maximum number of tokens of a window, including [CLS] and [SEP].
        shuffle_videos_seed: If given, each video's captions are paired with the clips of a *different* video, drawn
            once with this seed. In this control the teacher sees as much video, but the captions do not describe it.
            With `streaming`, mostly a video of the same shard; see [`OtherVideos`].
        streams: Names of the feature streams to read; all by default.
        seed: If given, windows start at different captions in every epoch, as a pure function of (seed, epoch, video).
        max_unpaired: Captions without a video or outside it, and videos without captions, are left out with a warning
            up to this share of all captions or of all videos; see [`pair_captions`].
        caption_format, remove_overlap, caption_encoding, caption_columns: See [`read_captions`].
        streaming: Return the same windows as a [`VideoTextStream`], whose memory does not depend on the amount of
            data. The captions are divided once and stored below `cache_dir`, one pair of files for each feature shard.
        mil_candidates: If given, `candidates` has the texts of the windows around each one in its video, for the
            contrast `"mil_nce"`: an odd number of texts together with its own, fewer at the edges of the video. They
            change with the epoch as the windows do.
        cache_dir: Used with `streaming`. A second call with the same arguments and files opens the stored windows.
        num_proc: Used with `streaming`: number of processes that divide the captions; default: this one.

    Returns:
        A `datasets.Dataset`, or a [`VideoTextStream`] with `streaming`.

    Raises:
        ValueError: More captions or videos have no counterpart than `max_unpaired` allows, or `mil_candidates` is not
            an odd number.
    """
    check_candidates(mil_candidates)
    max_tokens = max_length - 2
    if streaming:
        folder = prepare_windows(
            features, captions, tokenizer, max_tokens, cache_dir, max_unpaired, caption_format, remove_overlap,
            caption_encoding, caption_columns, num_proc,
        )  # fmt: skip
        return VideoTextStream(features, folder, streams, seed, mil_candidates, shuffle_videos_seed)
    store = FeatureStore(features, streams)
    read = read_captions(captions, caption_format, remove_overlap, caption_encoding, columns=caption_columns)
    by_video, unpaired = pair_captions(store, read)
    check_share(unpaired.problems(features, captions), unpaired.share, max_unpaired)

    with naming_the_line(captions, caption_format, caption_encoding, caption_columns):
        lines, videos, _ = make_windows(by_video, tokenizer, max_tokens)
    windows = Windows(lines, videos, max_tokens)
    rows = [
        {"id": f"{video}#{i}", "video": video, "text": text, "start": start, "end": end, "window": first + i}
        for number, (video, first) in enumerate(zip(by_video, windows.first_windows.tolist()))
        for i, (text, start, end) in enumerate(windows.read_video(number))
    ]
    if shuffle_videos_seed is not None:
        _pair_with_other_videos(rows, store, shuffle_videos_seed)
    reader = WindowReader(store, windows, seed, shuffle_videos_seed is None, mil_candidates)
    return Dataset.from_list(rows).with_transform(reader)


def split_by_video(dataset: Dataset | VideoTextStream, held_out: float | None = None, seed: int = 0) -> tuple:
    """Splits windows into training and held-out data that have no video in common.

    Args:
        dataset: From [`load_video_text`].
        held_out: Approximate share (below 1) or number of the videos to hold out; 0 holds out none. Default: 5 %, but
            at most 10,000 windows, on which the paper measures retrieval. If there are three or more videos, at
            least two are held out.
        seed: Draws the held-out videos. It has no effect on a [`VideoTextStream`], which holds out the videos whose
            names have small hashes, so that their windows need not be listed in memory.

    Returns:
        Training data and held-out data; the latter is None if `held_out` is 0.

    Raises:
        ValueError: `held_out` is neither a share nor a number, or every video would be held out.
    """
    if held_out == 0:
        return dataset, None
    if isinstance(dataset, VideoTextStream):
        return dataset.split_by_video(held_out)
    check_held_out("--held_out_videos", held_out)
    videos = dataset.with_format(None)["video"]
    names = sorted(set(videos))
    share = HELD_OUT_SHARE if held_out is None else held_out
    # With one held-out video, no evaluation batch of a contrastive teacher has a negative.
    count = max(1, min(2, len(names) - 1), round(share * len(names) if share < 1 else share))
    if count >= len(names):
        raise ValueError(
            f"cannot hold out {count} of {number_of(len(names), 'video')}: add videos, or train on all of them with "
            "--held_out_videos 0"
        )
    drawn = random.Random(seed).sample(names, count)
    if held_out is None:
        sizes = Counter(videos)
        windows = list(accumulate(sizes[name] for name in drawn))
        drawn = drawn[: max(2, bisect_right(windows, MOST_HELD_OUT))]
    chosen = set(drawn)
    indices = [[i for i, v in enumerate(videos) if (v in chosen) == flag] for flag in (False, True)]
    return dataset.select(indices[0]), dataset.select(indices[1])


class WindowReader:
    """Transform of the `datasets.Dataset` that [`load_video_text`] returns: adds features to rows of windows.

    In epoch 0 a window is the one in the row. In other epochs [`EpochDataset`] calls [`read`], which divides the
    lines of the video into other windows by a shift, a pure function of (seed, epoch, video). No state changes, so
    order, workers and resuming have no influence.

    Args:
        store: The features.
        windows: The windows of all rows; the column `window` holds a row's number.
        seed: Determines the shifts; None keeps the windows the same in every epoch.
        own_clips: Whether a clip spans the times of its text; false for shuffled videos, whose clips are complete
            videos.
        mil_candidates: See [`load_video_text`].
    """

    def __init__(
        self,
        store: FeatureStore,
        windows: Windows,
        seed: int | None,
        own_clips: bool,
        mil_candidates: int | None = None,
    ):
        self.store, self.windows, self.seed, self.own_clips = store, windows, seed, own_clips
        self.mil_candidates = mil_candidates

    @property
    def content_fingerprint(self) -> str:
        """Hash of all that the rows can become, in any epoch."""
        candidates = [] if self.mil_candidates is None else [self.mil_candidates]
        return combined_hash(
            self.store.content_fingerprint, self.windows.content_fingerprint, self.seed, self.own_clips, *candidates
        )

    def __call__(self, rows: dict[str, list]) -> dict[str, list]:
        return self.read(rows, [0] * len(rows["id"]))

    def read(self, rows: dict[str, list], epochs: Sequence[int]) -> dict[str, list]:
        """Reads windows, each as it is in an epoch.

        Args:
            rows: Columns of the rows, as lists.
            epochs: The epoch of each row.

        Returns:
            The columns of [`load_video_text`], as lists.
        """
        texts, starts, ends = list(rows["text"]), list(rows["start"]), list(rows["end"])
        candidates = []
        for i, epoch in enumerate(epochs):
            shift = shift_of(self.seed, int(epoch), rows["id"][i].rpartition("#")[0])
            if epoch and self.seed is not None:
                texts[i], start, end = self.windows.read(*self.windows.locate(rows["window"][i]), shift)
                if self.own_clips:
                    starts[i], ends[i] = start, end
            if self.mil_candidates is not None:
                place = self.windows.locate(rows["window"][i])
                candidates.append(self.windows.read_around(*place, shift, self.mil_candidates))
        clips = [self.store.read(*span) for span in zip(rows["video"], starts, ends)]
        read = {"id": rows["id"], "video": rows["video"], "text": texts, "start": starts, "end": ends}
        read |= {} if self.mil_candidates is None else {"candidates": candidates}
        return {**read, "video_features": [clip[0] for clip in clips], "times": [clip[1] for clip in clips]}


def _pair_with_other_videos(rows: list[dict], store: FeatureStore, seed: int) -> None:
    names = sorted({row["video"] for row in rows})
    if len(names) < 2:
        raise ValueError("shuffling videos needs at least 2 videos: add videos or leave out shuffle_videos_seed")
    order = random.Random(seed).sample(names, len(names))
    other = dict(zip(order, order[1:] + order[:1]))
    for row in rows:
        video = row["video"] = other[row["video"]]
        row["start"], row["end"] = 0.0, store.duration(video)
