"""Windows on disk, in a pair of memory-mapped files for each feature shard, so that shards are read one by one.

A folder holds

- `<shard>.lines.arrow`: text, tokens, start and end (seconds) of the lines, one video after another;
- `<shard>.videos.arrow`: for each video its entry in the features' index (JSON), the hash of its name, its first
  line and its first window. Videos are sorted by hash, so that those with small hashes can be held out;
- `unpaired.jsonl`: captions and videos without a counterpart;
- `info.json`: counts, in total and for each shard, and the sha256 of the other files.

While it is made it also holds `spill/`, captions by shard, with `spilled.json` once they are complete, and
`<shard>.done.json` for each shard that is complete. An interrupted call is continued after these.
"""

import json
import logging
import shutil
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from ..utils.io import atomic_write, discard, resumable_dir, sha256_of, sync
from ..utils.json_files import read_text
from .block_checksums import Checksums
from .captions import Caption, iterate_captions, naming_the_line, source_files
from .checksums import READ_BYTES, DamagedData, complete_file, verify_once
from .features import FeatureStore, read_manifest
from .fingerprint import hash64
from .open_shard import OpenShard
from .pairing import Unpaired, check_share, group_by_video, iterate_pairs
from .sealed_json import read_sealed, sealed
from .source_files import check_unchanged, combined_hash, content_hashes
from .tables import load_hub_table
from .vocabulary import tokenizer_fingerprint
from .windows import Windows, make_windows, shift_of

REMEDY = "remove its folder to divide the captions again"

logger = logging.getLogger(__name__)

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
    caption_encoding: str | None = None,
    caption_columns: Sequence[str] | None = None,
) -> Path:
    """Divides captions into windows and stores them by shard; a second call opens what the first one stored.

    It verifies the files once per run and machine, and divides again if they are damaged.

    Memory holds the text of one caption file, the captions of one shard, and the names of all videos.

    Args:
        features, captions, caption_format, remove_overlap, caption_encoding, caption_columns, max_unpaired: See
            [`load_video_text`].
        tokenizer: Counts the tokens of a window.
        max_tokens: Maximum number of tokens of a window, without [CLS] and [SEP].
        cache_dir: Parent of the folder, which is named after a hash of the features' manifest, the names and contents
            of the caption files, the tokenizer and the other arguments.

    Returns:
        The folder.

    Raises:
        ValueError: More captions or videos have no counterpart than `max_unpaired` allows.
    """
    features, captions = Path(features), Path(captions)
    if read_manifest(features) is None:
        FeatureStore(features)  # raises an error that says what is missing
    files = source_files(captions, caption_format, caption_columns)
    names = [path.relative_to(captions).as_posix() for path in files]
    files = files or [Path(file["filename"]) for file in load_hub_table(str(captions)).cache_files]
    read = [*files, features / "manifest.json", features / "index.jsonl"]
    contents = content_hashes(read)
    settings = [tokenizer_fingerprint(tokenizer), max_tokens, caption_format, remove_overlap, str(captions)]
    settings += [caption_encoding] if caption_encoding else []
    settings += [{"columns": [*caption_columns]}] if caption_columns else []
    folder = Path(cache_dir) / f"windows-{combined_hash('v2', names, contents, settings)[:16]}"
    info = _verified_info(folder) if folder.exists() else None
    if info is None:
        with (
            naming_the_line(captions, caption_format, caption_encoding, caption_columns),
            resumable_dir(folder, of=json.dumps([str(features.absolute()), names, settings])) as part,
        ):
            if part is not None:
                reading = captions, caption_format, remove_overlap, caption_encoding, None, caption_columns
                _write_windows(part, features, reading, tokenizer, max_tokens)
                check_unchanged(read, contents)
        info = _read_info(folder)
    check_share(info["problems"], info["unpaired_share"], max_unpaired)
    return folder


def _verified_info(folder: Path) -> dict | None:
    """The content of `info.json`; if a file is not as it was written, removes the folder and returns None."""
    inode = folder.stat().st_ino
    try:
        info = _read_info(folder)
        verify_once(folder, [complete_file(folder / name, entry) for name, entry in info["files"].items()])
    except DamagedData as error:
        logger.warning("%s. The captions are divided again.", error)
        discard(folder, inode)
        return None
    return info


def _read_info(folder: Path) -> dict:
    try:
        info = json.loads(read_text(folder / "info.json"))
        content = {name: value for name, value in info.items() if name != "sha256"}
        if info["sha256"] != combined_hash(content):
            raise ValueError("its checksum differs")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedData(f"{folder / 'info.json'} is damaged ({error!r})") from error
    return info


def _write_windows(
    folder: Path,
    features: Path,
    reading: tuple[Path, str | None, bool | None, str | None, None, Sequence[str] | None],
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
) -> None:
    store = FeatureStore(features)
    spilled = _spill(folder, store, iterate_captions(*reading), reading[0])
    shards, files = [], {"unpaired.jsonl": _entry(folder / "unpaired.jsonl")}
    for name in spilled.pop("shards"):
        done = folder / f"{Path(name).stem}.done.json"
        content = _read_if_intact(done)
        if content is None:
            videos, windows, written = _write_shard(folder, folder / "spill" / name, store, tokenizer, max_tokens)
            shard = {"name": name, "videos": videos, "windows": windows}
            content = {"shard": shard, "files": {path.name: _entry(path) for path in written}}
            atomic_write(done, json.dumps(sealed(content)))
        shards.append(content["shard"])
        files |= content["files"]
    info = {
        "max_tokens": max_tokens,
        **spilled,
        "windows": sum(shard["windows"] for shard in shards),
        "shards": shards,
        "files": files,
    }
    info["sha256"] = combined_hash(info)
    atomic_write(folder / "info.json", json.dumps(info, indent=2) + "\n")
    shutil.rmtree(folder / "spill")
    for path in (folder / "spilled.json", *folder.glob("*.done.json")):
        path.unlink()


def _entry(path: Path) -> dict:
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _spill(folder: Path, store: FeatureStore, captions: Iterator[Caption], source: Path) -> dict:
    """Writes the captions of each shard to a file, and what is unpaired; returns the counts and the shards' names."""
    marker = folder / "spilled.json"
    counts = _read_if_intact(marker)
    if counts is None or any(_crc32(folder / "spill" / name) != crc32 for name, crc32 in counts["spill"].items()):
        shutil.rmtree(folder / "spill", ignore_errors=True)
        with open(folder / "unpaired.jsonl", "w", encoding="utf-8") as file:
            unpaired = Unpaired(store, file)
            spilled = _spill_by_shard(folder / "spill", store, iterate_pairs(store, captions, unpaired))
        problems = unpaired.problems(store.folder, source)
        if not unpaired.paired_videos:
            check_share(problems, unpaired.share, 1.0)
        for path in (*sorted((folder / "spill").iterdir()), folder / "unpaired.jsonl"):
            sync(path)
        counts = {
            **unpaired.counts,
            "videos": len(unpaired.paired_videos),
            "unpaired_share": unpaired.share,
            "problems": problems,
            "shards": sorted(spilled),
            "spill": spilled,
        }
        atomic_write(marker, json.dumps(sealed(counts)))
    return {name: value for name, value in counts.items() if name != "spill"}


def _read_if_intact(path: Path) -> dict | None:
    try:
        return read_sealed(path, REMEDY)
    except (FileNotFoundError, DamagedData):
        return None


def _crc32(path: Path) -> int | None:
    crc32 = 0
    try:
        with open(path, "rb") as file:
            while part := file.read(READ_BYTES):
                crc32 = zlib.crc32(part, crc32)
    except OSError:
        return None
    return crc32


def _spill_by_shard(folder: Path, store: FeatureStore, captions: Iterator[Caption]) -> dict[str, int]:
    """Writes captions to a file for each shard, in any order of videos; memory stays below `BUFFER_CHARACTERS`.

    Returns:
        The CRC-32 of each file.
    """
    folder.mkdir()
    pending, held, crc32 = defaultdict[str, list[str]](list), 0, dict[str, int]()

    def flush() -> None:
        for shard, rows in pending.items():
            content = "".join(rows).encode()
            crc32[shard] = zlib.crc32(content, crc32.get(shard, 0))
            with open(folder / shard, "ab") as file:
                file.write(content)
        pending.clear()

    for caption in captions:
        row = json.dumps(caption) + "\n"
        pending[store.entry(caption.video)["shard"]].append(row)
        held += len(row)
        if held > BUFFER_CHARACTERS:
            flush()
            held = 0
    flush()
    return crc32


def _write_shard(
    folder: Path, spilled: Path, store: FeatureStore, tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> tuple[int, int, list[Path]]:
    """Writes the tables of one shard; returns the number of videos, of windows, and the files."""
    with open(spilled, encoding="utf-8") as file:
        by_video = group_by_video((Caption(*json.loads(row)) for row in file), key=lambda v: (hash64(v), v))
    lines, videos, windows = make_windows(by_video, tokenizer, max_tokens)
    entries = pa.array([json.dumps(store.entry(video)) for video in by_video], pa.string())
    videos = videos.add_column(0, "entry", entries)
    videos = videos.add_column(1, "hash", pa.array(map(hash64, by_video), pa.uint64()))
    written = []
    for kind, table in (("videos", videos), ("lines", lines)):
        path = folder / f"{spilled.stem}.{kind}.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        sync(path)
        written.append(path)
    return len(by_video), windows, written


def _map_table(path: Path) -> pa.Table:
    try:
        options = pa.ipc.IpcReadOptions(use_threads=False)  # a forked worker has no threads to wait for
        return pa.ipc.open_file(pa.memory_map(str(path)), options=options).read_all()
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is damaged ({error}): {REMEDY}") from error


class WindowShard(Windows):
    """The windows of one feature shard, mapped from disk, and its features.

    Args:
        folder: Folder of the windows, written by [`prepare_windows`].
        features: Folder of the features.
        name: File name of the feature shard.
        max_tokens: Maximum number of tokens of a window.
        checksums: See [`OpenShard`].
    """

    def __init__(self, folder: Path, features: Path, name: str, max_tokens: int, checksums: Checksums | None = None):
        stem = Path(name).stem
        videos = _map_table(folder / f"{stem}.videos.arrow")
        super().__init__(_map_table(folder / f"{stem}.lines.arrow"), videos, max_tokens)
        self.entries, self.hashes = videos["entry"].chunk(0), videos["hash"].chunk(0).to_numpy()
        self.features = OpenShard(features / name, checksums)

    def sample(
        self, window: int, epoch: int, seed: int | None, streams: Sequence[str], mil_candidates: int | None = None
    ) -> dict:
        """Reads a window as it is in an epoch.

        Args:
            window: Number of the window in this shard.
            epoch: The epoch.
            seed: Determines where windows start in each epoch; None keeps them the same.
            streams: Names of the feature streams to read.
            mil_candidates: See [`load_video_text`].

        Returns:
            A row with the columns of [`load_video_text`].
        """
        video, number = self.locate(window)
        entry = json.loads(self.entries[video].as_py())
        name = entry["video"]
        shift = shift_of(seed, epoch, name)
        text, start, end = self.read(video, number, shift)
        features, times = self.features.read_span(entry, streams, start, end)
        row = {"id": f"{name}#{number}", "video": name, "text": text, "start": start, "end": end}
        if mil_candidates is not None:
            row["candidates"] = self.read_around(video, number, shift, mil_candidates)
        return {**row, "video_features": features, "times": times}

    def videos(self, begin: int, end: int) -> list[str]:
        """The video of each window from `begin` to `end` (exclusive)."""
        names = [json.loads(entry.as_py())["video"] for entry in self.entries]
        return [names[self.locate(window)[0]] for window in range(begin, end)]
