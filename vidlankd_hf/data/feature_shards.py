"""The files of a feature folder, each complete or absent: shards, index and manifest.

A folder holds

- `shard-00000.safetensors`, ...: for each stream `{stream}.features` `[N, F]` float16 and `{stream}.times`
  `[N]` float32 (seconds, the center of each step), one video after another;
- `shard-00000.safetensors.xxh3`, ...: checksums of the blocks of each shard;
- `index.jsonl`: for each video its id, shard, duration, and the offset and length of each stream in the shard;
- `manifest.json`, written last: format version, streams (model, rate, clip length, width), counts, and the sha256 of
  each shard, of its checksums and of the index. A folder without it is not finished.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ..utils.io import atomic_file, atomic_write, naming_if_full
from ..utils.json_files import read_json
from .block_checksums import KIND, KINDS, BlockHasher, Checksums

FORMAT_VERSION = 1
INDEX, MANIFEST = "index.jsonl", "manifest.json"
EXTRACTION = "extraction.json"  # in folders that extract_features writes
COPY_BYTES = 2**22


def read_manifest(folder: str | Path) -> dict | None:
    """The manifest of a finished folder, or None if there is none.

    Raises:
        ValueError: The folder has another format version.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        return None
    manifest = read_json(path, dict, "extract again, or convert again")
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format_version is {version!r}, but this version of the package reads {FORMAT_VERSION}. "
            "Extract the features again with `vidlankd extract`."
        )
    return manifest


def write_manifest(folder: Path, streams: dict[str, dict], shards: Iterable[dict], **more: Any) -> None:
    """Writes the index and finally the manifest of a folder whose shards are complete.

    Args:
        folder: Folder of the shards.
        streams: Settings of each stream, without its width.
        shards: Results of [`Shard.close`], in order; iterated once.
        more: Additional entries of the manifest.

    Raises:
        ValueError: Two shards have features of different widths, or no shard has a video.
    """
    sha256, checksums = dict[str, str](), {kind: dict[str, str]() for kind in KINDS}
    widths, steps, num_videos, seconds = dict[str, int](), dict.fromkeys(streams, 0), 0, 0.0
    index_sha256 = hashlib.sha256()
    with atomic_file(folder / INDEX) as index:
        for shard in shards:
            if not shard["videos"]:
                continue
            if shard["widths"] != (widths := widths or shard["widths"]):
                raise ValueError(
                    f"{folder / shard['name']} has features of widths {shard['widths']}, but earlier shards have "
                    f"{widths}: they come from different models. Remove the folder and extract again."
                )
            sha256[shard["name"]] = shard["sha256"]
            for kind in KINDS:  # shards of older versions have another kind, or none
                if kind in shard:
                    checksums[kind][shard["name"]] = shard[kind]
            for entry in shard["videos"]:
                line = (json.dumps({**entry, "shard": shard["name"]}) + "\n").encode()
                index_sha256.update(line)
                index.write(line)
                num_videos, seconds = num_videos + 1, seconds + entry["duration"]
                steps = {name: count + entry["streams"][name][1] for name, count in steps.items()}
        if not num_videos:
            raise ValueError(f"{folder}: no video was added. Add at least one.")
    manifest = {
        "format_version": FORMAT_VERSION,
        "streams": {name: {**settings, "width": widths[name]} for name, settings in streams.items()},
        "num_videos": num_videos,
        "num_steps": steps,
        "seconds": seconds,
        **more,
        "sha256": sha256,
        **{kind: found for kind, found in checksums.items() if found},
        "index_sha256": index_sha256.hexdigest(),
    }
    atomic_write(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"shard-{number:05d}.safetensors"


class Shard:
    """Writes one shard: call [`add`] for each video, in any order, then [`close`].

    Features are collected in an unnamed temporary file in the shard's folder, so that memory does not grow with the
    shard and a killed process leaves nothing behind.

    Args:
        path: File of the shard, which appears when it is closed.
        streams: Names of the streams.
        widths: Required width of each stream; by default that of the first video.
    """

    def __init__(self, path: Path, streams: Iterable[str], widths: dict[str, int] | None = None):
        self.path, self.streams = path, tuple(streams)
        self.widths = dict(widths or {})
        self.num_bytes = 0
        self._spool = tempfile.TemporaryFile(dir=path.parent)
        # Duration of each video, and for each of its streams the number of steps and the place in the spool.
        self._entries: dict[str, tuple[float, dict[str, tuple[int, int]]]] = {}

    def add(self, video: str, duration: float, features: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Adds one video.

        Args:
            video: Id of the video, unique within the folder.
            duration: Seconds.
            features: For each stream `(features [N, F], times [N])`, N >= 1, with increasing times.

        Raises:
            ValueError: A stream is missing or unknown, lengths are zero or differ, the width differs from earlier
                videos, values are not finite in float16, or times do not increase.
        """
        if any("\ud800" <= character <= "\udfff" for character in video):
            raise ValueError(f"The id {video!a} is not valid UTF-8. Rename the video.")
        if set(features) != set(self.streams):
            raise ValueError(f"Video {video!r} has streams {sorted(features)}, but must have {sorted(self.streams)}.")
        checked = {name: _checked(video, name, self.widths.get(name), *features[name]) for name in self.streams}
        places = {}
        for name, (values, times) in checked.items():
            self.widths[name] = values.shape[1]
            places[name] = len(times), self.num_bytes
            for tensor in (times, values):
                with naming_if_full(self.path):
                    self._spool.write(tensor.numpy().data)
                self.num_bytes += tensor.nbytes
        self._entries[video] = float(duration), places

    def close(self, order: Sequence[str] | None = None) -> dict:
        """Writes the shard.

        Args:
            order: Ids in the order in which their features are written; by default the order in which they were
                added. Ids that were not added are skipped.

        Returns:
            `{"name", "bytes", "sha256", "xxh3", "widths", "videos": [{"video", "duration", "streams": {name:
            [offset, steps]}}]}`. Without videos no file is written and sha256 is None.
        """
        videos = [video for video in order or self._entries if video in self._entries]
        header, chunks, index, end = {}, [], [], 0
        steps = dict.fromkeys(self.streams, 0)
        for video in videos:
            duration, places = self._entries[video]
            spans = {name: [steps[name], length] for name, (length, _) in places.items()}
            index.append({"video": video, "duration": duration, "streams": spans})
            steps = {name: sum(span) for name, span in spans.items()}
        # Times come first: an odd number of float16 before them would break their alignment to 4 bytes.
        for kind, dtype in (("times", "F32"), ("features", "F16")):
            for name in self.streams if videos else ():
                begin, width = end, self.widths[name]
                for video in videos:
                    length, place = self._entries[video][1][name]
                    chunks.append((place, 4 * length) if kind == "times" else (place + 4 * length, 2 * length * width))
                    end += chunks[-1][1]
                shape = [steps[name]] if kind == "times" else [steps[name], width]
                header[f"{name}.{kind}"] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        shard = {"name": self.path.name, "bytes": 0, "sha256": None, "widths": self.widths, "videos": index}
        if videos:
            shard |= self._write(header, chunks)
        self._spool.close()
        return shard

    def _write(self, header: dict, chunks: list[tuple[int, int]]) -> dict:
        """Writes a safetensors file (length of the header, header, tensors) from chunks of the spool."""
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        digest, blocks, written = hashlib.sha256(), BlockHasher(), 0
        with atomic_file(self.path) as file:
            for part in (len(text).to_bytes(8, "little"), text, *self._spooled(chunks)):
                digest.update(part)
                blocks.update(part)
                written += file.write(part)
        sums = blocks.digest()
        checksums = Checksums(KIND, hashlib.sha256(sums).hexdigest())
        atomic_write(checksums.path(self.path), sums)
        return {"bytes": written, "sha256": digest.hexdigest(), KIND: checksums.sha256}

    def _spooled(self, chunks: list[tuple[int, int]]) -> Iterator[bytes]:
        """Yields the content of chunks (place, number of bytes) of the spool."""
        for place, size in chunks:
            self._spool.seek(place)
            while size:
                part = self._spool.read(min(size, COPY_BYTES))
                size -= len(part)
                yield part


def _checked(video, stream, width, values, times) -> tuple[torch.Tensor, torch.Tensor]:
    """Features as float16 and times as float32.

    Raises:
        ValueError: They are not as [`Shard.add`] requires.
    """
    values, times = torch.as_tensor(values).to("cpu", torch.float16), torch.as_tensor(times).to("cpu", torch.float32)
    where = f"Video {video!r}, stream {stream!r}"
    if values.ndim != 2 or times.ndim != 1 or len(values) != len(times) or len(values) == 0:
        raise ValueError(
            f"{where}: features {list(values.shape)} and times {list(times.shape)} must be [N, F] and [N] with N >= 1."
        )
    if width not in (None, values.shape[1]):
        raise ValueError(f"{where}: width {values.shape[1]}, but earlier videos have {width}. Use one model.")
    # An infinity or NaN shows in the sum, and float16 values cannot overflow it; to ask each value takes far longer.
    if not values.sum(dtype=torch.float32).isfinite():
        raise ValueError(f"{where}: features are not finite in float16 (largest value is 65504). Use another model.")
    if not (times.isfinite().all() and (times.diff() > 0).all()):
        raise ValueError(f"{where}: times must be finite and increase from step to step.")
    return values.contiguous(), times.contiguous()
