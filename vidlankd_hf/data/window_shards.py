"""Captions divided into lines and kept beside each shard of features, so that windows are read a shard at a time.

A folder holds, for each shard of features that has captions,

- ``<shard>.lines.arrow``: text, tokens, start and end (seconds) of the lines, one video after another;
- ``<shard>.videos.arrow``: of each video its entry in the features' index (JSON), the hash of its name, its first line
  and its first window. Videos are in the order of their hashes, so that those with small ones can be held out;

and ``unpaired.jsonl``, which lists what found no counterpart, and ``info.json``: counts, also of each shard.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from ..utils.io import atomic_dir
from .captions import Caption, caption_files, iterate_captions
from .features import FeatureStore, read_manifest
from .matching import VideoNames, check_share, describe_unpaired, place_caption
from .open_shard import OpenShard
from .vocabulary import tokenizer_fingerprint
from .windows import divide, shift_of, tile

HELD_CHARACTERS = 64 * 2**20  # of captions, before they are written to the shards they belong to


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
    """Divides captions once, shard by shard; a second call opens what the first one wrote.

    Memory holds the text of one caption file, the captions of one shard, and the names of all videos.

    Args:
        features, captions, caption_format, remove_overlap, max_unpaired: As in [`load_video_text`].
        tokenizer: Counts the tokens of a window.
        max_tokens: Most tokens of a window, without [CLS] and [SEP].
        cache_dir: The folder is made below it, named after the features' manifest, the names, sizes and times of the
            caption files, the vocabulary and the other arguments.

    Returns:
        The folder.

    Raises:
        ValueError: More captions or videos are without their counterpart than `max_unpaired` allows.
    """
    features, captions = Path(features), Path(captions)
    if read_manifest(features) is None:
        FeatureStore(features)  # says what is missing
    files = [(str(path.relative_to(captions)), path.stat()) for path in caption_files(captions)]
    identity = hashlib.sha256((features / "manifest.json").read_bytes())
    settings = [tokenizer_fingerprint(tokenizer), max_tokens, caption_format, remove_overlap, str(captions)]
    for part in ("v1", *settings, *((name, stat.st_size, stat.st_mtime_ns) for name, stat in files)):
        identity.update(f"{part}\n".encode())
    folder = Path(cache_dir) / f"windows-{identity.hexdigest()[:16]}"
    if not (folder / "info.json").exists():
        with atomic_dir(folder) as part:
            captions_of = iterate_captions(captions, caption_format, remove_overlap)
            info = _write(part, FeatureStore(features), captions_of, tokenizer, max_tokens, features, captions)
            (part / "info.json").write_text(json.dumps(info, indent=2) + "\n")
    info = json.loads((folder / "info.json").read_text())
    check_share(info["problems"], info["unpaired_share"], max_unpaired)
    return folder


def _write(
    folder: Path, store: FeatureStore, captions, tokenizer, max_tokens: int, features: Path, path: Path
) -> dict:
    spill = folder / "spill"
    spill.mkdir()
    names, shards = VideoNames(store.video_ids), read_manifest(features)["sha256"]
    counts, absent, spoken, outside = Counter(), set(), set(), None
    pending, held, name, video = defaultdict(list), 0, None, None
    with open(folder / "unpaired.jsonl", "w", encoding="utf-8") as unpaired:

        def write_unpaired(**row: Any) -> None:
            unpaired.write(json.dumps(row) + "\n")

        for caption in captions:
            counts["captions"] += 1
            if caption.video != name:
                name, video = caption.video, names.find(caption.video)
            if video is None:
                counts["without_video"] += 1
                absent.add(name)
                write_unpaired(what="caption without video", **caption._asdict())
                continue
            entry = store.entry(video)
            placed = place_caption(caption, video, entry["duration"])
            if placed is None:
                counts["outside_video"] += 1
                outside = outside or (caption, entry["duration"])
                write_unpaired(what="caption outside video", **caption._asdict(), duration=entry["duration"])
                continue
            if entry["shard"] not in shards:
                raise ValueError(f"{features}: its index names {entry['shard']!r}, which its manifest does not list.")
            spoken.add(video)
            pending[entry["shard"]].append(json.dumps(placed) + "\n")
            held += len(pending[entry["shard"]][-1])
            if held > HELD_CHARACTERS:
                held = _flush(spill, pending)
        _flush(spill, pending)
        silent = sorted(set(store.video_ids) - spoken)
        for video in silent:
            write_unpaired(what="video without captions", video=video)
    if not counts["captions"]:
        raise ValueError(f"{path} holds no caption: give video, start, end and text on each line, or subtitles")
    lost = (counts["without_video"] + counts["outside_video"]) / counts["captions"]
    problems = describe_unpaired(
        features,
        path,
        known=store.video_ids[0],
        without_video=(counts["without_video"], absent),
        outside_video=(counts["outside_video"], outside),
        without_captions=(len(silent), next(iter(silent), None)),
    )
    if not spoken:
        check_share(problems, float("inf"), 1.0)
    written = []
    for file in sorted(spill.iterdir()):
        videos, windows, lines = _write_shard(folder, file, store, tokenizer, max_tokens)
        counts["windows"] += windows
        counts["lines"] += lines
        written.append({"name": file.name, "videos": videos, "windows": windows})
        file.unlink()
    spill.rmdir()
    return {
        "max_tokens": max_tokens,
        **counts,
        "videos": len(spoken),
        "videos_without_captions": len(silent),
        "unpaired_share": max(lost, len(silent) / len(store)),
        "problems": problems,
        "shards": written,
    }


def _flush(spill: Path, pending: dict[str, list[str]]) -> int:
    for shard, rows in pending.items():
        with open(spill / shard, "a", encoding="utf-8") as file:
            file.writelines(rows)
    pending.clear()
    return 0


def _write_shard(folder: Path, spilled: Path, store: FeatureStore, tokenizer, max_tokens: int) -> tuple[int, int, int]:
    by_video = defaultdict(list)
    with open(spilled, encoding="utf-8") as file:
        for row in file:
            caption = Caption(*json.loads(row))
            by_video[caption.video].append(caption)
    lines, videos, windows = [], [], 0
    for video in sorted(by_video, key=lambda video: (_hash(video), video)):
        spoken = divide(sorted(by_video[video], key=lambda c: (c.start, c.end)), tokenizer, max_tokens)
        videos.append((json.dumps(store.entry(video)), _hash(video), len(lines), windows))
        windows += len(tile(np.array([tokens for _, tokens in spoken]), max_tokens)) - 1
        lines += spoken
    entries, hashes, first_lines, first_windows = zip(*videos)
    _write_table(
        folder / f"{spilled.stem}.videos.arrow",
        entry=pa.array(entries, pa.string()),
        hash=pa.array(hashes, pa.uint64()),
        first_line=pa.array(first_lines, pa.int64()),
        first_window=pa.array(first_windows, pa.int64()),
    )
    _write_table(
        folder / f"{spilled.stem}.lines.arrow",
        text=pa.array([line.text for line, _ in lines], pa.large_string()),
        tokens=pa.array([tokens for _, tokens in lines], pa.int32()),
        start=pa.array([line.start for line, _ in lines], pa.float64()),
        end=pa.array([line.end for line, _ in lines], pa.float64()),
    )
    return len(videos), windows, len(lines)


def _hash(video: str) -> int:
    return int.from_bytes(hashlib.blake2b(video.encode(), digest_size=8).digest(), "big")


def _write_table(path: Path, **columns: pa.Array) -> None:
    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _map_table(path: Path) -> dict[str, pa.Array]:
    try:
        options = pa.ipc.IpcReadOptions(use_threads=False)  # of which a forked worker would wait for none
        table = pa.ipc.open_file(pa.memory_map(str(path)), options=options).read_all()
        return {name: table[name].chunk(0) for name in table.column_names}
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is damaged ({error}): remove its folder to divide the captions again") from error


class WindowShard:
    """The windows of one shard, mapped from disk, and its features.

    Args:
        folder: What [`prepare_windows`] made.
        features: The folder of the features.
        name: Of the shard.
        max_tokens: Most tokens of a window.
    """

    def __init__(self, folder: Path, features: Path, name: str, max_tokens: int):
        stem = Path(name).stem
        videos, lines = _map_table(folder / f"{stem}.videos.arrow"), _map_table(folder / f"{stem}.lines.arrow")
        self.max_tokens, self.entries, self.texts = max_tokens, videos["entry"], lines["text"]
        self.hashes, self.first_lines, self.first_windows = (
            videos[column].to_numpy() for column in ("hash", "first_line", "first_window")
        )
        self.tokens, self.starts, self.ends = (lines[column].to_numpy() for column in ("tokens", "start", "end"))
        self.features = OpenShard(features / name)

    def video_of(self, windows: Any) -> np.ndarray:
        """Which video of the shard each window is of."""
        return np.searchsorted(self.first_windows, windows, side="right") - 1

    def video_name(self, video: int) -> str:
        return json.loads(self.entries[video].as_py())["video"]

    def read(self, window: int, epoch: int, seed: int | None, streams: Sequence[str]) -> dict:
        """A window in an epoch, with the columns of [`load_video_text`]."""
        video = int(self.video_of(window))
        entry, number = json.loads(self.entries[video].as_py()), window - int(self.first_windows[video])
        first = int(self.first_lines[video])
        last = int(self.first_lines[video + 1]) if video + 1 < len(self.first_lines) else len(self.tokens)
        bounds = tile(self.tokens[first:last], self.max_tokens, shift_of(seed, epoch, entry["video"]))
        a, b = first + bounds[number], first + bounds[number + 1]
        start, end = float(self.starts[a:b].min()), float(self.ends[a:b].max())
        features, times = self.features.read_span(entry, streams, start, end)
        return {
            "id": f"{entry['video']}#{number}",
            "video": entry["video"],
            "text": " ".join(self.texts[a:b].to_pylist()),
            "start": start,
            "end": end,
            "video_features": features,
            "times": times,
        }
