"""The order of the samples, and the epoch and id that travel with each one."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from datasets import Dataset as HFDataset
from torch.utils.data import Dataset, Sampler, get_worker_info
from transformers import TrainerCallback

from ..data.streaming import VideoTextStream
from ..utils.signals import survive_stop_signals


class EpochSampler(Sampler[int]):
    """Sampler whose order in epoch e is a pure function of (seed, e); keys hold the epoch: `key = e * size + index`.

    An epoch holds complete optimizer steps only, so it is the same however a step is split into processes and
    micro-batches. The few samples that do not fill a step differ from epoch to epoch.

    Args:
        size: Number of samples.
        samples_per_step: Samples of one optimizer step: processes x micro-batch x accumulation.
        seed: Seed of the run.
        order: The indices of an epoch, as a function of (seed, epoch); default: a random permutation.

    Raises:
        ValueError: There are fewer samples than one optimizer step takes.
    """

    def __init__(
        self,
        size: int,
        samples_per_step: int,
        seed: int,
        order: Callable[[int, int], Iterator[int]] | None = None,
    ):
        if size < samples_per_step:
            raise ValueError(
                f"the training data has {size} samples, fewer than one optimizer step takes ({samples_per_step} = "
                "processes x --per_device_train_batch_size x --gradient_accumulation_steps): lower these or add data"
            )
        self.size, self.seed, self.epoch = size, seed, 0
        self.length = size - size % samples_per_step
        self.order = order

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        if self.order is not None:
            first = self.epoch * self.size
            yield from (first + index for index in islice(self.order(self.seed, self.epoch), self.length))
            return
        order = np.random.Generator(np.random.PCG64([self.seed, self.epoch])).permutation(self.size)[: self.length]
        yield from (order + self.epoch * self.size).tolist()


class SetEpoch(TrainerCallback):
    """Tell the [`EpochSampler`] of the training data which epoch begins.

    accelerate does not reach a sampler below the wrappers of several processes; a resumed epoch would be the first.
    """

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        sampler = train_dataloader.batch_sampler
        while hasattr(sampler, "batch_sampler"):
            sampler = sampler.batch_sampler
        steps = len(train_dataloader) // args.gradient_accumulation_steps
        sampler.sampler.set_epoch(state.global_step // steps)


def evaluation_order(size: int) -> list[int]:
    """The order in which evaluation reads `size` samples: always the same permutation."""
    return list(EpochSampler(size, 1, seed=0))


def batch_size_with_negatives(groups: list, asked: int) -> int:
    """Find the evaluation batch size nearest to `asked` at which every batch holds a negative.

    Args:
        groups: Group of each sample, in the order of evaluation; samples of one group are not negatives.
        asked: The requested batch size.

    Raises:
        ValueError: There is no such size up to twice the requested one.
    """
    for size in sorted(range(2, 2 * asked + 1), key=lambda size: (abs(size - asked), size)):
        if all(len(set(groups[first : first + size])) > 1 for first in range(0, len(groups), size)):
            return size
    raise ValueError(
        f"the evaluation data ({len(groups)} samples of {len(set(groups))} videos or texts) cannot be divided into "
        f"batches of about {asked} that all hold a negative: hold out more (--held_out_videos, --held_out_text) or "
        "change --per_device_eval_batch_size"
    )


class EpochDataset(Dataset):
    """Dataset read by the keys of [`EpochSampler`]: adds `sample_id` and `epoch` to each sample.

    A plain index is a key of epoch 0, which evaluation uses.

    Args:
        dataset: Map-style dataset. If it is a `datasets.Dataset` whose transform has a method `read(rows, epochs)`, as
            [`load_video_text`] returns, samples are read by that and may depend on the epoch; a [`VideoTextStream`] is
            read by its `read(indices, epochs)`.
    """

    def __init__(self, dataset: Any):
        self.dataset = dataset
        self.stream = dataset if isinstance(dataset, VideoTextStream) else None
        self.size = len(dataset) if self.stream is None else self.stream.num_windows
        self._prepared_worker = False
        transform = dataset.format["format_kwargs"].get("transform") if isinstance(dataset, HFDataset) else None
        self.read = getattr(transform, "read", None)
        self.rows = dataset.with_format(None) if self.read else None

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[dict]:
        """Iterate over epoch 0. Every integer is a key, so iteration by index would not end."""
        return (self[key] for key in range(self.size))

    def __getitem__(self, key: int) -> dict:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: list[int]) -> list[dict]:
        if not self._prepared_worker and get_worker_info() is not None:
            survive_stop_signals()
            self._prepared_worker = True
        epochs, indices = zip(*(divmod(key, self.size) for key in keys))
        if self.read is not None:
            columns = self.read(self.rows[list(indices)], epochs)
            samples = [dict(zip(columns, values)) for values in zip(*columns.values())]
        elif self.stream is not None:
            samples = self.stream.read(indices, epochs)
        elif hasattr(self.dataset, "__getitems__"):
            samples = self.dataset.__getitems__(list(indices))
        else:
            samples = [self.dataset[index] for index in indices]
        return [{**s, "sample_id": i, "epoch": e} for s, i, e in zip(samples, indices, epochs)]
