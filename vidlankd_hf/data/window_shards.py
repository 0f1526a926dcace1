"""Windows on disk, one pair of memory-mapped files for each feature shard, so that they are read a shard at a time.

A folder holds

- `<shard>.lines.arrow`: text, tokens, start and end (seconds) of the lines, one video after another;
- `<shard>.videos.arrow`: for each video its entry in the features' index (JSON), the hash of its name, its first
  line and its first window. Videos are sorted by hash, so that those with small hashes can be held out;
- `unpaired.jsonl`: captions and videos without a counterpart;
- `info.json`: counts, in total and for each shard.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from ..utils.io import atomic_dir
from .captions import Caption, caption_files, iterate_captions
from .features import FeatureStore, read_manifest
from .fingerprint import hash64
from .open_shard import OpenShard
from .pairing import Unpaired, check_share, group_by_video, iterate_pairs
from .vocabulary import tokenizer_fingerprint
from .windows import Windows, make_windows, shift_of

BUFFER_CHARACTERS = 64 * 2**20  # of captions, before they are written to the files of their shards


def prepare_windows(
    features: str | Path,
    captions: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    cache_dir: str | Path,
    max_unpaired: float = 0.0,
    caption_format: str | None = None,
    remove_overlap: bool | None = None,
) -> Path:
    """Divides captions into windows and stores them by shard; a second call opens what the first one stored.

    Memory holds the text of one caption file, the captions of one shard, and the names of all videos.

    Args:
        features, captions, caption_format, remove_overlap, max_unpaired: See [`load_video_text`].
        tokenizer: Counts the tokens of a window.
        max_tokens: Maximum number of tokens of a window, without [CLS] and [SEP].
        cache_dir: Parent of the folder, which is named after a hash of the features' manifest, the names, sizes and
            times of the caption files, the tokenizer and the other arguments.

    Returns:
        The folder.

    Raises:
        ValueError: More captions or videos have no counterpart than `max_unpaired` allows.
    """
    features, captions = Path(features), Path(captions)
    if read_manifest(features) is None:
        FeatureStore(features)  # raises an error that says what is missing
    files = [(str(path.relative_to(captions)), path.stat()) for path in caption_files(captions)]
    identity = hashlib.sha256((features / "manifest.json").read_bytes())
    settings = [tokenizer_fingerprint(tokenizer), max_tokens, caption_format, remove_overlap, str(captions)]
    for part in ("v1", *settings, *((name, stat.st_size, stat.st_mtime_ns) for name, stat in files)):
        identity.update(f"{part}\n".encode())
    folder = Path(cache_dir) / f"windows-{identity.hexdigest()[:16]}"
    if not (folder / "info.json").exists():
        with atomic_dir(folder) as part:
            rows = iterate_captions(captions, caption_format, remove_overlap)
            info = _write_windows(part, FeatureStore(features), rows, tokenizer, max_tokens, captions)
            (part / "info.json").write_text(json.dumps(info, indent=2) + "\n")
    info = json.loads((folder / "info.json").read_text())
    check_share(info["problems"], info["unpaired_share"], max_unpaired)
    return folder


def _write_windows(
    folder: Path,
    store: FeatureStore,
    captions: Iterator[Caption],
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    source: Path,
) -> dict:
    with open(folder / "unpaired.jsonl", "w", encoding="utf-8") as file:
        unpaired = Unpaired(store, file)
        spilled = _spill_by_shard(folder / "spill", store, iterate_pairs(store, captions, unpaired))
    problems = unpaired.problems(store.folder, source)
    shards = []
    for path in spilled:
        videos, windows = _write_shard(folder, path, store, tokenizer, max_tokens)
        shards.append({"name": path.name, "videos": videos, "windows": windows})
        path.unlink()
    (folder / "spill").rmdir()
    return {
        "max_tokens": max_tokens,
        **unpaired.counts,
        "windows": sum(shard["windows"] for shard in shards),
        "videos": len(unpaired.paired_videos),
        "unpaired_share": unpaired.share,
        "problems": problems,
        "shards": shards,
    }


def _spill_by_shard(folder: Path, store: FeatureStore, captions: Iterator[Caption]) -> list[Path]:
    """Writes captions to a file for each shard, in any order of videos; memory stays below `BUFFER_CHARACTERS`."""
    folder.mkdir()
    pending, held = defaultdict[str, list[str]](list), 0

    def flush() -> None:
        for shard, rows in pending.items():
            with open(folder / shard, "a", encoding="utf-8") as file:
                file.writelines(rows)
        pending.clear()

    for caption in captions:
        row = json.dumps(caption) + "\n"
        pending[store.entry(caption.video)["shard"]].append(row)
        held += len(row)
        if held > BUFFER_CHARACTERS:
            flush()
            held = 0
    flush()
    return sorted(folder.iterdir())


def _write_shard(
    folder: Path, spilled: Path, store: FeatureStore, tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> tuple[int, int]:
    """Writes the tables of one shard; returns the number of videos and of windows."""
    with open(spilled, encoding="utf-8") as file:
        by_video = group_by_video((Caption(*json.loads(row)) for row in file), key=lambda v: (hash64(v), v))
    lines, videos, windows = make_windows(by_video, tokenizer, max_tokens)
    entries = pa.array([json.dumps(store.entry(video)) for video in by_video], pa.string())
    videos = videos.add_column(0, "entry", entries)
    videos = videos.add_column(1, "hash", pa.array(map(hash64, by_video), pa.uint64()))
    for kind, table in (("videos", videos), ("lines", lines)):
        with (
            pa.OSFile(str(folder / f"{spilled.stem}.{kind}.arrow"), "wb") as file,
            pa.ipc.new_file(file, table.schema) as writer,
        ):
            writer.write_table(table)
    return len(by_video), windows


def _map_table(path: Path) -> pa.Table:
    try:
        options = pa.ipc.IpcReadOptions(use_threads=False)  # a forked worker has no threads to wait for
        return pa.ipc.open_file(pa.memory_map(str(path)), options=options).read_all()
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is damaged ({error}): remove its folder to divide the captions again") from error


class WindowShard(Windows):
    """The windows of one feature shard, mapped from disk, and its features.

    Args:
        folder: Folder of the windows, written by [`prepare_windows`].
        features: Folder of the features.
        name: File name of the feature shard.
        max_tokens: Maximum number of tokens of a window.
    """

    def __init__(self, folder: Path, features: Path, name: str, max_tokens: int):
        stem = Path(name).stem
        videos = _map_table(folder / f"{stem}.videos.arrow")
        super().__init__(_map_table(folder / f"{stem}.lines.arrow"), videos, max_tokens)
        self.entries, self.hashes = videos["entry"].chunk(0), videos["hash"].chunk(0).to_numpy()
        self.features = OpenShard(features / name)

    def sample(self, window: int, epoch: int, seed: int | None, streams: Sequence[str]) -> dict:
        """Reads a window as it is in an epoch.

        Args:
            window: Number of the window in this shard.
            epoch: The epoch.
            seed: Determines where windows start in each epoch; None keeps them the same.
            streams: Names of the feature streams to read.

        Returns:
            A row with the columns of [`load_video_text`].
        """
        video, number = self.locate(window)
        entry = json.loads(self.entries[video].as_py())
        name = entry["video"]
        text, start, end = self.read(video, number, shift_of(seed, epoch, name))
        features, times = self.features.read_span(entry, streams, start, end)
        row = {"id": f"{name}#{number}", "video": name, "text": text, "start": start, "end": end}
        return {**row, "video_features": features, "times": times}

    def videos(self, begin: int, end: int) -> list[str]:
        """The video of each window from `begin` to before `end`."""
        names = [json.loads(entry.as_py())["video"] for entry in self.entries]
        return [names[self.locate(window)[0]] for window in range(begin, end)]
