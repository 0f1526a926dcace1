"""A folder of feature shards that is made task by task: its missing tasks, and what was left out."""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..data.feature_shards import MANIFEST
from ..data.features import FeatureStore, read_manifest
from ..utils.addresses import public_address
from ..utils.folders import listed
from ..utils.io import atomic_write
from ..utils.messages import number_of
from .tasks import LEFT_OUT, QUARANTINE, finish, is_done, open_folder, part_path, read_part
from .videos import LeftOut, Video

logger = logging.getLogger(__name__)


class ShardFolder:
    """An output folder whose videos are divided into shard tasks.

    Args:
        folder: The output folder. An earlier run with the same videos and settings is continued.
        videos: The videos.
        settings: Settings of each stream.
        bytes_per_second: Bytes of features per second of video.
        shard_bytes: Approximate size of a shard.
        left_out: Files that are not among the videos, and why.
    """

    def __init__(
        self,
        folder: Path,
        videos: Sequence[Video],
        settings: dict[str, dict],
        bytes_per_second: float,
        shard_bytes: int,
        left_out: Sequence[LeftOut],
    ):
        self.folder, self.settings, self.left_out = folder, settings, left_out
        self.tasks = open_folder(folder, videos, settings, bytes_per_second, shard_bytes)
        rows = ({"path": public_address(path), "reason": reason} for path, reason in left_out)
        listing = "".join(json.dumps(row) + "\n" for row in rows)
        path = folder / LEFT_OUT
        if listing != (path.read_text(encoding="utf-8") if path.exists() else ""):
            atomic_write(path, listing)

    def missing(self, numbers: Iterable[int] | None = None, retry_failed: bool = False) -> list[int]:
        """Returns the tasks whose shards are missing or damaged, and removes the remains of these shards.

        Args:
            numbers: Tasks to check. Default: all.
            retry_failed: Whether to include shards in which videos failed.
        """
        todo = []
        for number in range(len(self.tasks)) if numbers is None else numbers:
            if not is_done(self.folder, number) or (retry_failed and read_part(self.folder, number)["failed"]):
                todo.append(number)
        for number in todo:
            part_path(self.folder, number).unlink(missing_ok=True)
        if todo:
            (self.folder / MANIFEST).unlink(missing_ok=True)  # until all shards are complete
        return todo

    def close(self, max_failed: int = 0) -> FeatureStore | None:
        """Writes index and manifest once all shards are complete.

        Args:
            max_failed: Maximum number of videos that may fail.

        Returns:
            The features, or `None` if shards are missing.

        Raises:
            ValueError: More than `max_failed` videos failed, or all of them.
        """
        if read_manifest(self.folder) is None and not finish(self.folder, len(self.tasks), self.settings):
            return None
        if self.left_out:
            names = listed([public_address(path) for path, _ in self.left_out])
            logger.warning(f"Left out {number_of(len(self.left_out), 'file')} ({self.folder / LEFT_OUT}): {names}")
        store, num_failed = FeatureStore(self.folder), read_manifest(self.folder)["num_failed"]
        if num_failed > max_failed:
            raise ValueError(
                f"{num_failed} of {num_failed + len(store)} videos failed, but --max_failed is {max_failed}. "
                f"{self.folder / QUARANTINE} lists the reasons. All other features are written. Fix the files and run "
                "again with --retry_failed, or raise --max_failed."
            )
        return store
