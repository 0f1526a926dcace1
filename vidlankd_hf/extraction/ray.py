"""Extraction on a Ray cluster (extra `[ray]`). Ray Data distributes the shards and retries those of lost workers."""

from pathlib import Path
from typing import Any

from ..data.features import FeatureStore
from ..utils.extras import requires_extra
from .extract import Extraction
from .tasks import is_done

with requires_extra("ray"):
    import ray
    import ray.data


class ShardWorker:
    """Holds the backbones in a worker and extracts one shard for each row `{"task": number}`."""

    def __init__(self, **options: Any):
        self.work = Extraction(**options)

    def __call__(self, row: dict[str, int]) -> dict[str, int]:
        number = int(row["task"])
        if not is_done(self.work.folder, number):  # a lost worker may have finished it
            self.work.extract_shard(number)
        return row


def extract_with_ray(
    workers: int, output_dir: str | Path, cpus: float = 1, gpus: float = 0, max_failed: int = 0,
    retry_failed: bool = False, **options: Any,
) -> FeatureStore:  # fmt: skip
    """Extracts features on the Ray cluster that `ray.init` connects to. See [`extract_features`].

    Args:
        workers: Number of workers, each with its own copy of the backbones.
        output_dir: Output folder. It and the videos must be on a file system that all nodes share.
        cpus, gpus: CPUs and GPUs per worker.
        max_failed, retry_failed: As in [`extract_features`].
        options: Arguments of [`Extraction`]; `device` is the device of the workers.

    Raises:
        ValueError: As in [`extract_features`].
        OSError: As in [`extract_features`].
    """
    options["output_dir"] = str(Path(output_dir).absolute())
    work = Extraction(**{**options, "device": "cpu"})
    missing = work.missing(retry_failed=retry_failed)
    if missing:
        rows = ray.data.from_items([{"task": number} for number in missing], override_num_blocks=len(missing))
        pool = ray.data.ActorPoolStrategy(size=min(workers, len(missing)))
        rows = rows.map(ShardWorker, fn_constructor_kwargs=options, compute=pool, num_cpus=cpus, num_gpus=gpus)
        rows.materialize()
    return work.close(max_failed)
