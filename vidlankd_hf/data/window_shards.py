"""Windows on disk, in a pair of memory-mapped files for each feature shard, so that shards are read one by one.

A folder holds

- `<shard>.lines.arrow`: text, tokens, start and end (seconds) of the lines, one video after another;
- `<shard>.videos.arrow`: for each video its entry in the features' index (JSON), the hash of its name, its first
  line and its first window. Videos are sorted by hash, so that those with small hashes can be held out;
- `unpaired.jsonl`: captions and videos without a counterpart;
- `info.json`: counts, in total and for each shard, and the sha256 of the other files.

[`WindowWriter`] makes it. Until then it also holds the tasks, and an interrupted call is continued with those that are
not done.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from ..utils.io import discard, resumable_dir
from ..utils.json_files import read_text
from .block_checksums import Checksums
from .caption_parts import CaptionSource
from .captions import naming_the_line, source_files
from .checksums import DamagedData, complete_file, verify_once
from .features import FeatureStore, read_manifest
from .open_shard import OpenShard
from .pairing import check_share
from .source_files import check_unchanged, combined_hash, content_hashes
from .tables import load_hub_table
from .vocabulary import tokenizer_fingerprint
from .window_writer import WindowWriter
from .windows import Windows, shift_of

logger = logging.getLogger(__name__)


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
    num_proc: int | None = None,
) -> Path:
    """Divides captions into windows and stores them by shard; a second call opens what the first one stored.

    It verifies the files once per run and machine, and divides again if they are damaged. Calls of several
    processes at the same time, also on several machines with a common `cache_dir`, share the work.

    Memory of a process holds the captions of one shard, and the names of all videos.

    Args:
        features, captions, caption_format, remove_overlap, caption_encoding, caption_columns, max_unpaired: See
            [`load_video_text`].
        tokenizer: Counts the tokens of a window.
        max_tokens: Maximum number of tokens of a window, without [CLS] and [SEP].
        cache_dir: Parent of the folder, which is named after a hash of the features' manifest, the names and contents
            of the caption files, the tokenizer and the other arguments.
        num_proc: Number of processes; default: this one.

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
        source = CaptionSource(captions, caption_format, remove_overlap, caption_encoding, caption_columns)
        writer = WindowWriter(features, source, tokenizer, max_tokens, num_proc)
        made_of = json.dumps([str(features.absolute()), names, settings])
        with (
            naming_the_line(captions, caption_format, caption_encoding, caption_columns),
            resumable_dir(folder, made_of, writer.help_in) as part,
        ):
            if part is not None:
                writer.write(part)
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
        checksums: See [`OpenShard`].
    """

    def __init__(self, folder: Path, features: Path, name: str, max_tokens: int, checksums: Checksums | None = None):
        stem = Path(name).stem
        videos = _map_table(folder / f"{stem}.videos.arrow")
        super().__init__(_map_table(folder / f"{stem}.lines.arrow"), videos, max_tokens)
        self.entries, self.hashes = videos["entry"].chunk(0), videos["hash"].chunk(0).to_numpy()
        self.features = OpenShard(features / name, checksums)

    def sample(
        self,
        window: int,
        epoch: int,
        seed: int | None,
        streams: Sequence[str],
        mil_candidates: int | None = None,
        clip: tuple[OpenShard, dict] | None = None,
    ) -> dict:
        """Reads a window as it is in an epoch.

        Args:
            window: Number of the window in this shard.
            epoch: The epoch.
            seed: Determines where windows start in each epoch; None keeps them the same.
            streams: Names of the feature streams to read.
            mil_candidates: See [`load_video_text`].
            clip: Features and index entry of another video, which is read completely instead of the window's clip.

        Returns:
            A row with the columns of [`load_video_text`].
        """
        video, number = self.locate(window)
        shard, entry = (self.features, self.entry(video)) if clip is None else clip
        shift = shift_of(seed, epoch, self.entry(video)["video"])
        row = self.describe(video, number, shift, None if clip is None else entry)
        if mil_candidates is not None:
            row["candidates"] = self.read_around(video, number, shift, mil_candidates)
        features, times = shard.read_span(entry, streams, row["start"], row["end"])
        return {**row, "video_features": features, "times": times}

    def describe(self, video: int, number: int, shift: float = 0.0, other: dict | None = None) -> dict:
        """The columns of a window that are not read from features.

        Args:
            video: Position of the video in this shard.
            number: Number of the window in the video.
            shift: From [`shift_of`].
            other: Index entry of another video, whose complete clip goes with the window.
        """
        name = self.entry(video)["video"]
        text, start, end = self.read(video, number, shift)
        if other is not None:
            start, end = 0.0, other["duration"]
        clip = name if other is None else other["video"]
        return {"id": f"{name}#{number}", "video": clip, "text": text, "start": start, "end": end}

    def entry(self, video: int) -> dict:
        """The entry of a video in the features' index."""
        return json.loads(self.entries[video].as_py())
