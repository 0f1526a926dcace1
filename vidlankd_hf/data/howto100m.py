"""Converts HowTo100M as published, a .npy file for each video and a file of captions, to feature shards and captions.

The features (Miech et al. 2019, section 5) come from a ResNet-152 at one frame per second (2D) and from a ResNeXt-101
on clips of 16 frames at 24 per second, so 1.5 clips per second (3D); each is 2048 wide. The files hold neither times
nor durations: step i of a stream gets the time (i + 0.5) / rate, and a video with N steps of 2D lasts N seconds.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from ..utils.io import atomic_file
from .captions import Caption, iterate_captions
from .features import ShardWriter
from .pairing import place_caption

STREAMS: dict[str, dict[str, Any]] = {
    "frame": {"model": "HowTo100M 2D (ResNet-152)", "rate": 1.0, "clip_length": 1},
    "clip": {"model": "HowTo100M 3D (ResNeXt-101)", "rate": 1.5, "clip_length": 16},
}
_SUFFIX = re.compile(r"(\.(mp4|webm|mkv|avi|mov|flv|3gp))?\.npy$", re.IGNORECASE)


def convert_howto100m(
    features_2d: str | Path,
    features_3d: str | Path,
    captions: str | Path,
    output_dir: str | Path,
    max_missing: float = 0.0,
    widths: tuple[int, int] = (2048, 2048),
    remove_overlap: bool | None = None,
    shard_bytes: int = 2**30,
) -> dict[str, int]:
    """Writes the videos that have 2D features, 3D features and captions, in the order of the captions.

    One video is in memory at a time; the .npy files are memory-mapped. `output_dir` becomes a folder for
    [`FeatureStore`] that also holds `captions.jsonl` (overlap removed, times inside the video) for
    [`load_video_text`], and `misses.jsonl`, a line {"video", "reason", "detail"} for each video or caption left out.

    Args:
        features_2d, features_3d: Folders with a file for each video, subfolders included: `ID.npy` or `ID.mp4.npy`,
            floating point `[N, F]`.
        captions: `caption.json`, `raw_caption.json` or a folder of csv files; see [`read_captions`].
        output_dir: Must not hold finished features.
        max_missing: Largest share of videos that may be left out, among those that have features or captions.
        widths: F of 2D and of 3D features.
        remove_overlap: See [`read_captions`].
        shard_bytes: Bytes of features per shard.

    Returns:
        The number of `videos`, of `captions`, and of what is left out for each reason.

    Raises:
        ValueError: More videos are missing than `max_missing` allows. `misses.jsonl` lists those found so far, and the
            folder stays unfinished.
    """
    if not 0 <= max_missing <= 1:
        raise ValueError(f"max_missing is {max_missing}: give a share from 0 to 1, such as 0.05")
    files, twice = dict[str, dict[str, Path]](), set[str]()
    for name, folder in (("frame", features_2d), ("clip", features_3d)):
        files[name] = {}
        for video, path in _files(Path(folder)):
            if files[name].setdefault(video, path) != path:
                twice.add(video)
    videos, done = set(files["frame"]) | set(files["clip"]), set()
    output_dir = Path(output_dir)
    writer = ShardWriter(output_dir, STREAMS, shard_bytes)
    with (
        open(output_dir / "misses.jsonl", "w", encoding="utf-8") as list_of_misses,
        atomic_file(output_dir / "captions.jsonl") as out,
    ):
        misses = _Misses(list_of_misses, max_missing, len(videos))
        for video in sorted(twice):
            misses.add(video, "two files", str(files["frame"].get(video) or files["clip"][video]))
        for video in sorted(videos - twice):
            for name, dimension in (("frame", "2D"), ("clip", "3D")):
                if video not in files[name]:
                    misses.add(video, f"no {dimension} features")
        num_videos = written = 0
        for video, spoken in groupby(iterate_captions(captions, None, remove_overlap), key=lambda c: c.video):
            if video in done:
                raise ValueError(f"{captions}: the captions of {video!r} are not consecutive: put them together")
            done.add(video)
            if video not in videos:
                misses.add(video, "captions without features")
                continue
            if video in misses.videos:
                continue
            try:
                streams = {name: _read(files[name][video], name, width) for name, width in zip(STREAMS, widths)}
            except ValueError as error:
                misses.add(video, "features that cannot be used", str(error))
                continue
            duration = len(streams["frame"][0]) / STREAMS["frame"]["rate"]
            placed = []
            for caption in spoken:
                inside = place_caption(caption, video, duration)
                if inside is None:
                    misses.add_caption(caption, duration)
                else:
                    placed.append(inside)
            if not placed:
                misses.add(video, "no caption inside the video", f"{duration:g} s")
                continue
            writer.add(video, duration, streams)
            out.writelines((json.dumps(caption._asdict()) + "\n").encode() for caption in placed)
            num_videos, written = num_videos + 1, written + len(placed)
        for video in sorted(videos - done - misses.videos):
            misses.add(video, "features without captions")
    writer.close()
    return {"videos": num_videos, "captions": written, **misses.counts}


class _Misses:
    """Lists and counts what is left out, and stops the conversion when too many videos are."""

    def __init__(self, file: TextIO, max_missing: float, num_videos: int):
        self.file, self.max_missing, self.num_videos = file, max_missing, num_videos
        self.videos: set[str] = set()
        self.counts: Counter = Counter()

    def add(self, video: str, reason: str, detail: str = "") -> None:
        """Adds a video that is left out.

        Raises:
            ValueError: More videos are missing than allowed.
        """
        self._write(video, reason, detail)
        self.num_videos += reason == "captions without features"
        self.videos.add(video)
        if len(self.videos) > self.max_missing * self.num_videos:
            raise ValueError(
                f"{len(self.videos)} of {self.num_videos} videos cannot be converted, more than max_missing "
                f"({self.max_missing:g}) allows; the last is {video!r}: {reason}{detail and ', '}{detail}. "
                f"{self.file.name} lists them: add what is missing, or raise max_missing"
            )

    def add_caption(self, caption: Caption, duration: float) -> None:
        """Adds a caption that is left out of a video that is kept."""
        detail = f"{caption.start:g} to {caption.end:g} s of {duration:g} s: {caption.text[:200]}"
        self._write(caption.video, "caption outside the video", detail)

    def _write(self, video: str, reason: str, detail: str) -> None:
        self.counts[reason] += 1
        self.file.write(json.dumps({"video": video, "reason": reason, "detail": detail}) + "\n")
        self.file.flush()


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yields (video, path) for the .npy files in a folder and its subfolders."""
    paths = sorted(path for path in folder.rglob("*") if _SUFFIX.search(path.name))
    if not paths:
        raise ValueError(f"{folder} is not a folder with a .npy file for each video: give the folder of the features")
    yield from ((_SUFFIX.sub("", path.name), path) for path in paths)


def _read(path: Path, stream: str, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Reads features `[N, F]` as float16, with the times `[N]` of their steps.

    Raises:
        ValueError: The file holds anything else.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy parses the header as Python, so any error may occur
        raise ValueError(f"{path} is not an array of features ({error})") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.ndim != 2 or not len(array):
        what = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else "an archive"
        raise ValueError(f"{path} is {what}, but must be floating point [N, {width}] with N >= 1")
    if array.shape[1] != width:
        raise ValueError(f"{path} has width {array.shape[1]}, but must have {width}")
    with np.errstate(over="ignore"):
        features = array.astype(np.float16)
    if not np.isfinite(features).all():
        raise ValueError(f"{path} is not finite in float16 (the largest value is 65504)")
    return torch.from_numpy(features), (torch.arange(len(features)) + 0.5) / STREAMS[stream]["rate"]
