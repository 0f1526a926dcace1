"""Shard tasks: each extracts a fixed list of videos into one shard, and can be repeated in any process.

After a shard, a task writes `shard-00000.json` with the shard's part of the index, its sha256 and the videos that
failed. A task is done if both files are intact. Once all tasks are done, [`finish`] writes index and manifest.
"""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.block_checksums import KINDS, Checksums, complete_checksums
from ..data.feature_shards import EXTRACTION, Shard, shard_name, write_manifest
from ..data.sealed_json import read_sealed, sealed
from ..utils.addresses import hide_secrets, public_address
from ..utils.io import atomic_write, sha256_of
from ..utils.json_files import read_json, read_text
from ..utils.messages import number_of
from .backbones import Backbone
from .decoders import Clip, Ended, Failed, Limits, decode_videos
from .videos import Video

logger = logging.getLogger(__name__)

PLAN, QUARANTINE = "tasks.jsonl", "quarantine.jsonl"
REMEDY = "restore it, choose another folder, or remove this one"
LEFT_OUT = "left_out.jsonl"  # files in the video folder that are not videos


def plan_tasks(videos: Sequence[Video], bytes_per_second: float, shard_bytes: int) -> list[list[Video]]:
    """Divides videos, in order, into tasks with about `shard_bytes` of features, by their estimated lengths."""
    tasks: list[list[Video]] = [[]]
    size = 0.0
    for video in videos:
        size += video.seconds * bytes_per_second
        if tasks[-1] and size > shard_bytes:
            tasks.append([])
            size = video.seconds * bytes_per_second
        tasks[-1].append(video)
    return tasks


def open_folder(
    folder: Path, videos: Sequence[Video], backbones: dict[str, dict], bytes_per_second: float, shard_bytes: int
) -> list[list[Video]]:
    """Opens or creates an output folder and returns its tasks. An interrupted run keeps its division into tasks.

    Args:
        folder: The output folder.
        videos: The videos, sorted by id.
        backbones: The settings of each stream's backbone.
        bytes_per_second: Bytes of features per second of video.
        shard_bytes: Approximate size of a shard.

    Raises:
        ValueError: The folder has features of other videos or settings, or shards from another tool.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, plan = folder / EXTRACTION, folder / PLAN
    if path.is_file():
        held = read_json(path, dict, REMEDY)
        if [*held.items()] != [*backbones.items()]:
            raise ValueError(
                f"{folder} has features with other settings ({_difference(held, backbones)}). Choose another folder, "
                "or remove this one."
            )
    elif any(folder.glob("*.safetensors")):
        raise ValueError(f"{folder} has shards from another tool. Choose another folder, or remove this one.")
    if not plan.is_file():
        tasks = plan_tasks(videos, bytes_per_second, shard_bytes)
        atomic_write(plan, "".join(json.dumps([video.id for video in task]) + "\n" for task in tasks))
    if not path.is_file():
        atomic_write(path, json.dumps(backbones, indent=2) + "\n")
    ids = _read_plan(plan)
    by_id = {video.id: video for video in videos}
    other = by_id.keys() ^ {id for task in ids for id in task}
    if other:
        raise ValueError(
            f"{folder} has the features of {sum(map(len, ids))} videos, which are not these {len(videos)}: "
            f"they differ in {number_of(len(other), 'video')} (e.g. {min(other)!r}). Choose another folder, or remove "
            "this one."
        )
    return [[by_id[id] for id in task] for task in ids]


def _read_plan(path: Path) -> list[list[str]]:
    try:
        tasks = [json.loads(line) for line in read_text(path).splitlines()]
        if not all(isinstance(id, str) for task in tasks for id in task):
            raise ValueError("an id is not a string")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): {REMEDY}") from error
    return tasks


def _difference(held: dict, asked: dict) -> str:
    """Describes the first setting that differs."""
    if held.keys() != asked.keys():
        return f"streams {sorted(held)}, not {sorted(asked)}"
    for stream in asked:
        for name in asked[stream]:
            if held[stream].get(name) != asked[stream][name]:
                return f"{stream} has {name} {held[stream].get(name)!r}, not {asked[stream][name]!r}"
    return "the order of the streams"


def part_path(folder: Path, number: int) -> Path:
    """Path of `shard-00000.json` of a task."""
    return (folder / shard_name(number)).with_suffix(".json")


def read_part(folder: Path, number: int) -> dict | None:
    """Reads `shard-00000.json` of a finished task; `None` if it is missing or the shard has another size."""
    try:
        part = read_sealed(part_path(folder, number), REMEDY)
        has_size = part["sha256"] is None or (folder / part["name"]).stat().st_size == part["bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return part if has_size else None


def is_done(folder: Path, number: int) -> bool:
    """Whether the shard of a task and its part of the index exist and the shard has the right checksum."""
    part = read_part(folder, number)
    if part is None or part["sha256"] is None:
        return part is not None
    intact = sha256_of(folder / part["name"]) == part["sha256"]
    for kind in KINDS if intact else ():
        if kind in part:
            complete_checksums(folder / part["name"], Checksums(kind, part[kind]))
    return intact


@dataclass
class _Gathered:
    """The features of one video so far."""

    rows: list[list[tuple[float, torch.Tensor]]]  # (time, feature) of each stream
    expected: int = 0  # number of clips that were decoded
    duration: float | None = None
    closed: bool = False  # failed or written


@dataclass
class ShardTask:
    """Extracts a list of videos into one shard.

    Args:
        folder: The output folder, prepared by [`open_folder`].
        number: Number of the task.
        videos: Videos of the task.
        backbones: The backbone of each stream, in order.
        batch_size: Images per forward pass, from any number of videos. Clips: a quarter as many.
        decoders: Number of decoding child processes.
        limits: Limits for one video.
        progress: A tqdm bar that advances by one for each video.

    Attributes:
        seconds: Duration of [`run`].
        waiting: Seconds of it in which the backbones waited for decoded clips.
    """

    folder: Path
    number: int
    videos: Sequence[Video]
    backbones: dict[str, Backbone]
    batch_size: int
    decoders: int
    limits: Limits
    progress: Any = None

    def __post_init__(self) -> None:
        self._models = list(self.backbones.values())
        few = max(1, self.batch_size // 4)
        self.sizes = [self.batch_size if model.stream.clip_length == 1 else few for model in self._models]
        self.seconds = self.waiting = 0.0
        self._failed: list[dict] = []
        self._gathered = {video.id: _Gathered([[] for _ in self.backbones]) for video in self.videos}
        self._batches: list[list[Clip]] = [[] for _ in self.backbones]

    def run(self) -> None:
        """Decodes the videos, runs the backbones, and writes the shard and then its part of the index.

        Raises:
            OSError: The shard cannot be written, for example because the disk is full. Other shards are kept.
        """
        began = time.perf_counter()
        widths = {name: backbone.width for name, backbone in self.backbones.items()}
        self._shard = Shard(self.folder / shard_name(self.number), self.backbones, widths)
        streams = [
            {"rate": b.stream.rate, "clip_length": b.stream.clip_length, "pixels": b.pixels} for b in self._models
        ]
        events = decode_videos(self.videos, streams, self.decoders, self.limits, ahead=2 * max(self.sizes))
        with closing(events):
            while (event := self._next(events)) is not None:
                self._take(event)
            for i in range(len(streams)):
                self._run_batch(i)
        part = {**self._shard.close([video.id for video in self.videos]), "failed": self._failed}
        atomic_write(part_path(self.folder, self.number), json.dumps(sealed(part)) + "\n")
        self.seconds = time.perf_counter() - began

    def _next(self, events: Iterator[Clip | Ended | Failed]) -> Clip | Ended | Failed | None:
        began = time.perf_counter()
        event = next(events, None)
        self.waiting += time.perf_counter() - began
        return event

    def _take(self, event: Clip | Ended | Failed) -> None:
        gathered = self._gathered[event.video.id]
        if isinstance(event, Clip):
            gathered.expected += 1
            i = event.stream
            if self._batches[i] and self._batches[i][0].pixels.shape != event.pixels.shape:
                self._run_batch(i)
            self._batches[i].append(event)
            if len(self._batches[i]) == self.sizes[i]:
                self._run_batch(i)
        elif isinstance(event, Ended):
            for note in event.notes:
                logger.info(f"{public_address(event.video.path)}: {note}")
            gathered.duration = event.duration
            self._write_if_complete(event.video)
        else:
            self._quarantine(event.video, event.reason, event.detail)

    def _run_batch(self, i: int) -> None:
        clips = [clip for clip in self._batches[i] if not self._gathered[clip.video.id].closed]
        self._batches[i] = []
        if not clips:
            return
        features = self._models[i](np.stack([clip.pixels for clip in clips]))
        for clip, row in zip(clips, features):
            self._gathered[clip.video.id].rows[i].append((clip.time, row))
        for video in {clip.video.id: clip.video for clip in clips}.values():
            self._write_if_complete(video)

    def _write_if_complete(self, video: Video) -> None:
        gathered = self._gathered[video.id]
        if gathered.closed or gathered.duration is None or gathered.expected > sum(map(len, gathered.rows)):
            return
        features = {}
        for name, rows in zip(self.backbones, gathered.rows):
            times, values = zip(*rows)
            features[name] = torch.stack(values).cpu(), torch.tensor(times)
        bad = [name for name, (values, _) in features.items() if not values.isfinite().all()]
        if bad:
            self._quarantine(video, "not finite", f"{video.path}: stream {bad[0]!r} has NaN or exceeds 65504")
            return
        try:
            self._shard.add(video.id, gathered.duration, features)
        except ValueError as error:
            self._quarantine(video, "unreadable", str(error))
            return
        self._close(video)

    def _close(self, video: Video) -> None:
        """Drops the features of a video that is written or has failed."""
        self._gathered[video.id] = _Gathered([], closed=True)
        if self.progress is not None:
            self.progress.update()

    def _quarantine(self, video: Video, reason: str, detail: str) -> None:
        path, detail = public_address(video.path), hide_secrets(detail, video.path)
        logger.warning(f"{path} is skipped ({reason}): {detail}")
        self._failed.append(note_failure(self.folder, path, reason, detail))
        self._close(video)


def note_failure(folder: Path, path: str, reason: str, detail: str) -> dict[str, str]:
    """Adds a video that failed to `quarantine.jsonl` at once; [`finish`] writes the complete list. Returns the row."""
    row = {"path": path, "reason": reason, "detail": detail}
    with open(folder / QUARANTINE, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    return row


def finish(folder: Path, num_tasks: int, streams: dict[str, dict]) -> bool:
    """Writes index, manifest and the list of failed videos if the shards of all tasks exist.

    Args:
        folder: The output folder.
        num_tasks: Number of tasks.
        streams: The settings of each stream's backbone.

    Returns:
        Whether the shards of all tasks exist.

    Raises:
        ValueError: All videos failed, or shards have different feature widths.
    """
    failed, num_videos = [], 0
    for number in range(num_tasks):
        part = read_part(folder, number)
        if part is None:
            return False
        failed += part["failed"]
        num_videos += len(part["videos"])
    failed.sort(key=lambda entry: entry["path"])
    atomic_write(folder / QUARANTINE, "".join(json.dumps(entry) + "\n" for entry in failed))
    if not num_videos:
        raise ValueError(
            f"No video has features: {number_of(len(failed), 'video')} failed, for example {failed[0]['path']} "
            f"({failed[0]['detail']}). See {folder / QUARANTINE}."
        )
    parts = (read_part(folder, number) for number in range(num_tasks))
    write_manifest(folder, streams, parts, num_failed=len(failed))
    for leftover in folder.glob(".shard-*.tmp"):
        leftover.unlink(missing_ok=True)
    return True
