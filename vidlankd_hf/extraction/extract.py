"""Extracts the features of videos into a folder of shards, in one or several processes."""

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tqdm.auto import tqdm

from ..data.feature_shards import MANIFEST
from ..data.features import FeatureStore, read_manifest
from ..utils.messages import number_of
from .backbones import Backbone
from .decoders import Limits
from .shard_folder import ShardFolder
from .streams import Stream
from .tasks import ShardTask
from .videos import LeftOut, find_videos

logger = logging.getLogger(__name__)

MAX_DECODERS = 8  # by default


class Extraction(ShardFolder):
    """Loads the backbones and divides the videos into shard tasks, which any process can run.

    Args:
        videos, output_dir, streams, precision, batch_size, decoders, device, shard_bytes, limits: As in
            [`extract_features`].
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
        self.batch_size, self.decoders, self.limits = batch_size, decoders or default_decoders(), limits or Limits()
        left_out: list[LeftOut] = []
        found = find_videos(videos, left_out)
        names = [stream.name for stream in streams]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"The streams are {names}: give at least one, all with different names.")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.backbones = {stream.name: Backbone(stream, device, precision) for stream in streams}
        settings = {name: backbone.settings for name, backbone in self.backbones.items()}
        # 2 bytes per value of a feature, 4 bytes per timestamp.
        bytes_per_second = sum(b.settings["rate"] * (2 * b.width + 4) for b in self.backbones.values())
        super().__init__(Path(output_dir), found, settings, bytes_per_second, shard_bytes, left_out)

    def extract_shard(self, number: int, progress: tqdm | None = None) -> None:
        """Extracts one shard.

        Args:
            number: Number of its task.
            progress: A tqdm bar that advances by one for each video.

        Raises:
            OSError: The shard cannot be written. Earlier shards are kept.
        """
        options = self.backbones, self.batch_size, self.decoders, self.limits, progress
        task = ShardTask(self.folder, number, self.tasks[number], *options)
        try:
            task.run()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else error
            problem = (
                f"{reason}: shard {number} could not be written. Finished shards are kept; fix the cause and run the "
                "same command again"
            )
            raise OSError(error.errno, problem, error.filename or str(self.folder)) from error
        # Another process may have seen all shards complete before this one removed its shard.
        (self.folder / MANIFEST).unlink(missing_ok=True)
        share = task.waiting / task.seconds
        logger.info(f"shard {number}: {task.seconds:.1f} s, of which {share:.0%} waiting for decoded videos")


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
    """Extracts frozen features of videos and writes them as shards. Shards that are already complete are kept.

    Each stream passes images or clips to its backbone at its own rate. Clips do not overlap, except that the last clip
    ends with the video and may overlap the one before it; in a video with fewer frames, the last frame is repeated.
    The timestamp of a feature is the middle of its frames. A feature is the pooled output of the backbone, or if there
    is none, the mean of its last hidden state over space (and time), stored in float16.

    Videos are decoded in child processes. A video that cannot be decoded, or exceeds `limits`, is listed with the
    reason in `quarantine.jsonl`, and the run continues.

    Args:
        videos: A folder, glob pattern, manifest or list of paths. See [`find_videos`].
        output_dir: Folder of the shards. An earlier run with the same videos and streams is continued.
        streams: The streams. [`FeatureStore`] aligns the others to the timestamps of the first one. [`paper_streams`]
            returns those of VidLanKD.
        precision: `"fp32"`, `"bf16"` or `"fp16"`, for the backbones.
        batch_size: Images per forward pass, from any number of videos. Clips: a quarter as many.
        decoders: Number of decoding child processes. Default: one for each core, at most 8.
        device: Device of the backbones. Default: a GPU if there is one, otherwise the CPU.
        max_failed: Maximum number of videos that may fail.
        retry_failed: Whether to extract the shards again in which videos failed.
        shard_bytes: Approximate size of a shard, based on the estimated lengths of the videos.
        limits: Limits of time and memory for one video.
        process_index: Index of this process, which extracts every `num_processes`-th shard.
        num_processes: Number of processes that extract into the same folder.

    Returns:
        The features, or `None` if other processes have not finished their shards.

    Raises:
        ValueError: There are no videos, or two with the same id; a backbone does not fit its stream; the folder has
            features of other videos or settings; or more than `max_failed` videos failed (all others are written).
        OSError: A shard cannot be written. Finished shards are kept, and the same call continues after them.
    """
    work = Extraction(videos, output_dir, streams, precision, batch_size, decoders, device, shard_bytes, limits)
    if len(work.tasks) < num_processes and process_index == 0:
        logger.warning(f"Only {number_of(len(work.tasks), 'shard')} for {num_processes} processes: lower shard_bytes.")
    missing = work.missing(range(process_index, len(work.tasks), num_processes), retry_failed)
    if not missing and read_manifest(work.folder) is not None:
        logger.warning(f"{work.folder} already has the features of all these videos, so there is nothing to do.")
    num_videos = sum(len(work.tasks[number]) for number in missing)
    with tqdm(total=num_videos, desc="extracting features", unit="video", disable=not missing) as progress:
        for number in missing:
            work.extract_shard(number, progress)
    return work.close(max_failed)


def default_decoders() -> int:
    """Returns the number of cores for each process that was launched on this machine, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)), MAX_DECODERS))
