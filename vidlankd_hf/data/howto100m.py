"""Converts HowTo100M as published, a .npy file for each video and a file of captions, to feature shards and captions.

The features (Miech et al. 2019, section 5) come from a ResNet-152 at one frame per second (2D) and from a ResNeXt-101
on clips of 16 frames at 24 per second, so 1.5 clips per second (3D); each is 2048 wide. The files hold neither times
nor durations: step i of a stream gets the time (i + 0.5) / rate, and a video with N steps of 2D lasts N seconds.
"""

import json
import os
import re
import shutil
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..utils.io import atomic_file, one_responsible
from .captions import Caption, check_read, checked_captions, readings_of
from .feature_shards import Shard, read_manifest, shard_name, write_manifest
from .features import check_no_features
from .misses import Misses
from .pairing import place_caption
from .rolling_captions import remove_rolling_overlap
from .shared_tasks import SharedTasks, TasksRemoved
from .source_files import combined_hash

MISSES, COUNTS = "misses.jsonl", "conversion"
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
    num_proc: int | None = None,
) -> dict[str, int]:
    """Writes the videos that have 2D features, 3D features and captions, in the order of the captions.

    First one process reads the captions and divides the videos into shards by the sizes of their files. Then processes
    share the shards, also on several machines with a common `output_dir`; one video is in memory at a time. An
    interrupted conversion is continued by the next call.

    `output_dir` becomes a folder for [`FeatureStore`] that also holds `captions.jsonl` (overlap removed, times inside
    the video) for [`load_video_text`], and `misses.jsonl`, a line {"video", "reason", "detail"} for each video or
    caption left out.

    Args:
        features_2d, features_3d: Folders with a file for each video, subfolders included: `ID.npy` or `ID.mp4.npy`,
            floating point `[N, F]`.
        captions: `caption.json`, `raw_caption.json` or a folder of csv files; see [`read_captions`].
        output_dir: Must not hold finished features.
        max_missing: Largest share of videos that may be left out, among those that have features or captions.
        widths: F of 2D and of 3D features.
        remove_overlap: See [`read_captions`].
        shard_bytes: Approximate size of a shard, if the files hold float16.
        num_proc: Number of processes; default: this one.

    Returns:
        The number of `videos`, of `captions`, and of what is left out for each reason.

    Raises:
        ValueError: More videos are missing than `max_missing` allows. `misses.jsonl` lists those found so far, and the
            folder stays unfinished.
    """
    if not 0 <= max_missing <= 1:
        raise ValueError(f"max_missing is {max_missing}: give a share from 0 to 1, such as 0.05")
    work = _Conversion(
        Path(features_2d), Path(features_3d), Path(captions), Path(output_dir), max_missing, widths, remove_overlap,
        shard_bytes, num_proc,
    )  # fmt: skip
    check_no_features(work.folder)
    with one_responsible(work.folder, lambda: read_manifest(work.folder) is not None, work.help_in) as responsible:
        if responsible and read_manifest(work.folder) is None:
            work.write()
    return (read_manifest(work.folder) or {})[COUNTS]


@dataclass
class _Conversion:
    """The arguments of [`convert_howto100m`], and its tasks: one plan, then a task for each shard."""

    features_2d: Path
    features_3d: Path
    captions: Path
    folder: Path
    max_missing: float
    widths: tuple[int, int]
    remove_overlap: bool | None
    shard_bytes: int
    num_proc: int | None
    complete: bool = False  # whether this process has seen all tasks done

    @cached_property
    def plan(self) -> str:
        """Name of the task that plans; another one for other sources or settings."""
        files = [self.captions] if self.captions.is_file() else sorted(self.captions.rglob("*"))
        read = [[str(path), *_identity(path)] for path in files]
        made_of = str(self.features_2d), str(self.features_3d), read, self.remove_overlap, self.shard_bytes
        return f"plan-{combined_hash(*made_of)[:16]}"

    def help_in(self, folder: Path) -> bool:
        """Runs tasks of the process that is responsible; returns whether there were any."""
        tasks = SharedTasks(folder, self.num_proc)
        if self.complete or not tasks.folder.is_dir():
            return False
        with suppress(TasksRemoved):
            for _ in self._shards(tasks):
                pass
            self.complete = True
        return tasks.claimed > 0

    def write(self) -> None:
        """Runs all tasks that are not done, and joins what they wrote."""
        tasks = SharedTasks(self.folder, self.num_proc)
        tasks.folder.mkdir(exist_ok=True)
        counts: dict[str, int] = {"videos": 0, "captions": 0}
        write_manifest(self.folder, STREAMS, self._join(tasks, counts), **{COUNTS: counts})
        tasks.remove()

    def _join(self, tasks: SharedTasks, counts: dict[str, int]) -> Iterator[dict]:
        """Joins the captions and misses of all tasks; yields the result of each shard, and counts in the end."""
        path, held = self.folder / MISSES, set[str]()
        with open(path, "wb") as list_of_misses, atomic_file(self.folder / "captions.jsonl") as out:
            misses = Misses(list_of_misses)
            for name, result in self._shards(tasks):
                misses.join((tasks.folder / f"{name}.misses").read_bytes(), result)
                try:
                    misses.check(self.max_missing, path)
                except ValueError:
                    tasks.forget(self.plan)  # planned again, once what is missing was added
                    raise
                if "shard" in result:
                    out.write((tasks.folder / f"{name}.captions").read_bytes())
                    counts["videos"] += len(result["shard"]["videos"])
                    counts["captions"] += result["captions"]
                    if result["shard"]["videos"]:
                        held.add(result["shard"]["name"])
                    yield result["shard"]
        for left in self.folder.glob("shard-*.safetensors*"):  # of an earlier plan
            if left.name.partition(".")[0] + ".safetensors" not in held:
                left.unlink()
        counts |= misses.counts

    def _shards(self, tasks: SharedTasks) -> Iterator[tuple[str, dict]]:
        """Yields name and result of the plan and of each shard."""
        ((name, _, plan),) = list(tasks.run([(self.plan, None)], self._make_plan))
        yield name, plan
        shards = []
        for number, part in enumerate(plan["shards"]):
            name = Path(shard_name(number)).stem
            done = tasks.result(name)
            if done is not None and done["plan"] != part:  # the files have changed
                tasks.forget(name)
            shards.append((name, (self.plan, number, part)))
        yield from ((name, result) for name, _, result in tasks.run(shards, self._write_shard))

    def _make_plan(self, tasks: Path, name: str, _: None) -> dict:
        """Lists the videos of each shard, with their files and captions, and what is missing."""
        files, twice = dict[str, dict[str, str]](), set[str]()  # a Path takes five times the memory
        for stream, folder in (("frame", self.features_2d), ("clip", self.features_3d)):
            files[stream] = {}
            for video, path in _files(folder):
                if files[stream].setdefault(video, path) != path:
                    twice.add(video)
        videos, done, shards = set(files["frame"]) | set(files["clip"]), set[str](), [[0, 0, 0]]
        with open(tasks / f"{name}.misses", "wb") as file, atomic_file(tasks / name) as out:
            misses = Misses(file, len(videos))

            def miss(video: str, reason: str, detail: str = "") -> None:
                misses.add(video, reason, detail)
                if not misses.few(self.max_missing):
                    file.flush()
                    shutil.copy(tasks / f"{name}.misses", self.folder / MISSES)
                    misses.check(self.max_missing, self.folder / MISSES)

            for video in sorted(twice):
                miss(video, "two files", files["frame"].get(video) or files["clip"][video])
            for video in sorted(videos - twice):
                for stream, dimension in (("frame", "2D"), ("clip", "3D")):
                    if video not in files[stream]:
                        miss(video, f"no {dimension} features")
            size = 0
            for video, spoken in groupby(self._spoken(), key=lambda entry: entry[1].video):
                if video in done:
                    raise ValueError(
                        f"{self.captions}: the captions of {video!r} are not consecutive: put them together"
                    )
                done.add(video)
                if video not in videos:
                    miss(video, "captions without features")
                if video in misses.videos:
                    continue
                entries = list(spoken)
                paths: list[list[Any]] = [
                    [files[stream][video], *_identity(Path(files[stream][video]))] for stream in STREAMS
                ]
                lines = [(caption.start, caption.end, caption.text) for _, caption in entries]
                row = (json.dumps([video, paths, self.widths, entries[0][0], lines]) + "\n").encode()
                if size >= self.shard_bytes:
                    shards.append([out.tell(), 0, 0])
                    size = 0
                size += sum(path[1] for path in paths)
                begin, length, crc32 = shards[-1]
                shards[-1] = [begin, length + out.write(row), zlib.crc32(row, crc32)]
            for video in sorted(videos - done - misses.videos):
                miss(video, "features without captions")
        return {**misses.result(), "num_videos": misses.num_videos, "shards": shards}

    def _spoken(self) -> Iterator[tuple[bool, Caption]]:
        """Yields each caption, and whether the text that rolling captions repeat is to be removed."""
        corrections, empty = Counter[str](), True
        for reading in readings_of(self.captions, None, None, None):
            remove = reading[2] if self.remove_overlap is None else self.remove_overlap
            for caption in checked_captions([reading], False, corrections):
                empty = False
                yield remove, caption
        check_read(self.captions, empty, corrections)

    def _write_shard(self, tasks: Path, name: str, planned: tuple[str, int, list[int]]) -> dict:
        plan, number, (begin, length, crc32) = planned
        shard, written = Shard(self.folder / shard_name(number), STREAMS, dict(zip(STREAMS, self.widths))), 0
        with (
            open(tasks / plan, "rb") as rows,
            open(tasks / f"{name}.misses", "wb") as file,
            atomic_file(tasks / f"{name}.captions") as out,
        ):
            misses = Misses(file)
            rows.seek(begin)
            content = rows.read(length)
            if zlib.crc32(content) != crc32:
                SharedTasks(self.folder).forget(plan)
                raise ValueError(f"{tasks / plan} is damaged: start the same command again, which makes it again")
            for row in content.splitlines():
                video, paths, widths, remove, lines = json.loads(row)
                spoken = [Caption(video, *line) for line in lines]
                try:
                    streams = {
                        stream: _read(Path(path), stream, width)
                        for stream, (path, *_), width in zip(STREAMS, paths, widths)
                    }
                except ValueError as error:
                    misses.add(video, "features that cannot be used", str(error))
                    continue
                duration = len(streams["frame"][0]) / STREAMS["frame"]["rate"]
                placed = []
                for caption in remove_rolling_overlap(spoken) if remove else spoken:
                    inside = place_caption(caption, video, duration)
                    if inside is None:
                        misses.add_caption(caption, duration)
                    else:
                        placed.append(inside)
                if not placed:
                    misses.add(video, "no caption inside the video", f"{duration:g} s")
                    continue
                shard.add(video, duration, streams)
                out.writelines((json.dumps(caption._asdict()) + "\n").encode() for caption in placed)
                written += len(placed)
        return {**misses.result(), "plan": planned[2], "shard": shard.close(), "captions": written}


def _identity(path: Path) -> list[int]:
    """Size and time of a file, which tell whether it was changed."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    """Yields (video, path) for the .npy files in a folder and its subfolders."""
    found = ((where, name) for where, _, names in os.walk(folder) for name in names if _SUFFIX.search(name))
    paths = sorted(os.path.join(where, name) for where, name in found)
    if not paths:
        raise ValueError(f"{folder} is not a folder with a .npy file for each video: give the folder of the features")
    yield from ((_SUFFIX.sub("", os.path.basename(path)), path) for path in paths)


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
