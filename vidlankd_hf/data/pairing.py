"""Where a caption meets its clip: windows of text that tile each video, each with the span of video it is about."""

import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from .captions import Caption, read_captions
from .shards import FeatureStore

END_TOLERANCE = 1.0  # seconds a caption may outlast the last frame; players and subtitle tools differ by about this


def load_video_text(
    features: str | Path,
    captions: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int = 128,
    shuffle_videos_seed: int | None = None,
    streams: Sequence[str] | None = None,
) -> Dataset:
    """Captioned video as a `datasets.Dataset` with the columns that [`VideoTextCollator`] takes.

    Consecutive captions of a video are joined to windows of at most `max_length` tokens; the windows cover all
    captions. A caption longer than a window is divided between words, and its time in proportion. The clip of a window
    spans its captions' times.

    Columns: `id` (`video#window`), `video`, `text`, `start` and `end` in seconds, `video_features` [T, F] float16 and
    `times` [T] in seconds. The last two are read from the shards when a row is asked for. To bring your own data, make
    any map-style data set with `id`, `text`, `video_features` and, where a video has several rows, `video`.

    Args:
        features: Folder that `extract_features` wrote.
        captions: File for [`read_captions`].
        tokenizer: Counts the tokens of a window.
        max_length: Most tokens of a window, [CLS] and [SEP] included.
        shuffle_videos_seed: If given, each video's captions are paired with *another* video's clips, chosen once: the
            control in which the teacher sees as much video but learns nothing true from it.
        streams: Of the features, by name; all by default.

    Raises:
        ValueError: Captions of videos without features or outside their video, or videos without captions.
    """
    store = FeatureStore(features, streams)
    by_video = defaultdict(list)
    for caption in read_captions(captions):
        by_video[caption.video].append(caption)
    _check_pairs(store, by_video, features, captions)

    rows = []
    for video in sorted(by_video):
        duration = store.duration(video)
        lines = sorted((_within(caption, duration) for caption in by_video[video]), key=lambda c: (c.start, c.end))
        rows += [
            {"id": f"{video}#{i}", **window} for i, window in enumerate(_windows(lines, tokenizer, max_length - 2))
        ]
    if shuffle_videos_seed is not None:
        _pair_with_other_videos(rows, store, shuffle_videos_seed)

    dataset = Dataset.from_list(rows)

    def read_features(batch: dict) -> dict:
        clips = [store.read(*span) for span in zip(batch["clip_video"], batch["start"], batch["end"])]
        batch = {name: values for name, values in batch.items() if name != "clip_video"}
        return {**batch, "video_features": [clip[0] for clip in clips], "times": [clip[1] for clip in clips]}

    return dataset.with_transform(read_features)


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


def _check_pairs(store: FeatureStore, by_video: dict, features: str | Path, captions: str | Path) -> None:
    missing = sorted(video for video in by_video if video not in store)
    if missing:
        raise ValueError(
            f"{captions} has captions of {len(missing)} videos that are not in {features}, such as {missing[0]!r}; "
            f"the features are of videos such as {store.video_ids[0]!r}: use the same file names, or extract the rest"
        )
    silent = sorted(set(store.video_ids) - set(by_video))
    if silent:
        raise ValueError(
            f"{len(silent)} videos in {features} have no caption in {captions}, such as {silent[0]!r}: add captions, "
            "or extract features without these videos"
        )


def _within(caption: Caption, duration: float) -> Caption:
    end = duration if caption.end is None else caption.end
    if caption.start >= duration or end > duration + END_TOLERANCE:
        raise ValueError(
            f"the caption {caption.text!r} of {caption.video} is from {caption.start} s to {end} s, but the video "
            f"ends at {duration:.2f} s: correct its times or remove it"
        )
    return caption._replace(end=min(end, duration))


def _windows(lines: list[Caption], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[dict]:
    windows, used = [], 0
    encoded = tokenizer([c.text for c in lines], add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    for caption, offsets in zip(lines, encoded["offset_mapping"]):
        if not offsets:
            raise ValueError(
                f"the caption {caption.text!r} of {caption.video} has no token in the vocabulary: remove it"
            )
        for piece, tokens in _pieces(caption, offsets, max_tokens):
            if not windows or used + tokens > max_tokens:
                windows.append(
                    {"video": piece.video, "clip_video": piece.video, "text": [], "start": piece.start, "end": 0.0}
                )
                used = 0
            windows[-1]["text"].append(piece.text)
            windows[-1]["end"] = max(windows[-1]["end"], piece.end)
            used += tokens
    return [{**window, "text": " ".join(window["text"])} for window in windows]


def _pieces(caption: Caption, offsets: list[tuple[int, int]], max_tokens: int) -> list[tuple[Caption, int]]:
    """A caption in pieces of at most `max_tokens` tokens (one piece, nearly always), cut before words where it can."""
    text, pieces, first = caption.text, [], 0
    seconds_per_token = (caption.end - caption.start) / len(offsets)
    while first < len(offsets):
        last = min(first + max_tokens, len(offsets))
        if last < len(offsets):
            starts_word = (i for i in range(last, first, -1) if text[offsets[i][0] - 1].isspace())
            last = next(starts_word, last)
        piece = caption._replace(
            text=text[offsets[first][0] : offsets[last - 1][1]],
            start=caption.start + first * seconds_per_token,
            end=caption.start + last * seconds_per_token,
        )
        pieces.append((piece, last - first))
        first = last
    return pieces


def _pair_with_other_videos(rows: list[dict], store: FeatureStore, seed: int) -> None:
    names = sorted({row["video"] for row in rows})
    if len(names) < 2:
        raise ValueError("shuffling videos needs at least 2 videos")
    order = random.Random(seed).sample(names, len(names))
    other = dict(zip(order, order[1:] + order[:1]))
    for row in rows:
        video = row["video"] = row["clip_video"] = other[row["video"]]
        scale = store.duration(video)
        row["start"], row["end"] = 0.0, scale
