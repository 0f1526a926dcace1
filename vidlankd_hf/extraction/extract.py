"""Videos to a folder of feature shards: only what is missing or damaged, in one process or a part of it in each."""

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tqdm.auto import tqdm

from ..data.feature_shards import MANIFEST
from ..data.features import FeatureStore, read_manifest
from .backbones import Backbone
from .decoders import Limits
from .streams import Stream
from .tasks import QUARANTINE, ShardTask, finish, is_done, open_folder, part_path, read_part
from .videos import find_videos

logger = logging.getLogger(__name__)

MOST_DECODERS = 8  # by default


class Extraction:
    """Videos, loaded backbones and an output folder, divided into shard tasks. Any task may be made in any process.

    Args:
        videos, output_dir, streams, precision, batch_size, decoders, device, shard_bytes, limits: see
            :func:`extract_features`.
    """

    def __init__(
        self,
        videos: str | Path | Iterable[str | Path],
        output_dir: str | Path,
        streams: Sequence[Stream],
        precision: str = "fp32",
        batch_size: int = 32,
        decoders: int | None = None,
        device: str | torch.device | None = None,
        shard_bytes: int = 2**30,
        limits: Limits | None = None,
    ):
        self.folder = Path(output_dir)
        self.batch_size, self.decoders, self.limits = batch_size, decoders or default_decoders(), limits or Limits()
        found = find_videos(videos)
        if not streams or len({stream.name for stream in streams}) < len(streams):
            raise ValueError(
                f"Streams {[stream.name for stream in streams]}: give at least one, each of another name."
            )
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.backbones = {stream.name: Backbone(stream, device, precision) for stream in streams}
        self.settings = {name: backbone.settings for name, backbone in self.backbones.items()}
        # A feature is 2 bytes a value, and has a time stamp of 4.
        bytes_a_second = sum(b.settings["rate"] * (2 * b.width + 4) for b in self.backbones.values())
        self.tasks = open_folder(self.folder, found, self.settings, bytes_a_second, shard_bytes)

    def missing(self, numbers: Iterable[int] | None = None, retry_failed: bool = False) -> list[int]:
        """Those of the tasks whose shard is missing or damaged; what is left of them is removed."""
        todo = []
        for number in range(len(self.tasks)) if numbers is None else numbers:
            if not is_done(self.folder, number) or (retry_failed and read_part(self.folder, number)["failed"]):
                todo.append(number)
        for number in todo:
            part_path(self.folder, number).unlink(missing_ok=True)
        if todo:
            (self.folder / MANIFEST).unlink(missing_ok=True)  # until all are whole
        return todo

    def make(self, number: int, progress: tqdm | None = None) -> None:
        """Makes one shard.

        Raises:
            OSError: It cannot be written. What was written before stays.
        """
        task = ShardTask(
            self.folder, number, self.tasks[number], self.backbones, self.batch_size, self.decoders, self.limits,
            progress,
        )  # fmt: skip
        try:
            task.run()
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror or error}: shard {number} could not be made. What is finished stays; run the same "
                "again once this is put right",
                error.filename or str(self.folder),
            ) from error
        # Another process may have found all shards whole before this one took its own away to make it again.
        (self.folder / MANIFEST).unlink(missing_ok=True)
        share = task.waiting / task.seconds
        logger.info(f"shard {number}: {task.seconds:.1f} s, {share:.0%} of it waiting for decoding")

    def close(self, max_failed: int = 0) -> FeatureStore | None:
        """Makes index and manifest if all shards are there, and opens the features; None if shards are missing.

        Raises:
            ValueError: More than `max_failed` videos failed, or not one could be extracted.
        """
        if read_manifest(self.folder) is None and not finish(self.folder, len(self.tasks), self.settings):
            return None
        store, num_failed = FeatureStore(self.folder), read_manifest(self.folder)["num_failed"]
        if num_failed > max_failed:
            raise ValueError(
                f"{num_failed} of {num_failed + len(store)} videos failed, and --max_failed allows {max_failed}: "
                f"{self.folder / QUARANTINE} says why. The features of all others are written. Put the files right "
                "and run again with --retry_failed, or allow as many."
            )
        return store


def extract_features(
    videos: str | Path | Iterable[str | Path],
    output_dir: str | Path,
    streams: Sequence[Stream],
    precision: str = "fp32",
    batch_size: int = 32,
    decoders: int | None = None,
    device: str | torch.device | None = None,
    max_failed: int = 0,
    retry_failed: bool = False,
    shard_bytes: int = 2**30,
    limits: Limits | None = None,
    process_index: int = 0,
    num_processes: int = 1,
) -> FeatureStore | None:
    """Extracts frozen features of videos and writes them as shards; what is there and whole is left as it is.

    Each stream shows a backbone pictures or clips at its own rate, clips one after another without overlap; the last
    one ends with the video and may overlap the one before it, and in a video of fewer frames the last frame is
    repeated. A feature is stamped with the middle of what was seen. It is the backbone's pooled output where it has
    one, else the mean of its last hidden state over space (and time), kept in float16.

    Videos are decoded in child processes. One that cannot be decoded, or costs more than `limits`, is listed in
    ``quarantine.jsonl`` with the reason, and the others go on.

    Args:
        videos: see :func:`~vidlankd_hf.extraction.videos.find_videos`.
        output_dir: the shard folder; of an earlier run with the same videos and streams, which is gone on with.
        streams: the first one's time stamps are those that :class:`~vidlankd_hf.data.features.FeatureStore` reads the
            others onto. :func:`~vidlankd_hf.extraction.streams.paper_streams` gives VidLanKD's.
        precision: `fp32`, `bf16` or `fp16`, of the backbones.
        batch_size: pictures in a forward pass, across videos; of clips a quarter as many.
        decoders: decoding children; default: one for each core, at most 8.
        device: default: a GPU where there is one, else the CPU.
        max_failed: so many videos may fail. By default none: what is missing is known and wanted, or an error.
        retry_failed: whether shards some of whose videos failed are made again.
        shard_bytes: about so many in a shard, as far as the videos' lengths are known before they are decoded.
        limits: of time and memory for one video.
        process_index, num_processes: this process makes every `num_processes`-th shard, from `process_index` on.

    Returns:
        The features; None if shards are missing that other processes have yet to make.

    Raises:
        ValueError: no video, two of the same id, a backbone that does not fit, a folder of other videos or settings,
            or, after everything else was written, more failed videos than `max_failed`.
        OSError: a shard cannot be written. What was written before stays, and the same call goes on after it.
    """
    work = Extraction(videos, output_dir, streams, precision, batch_size, decoders, device, shard_bytes, limits)
    if len(work.tasks) < num_processes and process_index == 0:
        logger.warning(f"There are {len(work.tasks)} shards to make for {num_processes} processes: lower shard_bytes.")
    missing = work.missing(range(process_index, len(work.tasks), num_processes), retry_failed)
    if not missing and read_manifest(work.folder) is not None:
        logger.warning(f"{work.folder} already holds the features of videos of these ids: nothing to do.")
    num_videos = sum(len(work.tasks[number]) for number in missing)
    with tqdm(total=num_videos, desc="extracting features", unit="video", disable=not missing) as progress:
        for number in missing:
            work.make(number, progress)
    return work.close(max_failed)


def default_decoders() -> int:
    """One for each core that this process has, beside the others that were launched on this machine; at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)), MOST_DECODERS))
