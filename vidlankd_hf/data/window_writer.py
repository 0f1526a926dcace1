"""Divides captions into windows and writes them by feature shard, in tasks that several processes share.

First, each part of the captions is sorted by shard: `captions-00000` holds the captions of the first part, and
`captions-00000.unpaired` those without a counterpart. Then the windows of each shard are written. In the end one
process joins what is unpaired and writes `info.json`.
"""

import json
import logging
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from ..utils.io import atomic_file, atomic_write, sha256_of, sync
from .caption_parts import CaptionPart, CaptionSource
from .captions import Caption, check_read
from .checksums import DamagedData
from .features import FeatureStore
from .fingerprint import hash64
from .pairing import Unpaired, VideoNames, check_share, group_by_video, iterate_pairs
from .shared_tasks import SharedTasks, TasksRemoved
from .source_files import combined_hash
from .windows import make_windows

logger = logging.getLogger(__name__)

BUFFER_CHARACTERS = 2**23  # of captions, before they are written
UNPAIRED = "unpaired.jsonl"
Places = list[list[int]]  # begin, length and CRC-32 of the captions of one shard in a file


class WindowWriter:
    """Writes the windows of captions, or a share of them.

    Args:
        features: Folder of the features.
        source: The captions.
        tokenizer: Counts the tokens of a window.
        max_tokens: Maximum number of tokens of a window.
        num_proc: See [`SharedTasks`].
    """

    def __init__(
        self,
        features: Path,
        source: CaptionSource,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int,
        num_proc: int | None = None,
    ):
        self.features, self.source, self.tokenizer, self.max_tokens = features, source, tokenizer, max_tokens
        self.num_proc, self._complete = num_proc, False
        self._store: FeatureStore | None = None

    @property
    def store(self) -> FeatureStore:
        if self._store is None:
            self._store = FeatureStore(self.features)
            self.names = VideoNames(self._store.video_ids)
        return self._store

    def help_in(self, folder: Path) -> bool:
        """Runs tasks of the process that writes `folder`; returns whether there were any."""
        tasks = SharedTasks(folder, self.num_proc)
        if self._complete or not tasks.folder.is_dir():
            return False
        try:
            self._write_shards(folder, tasks, self._sort(tasks))
            self._complete = True
        except (TasksRemoved, DamagedData):
            pass
        return tasks.claimed > 0

    def write(self, folder: Path) -> None:
        """Writes all files of a folder of windows.

        Raises:
            ValueError: The captions are wrong, or none could be paired with a video.
        """
        tasks = SharedTasks(folder, self.num_proc)
        if (folder / "info.json").exists():  # written last, before an interruption
            tasks.remove()
            return
        tasks.folder.mkdir(exist_ok=True)
        while True:
            parts = self._sort(tasks)
            about = self._join(folder, tasks, parts)
            try:
                written = self._write_shards(folder, tasks, parts)
                break
            except DamagedData as error:
                logger.warning("%s. The captions are sorted again.", error)
        files = {UNPAIRED: _entry(folder / UNPAIRED)}
        for shard in written:
            files |= shard["files"]
        shards = [shard["shard"] for shard in written]
        info = {"max_tokens": self.max_tokens, **about, "windows": sum(shard["windows"] for shard in shards)}
        info |= {"shards": shards, "files": files}
        info["sha256"] = combined_hash(info)
        atomic_write(folder / "info.json", json.dumps(info, indent=2) + "\n")
        tasks.remove()

    def _sort(self, tasks: SharedTasks) -> dict[str, dict]:
        """Sorts all parts of the captions by shard; returns the result of each."""
        _ = self.store  # before processes are forked, which share it
        parts = ((f"captions-{number:05d}", part) for number, part in enumerate(self.source.parts()))
        return {name: result for name, _, result in tasks.run(parts, self._sort_part)}

    def _sort_part(self, folder: Path, name: str, part: CaptionPart) -> dict:
        store, corrections = self.store, Counter[str]()
        self.names.found.clear()
        pending, held, places = defaultdict[str, list[str]](list), 0, defaultdict[str, Places](list)
        with open(folder / f"{name}.unpaired", "w", encoding="utf-8") as file, atomic_file(folder / name) as out:
            unpaired = Unpaired(store, file)

            def flush() -> None:
                for shard, rows in sorted(pending.items()):
                    content = "".join(rows).encode()
                    places[shard].append([out.tell(), len(content), zlib.crc32(content)])
                    out.write(content)
                pending.clear()

            captions, video, shard = self.source.read(part, corrections), None, ""
            for caption in iterate_pairs(store, captions, unpaired, self.names):
                if caption.video != video:
                    video, shard = caption.video, store.entry(caption.video)["shard"]
                row = json.dumps(caption) + "\n"
                pending[shard].append(row)
                held += len(row)
                if held > BUFFER_CHARACTERS:
                    flush()
                    held = 0
            flush()
        sync(folder / f"{name}.unpaired")
        return {"unpaired": unpaired.state(), "found": self.names.found, "corrections": corrections, "places": places}

    def _join(self, folder: Path, tasks: SharedTasks, parts: Mapping[str, dict]) -> dict[str, Any]:
        """Joins what is unpaired in all parts; returns the counts."""
        store, corrections = self.store, Counter[str]()
        self.names.found.clear()
        with open(folder / UNPAIRED, "wb") as out:
            for name in parts:
                out.write((tasks.folder / f"{name}.unpaired").read_bytes())
        with open(folder / UNPAIRED, "a", encoding="utf-8") as file:
            unpaired = Unpaired(store, file)
            for part in parts.values():
                for video, name in part["found"].items():
                    self.names.match(video, name)
                unpaired.add(part["unpaired"])
                corrections.update(part["corrections"])
            check_read(self.source.path, not unpaired.counts["captions"], corrections)
            unpaired.add_videos_without_captions()
        sync(folder / UNPAIRED)
        problems = unpaired.problems(self.features, self.source.path)
        if not unpaired.paired_videos:
            check_share(problems, unpaired.share, 1.0)
        return {
            **unpaired.counts,
            "videos": len(unpaired.paired_videos),
            "unpaired_share": unpaired.share,
            "problems": problems,
        }

    def _write_shards(self, folder: Path, tasks: SharedTasks, parts: Mapping[str, dict]) -> list[dict]:
        """Writes the windows of all shards that have captions; returns the result of each."""
        names = sorted({shard for part in parts.values() for shard in part["places"]})
        shards = (
            (Path(name).stem, (name, {part: content["places"].get(name, []) for part, content in parts.items()}))
            for name in names
        )
        return [result for _, _, result in tasks.run(shards, self._write_shard)]

    def _write_shard(self, tasks: Path, stem: str, shard: tuple[str, dict[str, Places]]) -> dict:
        name, places = shard
        captions = (Caption(*json.loads(row)) for row in _rows(tasks, places))
        by_video = group_by_video(captions, key=lambda v: (hash64(v), v))
        lines, videos, windows = make_windows(by_video, self.tokenizer, self.max_tokens)
        entries = pa.array([json.dumps(self.store.entry(video)) for video in by_video], pa.string())
        videos = videos.add_column(0, "entry", entries)
        videos = videos.add_column(1, "hash", pa.array(map(hash64, by_video), pa.uint64()))
        files = {}
        for kind, table in (("videos", videos), ("lines", lines)):
            path = tasks.parent / f"{stem}.{kind}.arrow"
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
            sync(path)
            files[path.name] = _entry(path)
        return {"shard": {"name": name, "videos": len(by_video), "windows": windows}, "files": files}


def _rows(tasks: Path, places: Mapping[str, Places]):
    """The lines of one shard in the sorted captions of all parts.

    Raises:
        DamagedData: A part differs from what was written; it will be sorted again.
    """
    for part, ranges in places.items():
        path = tasks / part
        for begin, size, crc32 in ranges:
            content = b""
            if path.exists():
                with open(path, "rb") as file:
                    file.seek(begin)
                    content = file.read(size)
            if zlib.crc32(content) != crc32:
                SharedTasks(tasks.parent).forget(part)
                raise DamagedData(f"{path} is damaged: its checksum differs")
            yield from content.decode().splitlines()


def _entry(path: Path) -> dict:
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
