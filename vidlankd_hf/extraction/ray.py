"""The same shard tasks on a Ray cluster (extra `[ray]`): Ray Data hands them out, and again if a worker is lost."""

from pathlib import Path
from typing import Any

import ray
import ray.data

from ..data.features import FeatureStore
from .extract import Extraction
from .tasks import is_done


class ShardWorker:
    """Holds the backbones in a worker and makes one shard for each row `{"task": number}`."""

    def __init__(self, **options: Any):
        self.work = Extraction(**options)

    def __call__(self, row: dict[str, int]) -> dict[str, int]:
        number = int(row["task"])
        if not is_done(self.work.folder, number):  # a worker that was lost after writing it
            self.work.make(number)
        return row


def extract_with_ray(
    workers: int, output_dir: str | Path, cpus: float = 1, gpus: float = 0, max_failed: int = 0,
    retry_failed: bool = False, **options: Any,
) -> FeatureStore:  # fmt: skip
    """Extracts features on the cluster that `ray.init` connects to; see `extract_features`.

    Args:
        workers: How many hold the backbones.
        output_dir: On a file system that all nodes share, as the videos must be too.
        cpus, gpus: Of each worker.
        max_failed, retry_failed: As of `extract_features`.
        options: Of `Extraction`; its `device` is that of the workers.

    Raises:
        ValueError, OSError: As `extract_features`.
    """
    options["output_dir"] = str(Path(output_dir).absolute())
    work = Extraction(**{**options, "device": "cpu"})
    missing = work.missing(retry_failed=retry_failed)
    if missing:
        rows = ray.data.from_items([{"task": number} for number in missing], override_num_blocks=len(missing))
        pool = ray.data.ActorPoolStrategy(size=min(workers, len(missing)))
        made = rows.map(ShardWorker, fn_constructor_kwargs=options, compute=pool, num_cpus=cpus, num_gpus=gpus)
        made.materialize()
    return work.close(max_failed)
