"""Feature shards: pre-extracted video features on disk, read at random by video and time span."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from ..utils.io import atomic_write, sha256_of
from .feature_shards import EXTRACTION, Shard, read_manifest, shard_name, write_manifest
from .open_shard import OpenShard

__all__ = ["FeatureStore", "ShardWriter", "read_manifest", "atomic_write"]

MOST_OPEN = 256  # shards, each a file handle


class ShardWriter:
    """Writes a new shard folder: :meth:`add` every video, then :meth:`close`.

    Args:
        folder: created where it is missing. Shards that an interrupted run left are removed; a finished folder is
            refused.
        streams: for each stream its settings, ``{"frame": {"model": ..., "rate": ..., "clip_length": ...}, ...}``.
            The first stream's time stamps are the ones that :class:`FeatureStore` reads the others onto.
        shard_bytes: a shard is written once it holds as many bytes of features.

    Raises:
        ValueError: the folder is finished, or no stream is given.
    """

    def __init__(self, folder: str | Path, streams: dict[str, dict], shard_bytes: int = 2**30):
        self.folder = Path(folder)
        if not streams:
            raise ValueError("streams is empty: give at least one, e.g. {'frame': {'model': ..., 'rate': 1.0}}.")
        if read_manifest(self.folder) is not None:
            raise ValueError(
                f"{self.folder} already holds finished features. Give another folder, or remove this one."
            )
        if (self.folder / EXTRACTION).exists():
            raise ValueError(
                f"{self.folder} holds an extraction that is not finished. Give another folder, or remove this one."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob("shard-*.safetensors*"):
            path.unlink()
        self.streams = {name: dict(settings) for name, settings in streams.items()}
        self.shard_bytes = shard_bytes
        self._shards: list[dict] = []
        self._seen: set[str] = set()
        self._shard = Shard(self.folder / shard_name(0), self.streams)

    def add(self, video: str, duration: float, features: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Appends one video; see :meth:`vidlankd_hf.data.feature_shards.Shard.add`.

        Raises:
            ValueError: an id that was added before, or features that do not fit.
        """
        if video in self._seen:
            raise ValueError(f"Video {video!r} was added before: ids must be unique. Rename one of the two files.")
        self._shard.add(video, duration, features)
        self._seen.add(video)
        if self._shard.num_bytes >= self.shard_bytes:
            self._shards.append(self._shard.close())
            self._shard = Shard(self.folder / shard_name(len(self._shards)), self.streams, self._shard.widths)

    def close(self) -> None:
        """Writes the last shard, the index and, last of all, the manifest.

        Raises:
            ValueError: no video was added.
        """
        write_manifest(self.folder, self.streams, [*self._shards, self._shard.close()])


class FeatureStore:
    """Random access to a finished shard folder; only the steps asked for are read.

    It may be used in DataLoader workers, forked or spawned: each process opens the shards for itself when it first
    reads from them.

    Args:
        folder: a folder that :class:`ShardWriter` finished.
        streams: names of the streams to read, the first giving the time stamps; all by default.

    Attributes:
        streams: for each stream ``{"model", "rate", "clip_length", "width"}``, in the order of concatenation.
        feature_size: F, the sum of the streams' widths.
        video_ids: the ids, in the order of extraction.

    Raises:
        FileNotFoundError: no such folder, no manifest in it (extraction did not finish), or a shard is missing.
        ValueError: written by another version of the format, without a stream that is asked for, or naming files of
            other folders.
    """

    def __init__(self, folder: str | Path, streams: Sequence[str] | None = None):
        self.folder = Path(folder)
        remedy = "Make it with examples/extract_features.py."
        if not self.folder.is_dir():
            raise FileNotFoundError(f"Feature folder {self.folder} does not exist. {remedy}")
        manifest = read_manifest(self.folder)
        if manifest is None:
            raise FileNotFoundError(
                f"Feature folder {self.folder} has no manifest.json: extraction did not finish, or it is another kind "
                f"of folder. {remedy}"
            )
        for name in manifest.get("sha256") or ():
            if Path(name).name != name:
                raise ValueError(f"{self.folder}: its manifest lists {name!r}, which is no file name. {remedy}")
            if not (self.folder / name).is_file():
                raise FileNotFoundError(
                    f"Feature folder {self.folder} lacks {name}, which its manifest lists. {remedy}"
                )
        try:
            known: dict[str, dict] = manifest["streams"]
            unknown = sorted(set(streams or ()) - set(known))
            if not unknown:
                self.streams = {name: known[name] for name in streams or known}
                self.feature_size: int = sum(settings["width"] for settings in self.streams.values())
            self._sha256: dict[str, str] = manifest["sha256"]
            with open(self.folder / "index.jsonl", encoding="utf-8") as file:
                self._index = {entry["video"]: _checked_entry(entry, known) for entry in map(json.loads, file)}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{self.folder}: its manifest or index is damaged ({error!r}). Remove the folder and extract again."
            ) from error
        if unknown:
            raise ValueError(
                f"{self.folder} has no stream {unknown[0]!r}: it has {', '.join(known)}. Choose of these, or extract "
                "it too."
            )
        self.video_ids: list[str] = list(self._index)
        self._open_shards: dict[str, OpenShard] = {}
        self._pid = os.getpid()

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, video: str) -> bool:
        return video in self._index

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open_shards": {}}

    def duration(self, video: str) -> float:
        """Seconds of a video.

        Raises:
            KeyError: no such video.
        """
        return self.entry(video)["duration"]

    def read(self, video: str, start: float = 0.0, end: float | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """The features of a span of a video, all streams on the first stream's time stamps.

        Args:
            video: its id.
            start, end: seconds; None is the end of the video, and an end beyond it means the same.

        Returns:
            ``(features [T, F] float16, times [T] float32)``, T >= 1: the first stream's steps with start <= time <=
            end, or, where none lies inside, the one nearest to the middle of the span; beside each, the step of every
            other stream that is nearest in time (the earlier one of two equally near).

        Raises:
            KeyError: no such video.
            ValueError: the span starts outside the video or is empty.
        """
        entry = self.entry(video)
        return self._shard(entry["shard"]).read_span(entry, list(self.streams), start, end)

    def statistics(self, max_videos: int = 1000) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation, [F] float32 each, of the features of at most so many videos, evenly chosen."""
        count, total, squares = 0, 0.0, 0.0
        for video in self.video_ids[:: -(-len(self) // max_videos)]:
            features = self.read(video)[0].double()
            count, total, squares = count + len(features), total + features.sum(0), squares + features.square().sum(0)
        mean = total / count
        return mean.float(), (squares / count - mean.square()).clamp(min=0).sqrt().float()

    def verify(self) -> None:
        """Reads every shard and compares it with its sha256.

        Raises:
            ValueError: a shard is not as it was written.
        """
        for name, expected in self._sha256.items():
            if sha256_of(self.folder / name) != expected:
                raise ValueError(
                    f"{self.folder / name} is damaged: its sha256 is not the manifest's. Run the extraction "
                    "again with the same settings: it makes this shard anew and no other. What a conversion made must "
                    "be removed and made again."
                )

    def entry(self, video: str) -> dict:
        """A video's line in the index: its id, shard, duration and, of each stream, offset and length there.

        Raises:
            KeyError: no such video.
        """
        if video not in self._index:
            known = ", ".join(map(repr, self.video_ids[:3]))
            raise KeyError(
                f"No features of video {video!r} in {self.folder}, which holds {len(self)} videos ({known}, ...). "
                "Extract it too, or drop its captions."
            )
        return self._index[video]

    def _shard(self, name: str) -> OpenShard:
        if self._pid != os.getpid():
            self._open_shards, self._pid = {}, os.getpid()
        if name not in self._open_shards:
            if name not in self._sha256:
                raise ValueError(f"{self.folder}: its index names {name!r}, which its manifest does not list.")
            if len(self._open_shards) == MOST_OPEN:
                self._open_shards.pop(next(iter(self._open_shards)))
            self._open_shards[name] = OpenShard(self.folder / name)
        return self._open_shards[name]


def _checked_entry(entry: dict, streams: dict) -> dict:
    """A line of the index, if it is what [`ShardWriter`] writes."""
    spans = [entry["streams"][name] for name in streams]
    whole = all(type(n) is int and n >= 0 for offset, length in spans for n in (offset, length - 1))
    if not (isinstance(entry["video"], str) and isinstance(entry["shard"], str) and whole and entry["duration"] > 0):
        raise ValueError(f"{entry} is no entry of a video")
    return entry
