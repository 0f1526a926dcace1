"""Pre-extracted video features on disk: written in shards, read at random by video and time span."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from ..utils.io import sha256_of
from ..utils.messages import number_of
from .block_checksums import KINDS, checksums_of
from .feature_shards import EXTRACTION, INDEX, Shard, read_manifest, shard_name, write_manifest
from .open_shard import OpenShard
from .source_files import combined_hash

MAX_OPEN = 256  # shards, each with a file handle


class ShardWriter:
    """Writes a folder of feature shards: call [`add`] for every video, then [`close`].

    Args:
        folder: Created if it does not exist. Shards left by an interrupted run are removed; a finished folder is
            refused.
        streams: Settings of each stream, `{"frame": {"model": ..., "rate": ..., "clip_length": ...}, ...}`.
            [`FeatureStore`] reads all streams at the time stamps of the first one.
        shard_bytes: A shard is closed when it holds this many bytes of features.

    Raises:
        ValueError: The folder is finished, or no stream is given.
    """

    def __init__(self, folder: str | Path, streams: dict[str, dict], shard_bytes: int = 2**30):
        self.folder = Path(folder)
        if not streams:
            raise ValueError("streams is empty: give at least one, e.g. {'frame': {'model': ..., 'rate': 1.0}}.")
        check_no_features(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob("shard-*.safetensors*"):
            path.unlink()
        self.streams = {name: dict(settings) for name, settings in streams.items()}
        self.shard_bytes = shard_bytes
        self._shards: list[dict] = []
        self._seen: set[str] = set()
        self._shard = Shard(self.folder / shard_name(0), self.streams)

    def add(self, video: str, duration: float, features: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Adds one video; see [`Shard.add`].

        Raises:
            ValueError: The id was added before, or the features do not fit.
        """
        if video in self._seen:
            raise ValueError(f"Video {video!r} was added before: ids must be unique. Rename one of the two files.")
        self._shard.add(video, duration, features)
        self._seen.add(video)
        if self._shard.num_bytes >= self.shard_bytes:
            self._shards.append(self._shard.close())
            self._shard = Shard(self.folder / shard_name(len(self._shards)), self.streams, self._shard.widths)

    def close(self) -> None:
        """Writes the last shard, the index and finally the manifest.

        Raises:
            ValueError: No video was added.
        """
        write_manifest(self.folder, self.streams, [*self._shards, self._shard.close()])


def check_no_features(folder: Path) -> None:
    """Raises a `ValueError` if a folder holds finished features, or those of an extraction."""
    finished = read_manifest(folder) is not None
    if finished or (folder / EXTRACTION).exists():
        held = "already holds finished features" if finished else "holds an extraction that is not finished"
        raise ValueError(f"{folder} {held}. Give another folder, or remove this one.")


class FeatureStore:
    """Random access to a finished folder of feature shards; reads only the requested steps.

    DataLoader workers, forked or spawned, may use it.

    Args:
        folder: Folder finished by [`ShardWriter`].
        streams: Names of the streams to read; the first one gives the time stamps. All by default.

    Attributes:
        streams: For each stream `{"model", "rate", "clip_length", "width"}`, in the order of concatenation.
        feature_size: F, the sum of the streams' widths.
        video_ids: The ids, in the order of extraction.

    Raises:
        FileNotFoundError: The folder or one of its shards does not exist, or it has no manifest (extraction did not
            finish).
        ValueError: The folder has another format version, is damaged, lacks a requested stream, or its manifest names
            files of other folders.
    """

    def __init__(self, folder: str | Path, streams: Sequence[str] | None = None):
        self.folder = Path(folder)
        remedy = "Make it with `vidlankd extract`."
        if not self.folder.is_dir():
            raise FileNotFoundError(f"Feature folder {self.folder} does not exist. {remedy}")
        manifest = read_manifest(self.folder)
        if manifest is None:
            raise FileNotFoundError(
                f"Feature folder {self.folder} has no manifest.json: extraction did not finish, or it is not a "
                f"feature folder. {remedy}"
            )
        for name in self._objects(manifest)["sha256"]:
            if Path(name).name != name:
                raise ValueError(f"{self.folder}: its manifest lists {name!r}, which is not a file name. {remedy}")
            if not (self.folder / name).is_file():
                raise FileNotFoundError(f"{self.folder} lacks {name}, which its manifest lists. {remedy}")
        try:
            known: dict[str, dict] = manifest["streams"]
            unknown = sorted(set(streams or ()) - set(known))
            if not unknown:
                self.streams = {name: known[name] for name in streams or known}
                self.feature_size: int = sum(settings["width"] for settings in self.streams.values())
            self._sha256: dict[str, str] = manifest["sha256"]
            self._checksums = {name: checksums_of(manifest, name) for name in self._sha256}
            if "index_sha256" in manifest and sha256_of(self.folder / INDEX) != manifest["index_sha256"]:
                raise ValueError("the checksum of the index differs")
            with open(self.folder / INDEX, encoding="utf-8") as file:
                self._lines = {self._checked(json.loads(line), known): line for line in file}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{self.folder}: its manifest or index is damaged ({error!r}). Remove the folder and extract again."
            ) from error
        if unknown:
            raise ValueError(
                f"{self.folder} has no stream {unknown[0]!r}: it has {', '.join(known)}. Choose among these, or "
                "extract it too."
            )
        self.video_ids: list[str] = list(self._lines)
        self._open_shards: dict[str, OpenShard] = {}

    def _objects(self, manifest: dict) -> dict[str, dict]:
        """Returns the manifest's entries that must be objects, checked."""
        found = {name: manifest.get(name, {} if name in KINDS else None) for name in ("streams", "sha256", *KINDS)}
        wrong = [name for name, value in found.items() if not isinstance(value, dict)]
        if wrong or not found["streams"]:
            what = f"{wrong[0]} is not an object" if wrong else "it lists no streams"
            raise ValueError(f"{self.folder}: its manifest is damaged ({what}). Remove the folder and extract again.")
        return found

    @property
    def content_fingerprint(self) -> str:
        """Hash of all features and times of the streams."""
        index = {video: json.loads(line) for video, line in self._lines.items()}
        return combined_hash(list(self.streams), self._sha256, index)

    def __len__(self) -> int:
        return len(self._lines)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open_shards": {}}

    def duration(self, video: str) -> float:
        """Duration of a video in seconds.

        Raises:
            KeyError: There is no such video.
        """
        return self.entry(video)["duration"]

    def read(self, video: str, start: float = 0.0, end: float | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Reads the features of a span of a video, all streams at the time stamps of the first one.

        Args:
            video: Id of the video.
            start, end: Seconds. None, or an end after the end of the video, means the end of the video.

        Returns:
            `(features [T, F] float16, times [T] float32)`, T >= 1. The rows are the first stream's steps with start
            <= time <= end or, if there are none, its step nearest to the middle of the span. Each is joined with the
            nearest step in time of every other stream (the earlier of two equally near ones).

        Raises:
            KeyError: There is no such video.
            ValueError: The span starts outside the video or is empty.
        """
        entry = self.entry(video)
        return self._shard(entry["shard"]).read_span(entry, list(self.streams), start, end)

    def statistics(self, max_videos: int = 1000) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes mean and standard deviation of the features of evenly spaced videos.

        Args:
            max_videos: Maximum number of videos to read.

        Returns:
            Mean and standard deviation over all steps, `[F]` float32 each.
        """
        count, (total, squares) = 0, torch.zeros(2, self.feature_size, dtype=torch.float64)
        for video in self.video_ids[:: -(-len(self) // max_videos)]:
            if self.entry(video)["shard"] not in self._open_shards:
                self._open_shards.clear()  # videos are in the order of their shards
            features = self.read(video)[0].double()
            count, total, squares = count + len(features), total + features.sum(0), squares + features.square().sum(0)
        mean = total / count
        return mean.float(), (squares / count - mean.square()).clamp(min=0).sqrt().float()

    def verify(self) -> None:
        """Compares every shard with its sha256.

        Raises:
            ValueError: A shard has changed since it was written.
        """
        for name, expected in self._sha256.items():
            if sha256_of(self.folder / name) != expected:
                raise ValueError(
                    f"{self.folder / name} is damaged: its sha256 differs from the manifest. Run the extraction "
                    "again with the same settings: it replaces only this shard. If the folder comes from a "
                    "conversion, remove it and convert again."
                )

    def entry(self, video: str) -> dict:
        """A video's entry in the index: id, shard, duration, and the offset and length of each stream in the shard.

        Raises:
            KeyError: There is no such video.
        """
        if video not in self._lines:
            known = ", ".join(map(repr, self.video_ids[:3]))
            raise KeyError(
                f"{self.folder} has no features of video {video!r}, only of {number_of(len(self), 'other')} ({known}, "
                "...). "
                "Extract it too, or remove its captions."
            )
        return json.loads(self._lines[video])  # kept as text, which takes a fifth of the memory

    def _checked(self, entry: dict, streams: dict) -> str:
        """The video of an entry of the index.

        Raises:
            ValueError: It is not what [`ShardWriter`] writes.
        """
        spans = [entry["streams"][name] for name in streams]
        valid = all(type(n) is int and n >= 0 for offset, length in spans for n in (offset, length - 1))
        if not (isinstance(entry["video"], str) and valid and entry["duration"] > 0):
            raise ValueError(f"{entry} is not an entry of a video")
        if entry["shard"] not in self._sha256:
            raise ValueError(f"the index names {entry['shard']!r}, which the manifest does not list")
        return entry["video"]

    def _shard(self, name: str) -> OpenShard:
        if name not in self._open_shards:
            if len(self._open_shards) == MAX_OPEN:
                self._open_shards.pop(next(iter(self._open_shards)))
            self._open_shards[name] = OpenShard(self.folder / name, self._checksums.get(name))
        return self._open_shards[name]
