"""Imports features that another tool extracted into our shards, task by task like an extraction."""

import json
import logging
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from ..data.feature_arrays import ALLOWED, Place, RawFeatures
from ..data.feature_shards import Shard, shard_name
from ..data.feature_sources import find_features
from ..data.features import FeatureStore, read_manifest
from ..utils.io import atomic_write
from ..utils.messages import number_of
from .shard_folder import ShardFolder
from .tasks import QUARANTINE, note_failure, part_path
from .videos import LeftOut, Video

logger = logging.getLogger(__name__)

SPELLING = re.compile(
    r"(?P<name>[A-Za-z0-9_-]+)=(?P<source>.+?)(::(?P<array>[^@:/]+))?(@(?P<rate>[0-9.]+(?:e[+-]?[0-9]+)?))?"
)


@dataclass(frozen=True)
class ImportedStream:
    """A named stream of features that exist already.

    Args:
        name: Name of the stream in the shards.
        source: File or folder; see [`find_features`].
        array: Name of the array, data set or column.
        rate: Features per second, step i being at (i + 0.5) / rate; None if the source has times.

    Raises:
        ValueError: The rate is not positive.
    """

    name: str
    source: str
    array: str | None = None
    rate: float | None = None

    def __post_init__(self):
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise ValueError(f"Stream {self.name!r}: the rate is {self.rate}, but must be positive, such as @1.5")

    @classmethod
    def parse(cls, text: str) -> "ImportedStream":
        """Parses `name=SOURCE[::ARRAY][@RATE]`, for example `clip=features.h5::clip@1.5`."""
        match = SPELLING.fullmatch(text)
        if not match:
            raise ValueError(
                f"{text!r} is not a stream. Write name=SOURCE@RATE, such as frame=features_2d@1, or name=SOURCE if "
                "the source has times. Names have letters, digits, - and _."
            )
        return cls(match["name"], match["source"], match["array"], float(match["rate"]) if match["rate"] else None)


class _Unusable(ValueError):
    """The features of a video cannot be used; `args` are reason and detail."""


def import_features(
    streams: Sequence[ImportedStream],
    output_dir: str | Path,
    id_column: str = "video",
    max_failed: int = 0,
    retry_failed: bool = False,
    shard_bytes: int = 2**30,
) -> FeatureStore:
    """Writes features that another tool extracted into shards. Shards that are already complete are kept.

    A video whose features cannot be used, or are missing in one stream, is listed with the reason in
    `quarantine.jsonl`, and the import continues. Videos are read one at a time, from Parquet a row group at a time.

    Args:
        streams: The streams. [`FeatureStore`] aligns the others to the times of the first one.
        output_dir: Folder of the shards. An earlier import of the same videos and streams is continued.
        id_column: Column of tables with the ids of the videos.
        max_failed: Maximum number of videos that may fail.
        retry_failed: Whether to write the shards again in which videos failed.
        shard_bytes: Approximate size of a shard.

    Raises:
        ValueError: A source has no features; the folder has features of other videos or settings; or more than
            `max_failed` videos failed (all others are written).
        ImportError: h5py is not installed.
    """
    names = [stream.name for stream in streams]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"The streams are {names}: give at least one, all with different names.")
    left_out: list[tuple[str, str]] = []
    places = {s.name: find_features(s.source, s.array, id_column, left_out) for s in streams}
    videos = [_video(video, places) for video in dict.fromkeys(video for found in places.values() for video in found)]
    widths = _widths(streams, places, videos)
    settings = {
        s.name: {"model": f"imported from {s.source}", "array": s.array, "rate": s.rate, "clip_length": 1,
                 "width": widths[s.name]}
        for s in streams
    }  # fmt: skip
    others = [LeftOut(*row) for row in dict.fromkeys(left_out)]
    work = ShardFolder(Path(output_dir), videos, settings, 1.0, shard_bytes, others)
    missing = work.missing(retry_failed=retry_failed)
    if not missing and read_manifest(work.folder) is not None:
        logger.warning(f"{work.folder} already has the features of all these videos, so there is nothing to do.")
    num_videos = sum(len(work.tasks[number]) for number in missing)
    failed: list[dict] = []
    with tqdm(total=num_videos, desc="importing features", unit="video", disable=not missing) as progress:
        for number in missing:
            failed += _import_shard(work, number, streams, places, widths, progress)
    for reason, count in Counter(row["reason"] for row in failed).items():
        logger.warning(f"Left out {number_of(count, 'video')} ({reason}); {work.folder / QUARANTINE} lists them")
    store = work.close(max_failed)
    assert store is not None  # all tasks are done
    return store


def _video(video: str, places: dict[str, dict[str, Place]]) -> Video:
    """A video of the plan: `path` is the first place that holds it, `seconds` its approximate bytes in float16."""
    held = [found[video] for found in places.values() if video in found]
    return Video(video, held[0].source.where(held[0].key), max(1.0, sum(place.num_bytes for place in held)))


def _widths(
    streams: Sequence[ImportedStream], places: dict[str, dict[str, Place]], videos: Sequence[Video]
) -> dict[str, int]:
    """The width of each stream, which is that of the first video that can be used.

    Raises:
        ValueError: There is none.
    """
    first = None
    for video in videos:
        try:
            _, features = _read(video.id, streams, places, {})
            return {name: values.shape[1] for name, (values, _) in features.items()}
        except _Unusable as error:
            first = first or error
    assert first is not None
    raise ValueError(f"None of {number_of(len(videos), 'video')} can be used. The first: {first.args[1]}")


def _import_shard(
    work: ShardFolder,
    number: int,
    streams: Sequence[ImportedStream],
    places: dict[str, dict[str, Place]],
    widths: dict[str, int],
    progress: tqdm,
) -> list[dict]:
    """Writes the shard of one task and then its part of the index, and returns the videos that failed."""
    shard, failed = Shard(work.folder / shard_name(number), [*widths], widths), []
    for video in work.tasks[number]:
        try:
            duration, features = _read(video.id, streams, places, widths)
            shard.add(video.id, duration, features)
        except _Unusable as error:
            reason, detail = error.args
            failed.append(note_failure(work.folder, video.path, reason, detail))
            logger.warning(f"{video.id} is left out ({reason}): {detail}")
        progress.update()
    part = {**shard.close([video.id for video in work.tasks[number]]), "failed": failed}
    atomic_write(part_path(work.folder, number), json.dumps(part) + "\n")
    return failed


def _read(
    video: str, streams: Sequence[ImportedStream], places: dict[str, dict[str, Place]], widths: dict[str, int]
) -> tuple[float, dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Reads the duration and, for each stream, features and times of a video.

    Raises:
        _Unusable: They are missing or not as the shards require.
    """
    features, stated, implied = {}, [], []
    for stream in streams:
        place = places[stream.name].get(video)
        if place is None:
            there = ", ".join(name for name, found in places.items() if video in found)
            raise _Unusable(
                "missing stream", f"{video!r} has features in {there}, but not in {stream.source}: add or remove them"
            )
        try:
            raw = place.source.read(place.key)
        except (ValueError, OSError) as error:
            raise _Unusable("unreadable", str(error)) from error
        values = _checked_values(raw, widths.get(stream.name))
        times, end = _checked_times(raw, stream.rate)
        features[stream.name] = torch.from_numpy(values), torch.from_numpy(times)
        implied.append(end)
        if raw.duration is not None:
            if not (times[-1] <= raw.duration < math.inf and raw.duration > 0):
                raise _Unusable(
                    "wrong times",
                    f"{raw.where}: the duration is {raw.duration:g} s, but must be finite and not before the last "
                    f"step ({times[-1]:g} s): correct it",
                )
            stated.append(raw.duration)
    return max(stated or implied), features


def _checked_values(raw: RawFeatures, width: int | None) -> np.ndarray:
    values = raw.values
    if values.ndim != 2 or 0 in values.shape:
        raise _Unusable(
            "wrong shape", f"{raw.where} is {values.dtype} {list(values.shape)}, but {ALLOWED}: reshape it"
        )
    if width not in (None, values.shape[1]):
        raise _Unusable(
            "wrong width",
            f"{raw.where} has width {values.shape[1]}, but the first video has {width}: all must come from one model",
        )
    with np.errstate(over="ignore"):
        halves = np.array(values, dtype=np.float16, order="C")
    bad = np.argwhere(~np.isfinite(halves))
    if len(bad):
        row, column = bad[0].tolist()
        raise _Unusable(
            "not finite",
            f"{raw.where}: step {row}, value {column} is {values[row, column]}, but must be finite in float16 (at "
            "most 65504): extract this video again",
        )
    return halves


def _checked_times(raw: RawFeatures, rate: float | None) -> tuple[np.ndarray, float]:
    """Times `[T]` in float32 and the end of the last step in seconds."""
    if (rate is None) == (raw.times is None):
        problem = "has no times: give a rate, as in frame=SOURCE@1" if rate is None else "has times: leave out @RATE"
        raise _Unusable("wrong times", f"{raw.where} {problem}")
    if rate is not None:
        return ((np.arange(len(raw.values)) + 0.5) / rate).astype(np.float32), len(raw.values) / rate
    times = np.array(raw.times, dtype=np.float32)
    if times.shape != (len(raw.values),):
        problem = f"its times are {list(times.shape)}, but must be [{len(raw.values)}], one for each step"
        raise _Unusable("wrong times", f"{raw.where}: {problem}")
    wrong = ~(np.isfinite(times) & (times >= 0) & (np.diff(times, prepend=-1.0) > 0))
    if wrong.any():
        step = int(wrong.argmax())
        problem = f"step {step} is at {times[step]:g} s, but times must be finite, not negative and increase"
        raise _Unusable("wrong times", f"{raw.where}: {problem}: correct them")
    end = float(times[-1] + ((times[-1] - times[-2]) / 2 if len(times) > 1 else times[-1]))
    if not end > 0:
        raise _Unusable("wrong times", f"{raw.where}: its only step is at 0 s: add a duration")
    return times, end
