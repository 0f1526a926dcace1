"""Order of the samples, and the epoch and id that travel with each one."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from datasets import Dataset as HFDataset
from torch.utils.data import Dataset, Sampler, get_worker_info

from ..data.streaming import VideoTextStream
from ..utils.signals import survive_stop_signals


class EpochSampler(Sampler[int]):
    """The order of epoch e is a pure function of (seed, e); every key says its epoch: `key = e * size + index`.

    An epoch holds whole optimizer steps only, so that it is the same however a step is split into processes and
    micro-batches. The few samples that do not fill one are others in each epoch.

    Args:
        size: Number of samples.
        samples_per_step: Samples of one optimizer step: processes x micro-batch x accumulation.
        seed: Of the run.
        order: The indices of an epoch, as a function of (seed, epoch); by default a random permutation.
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


class EpochDataset(Dataset):
    """`dataset` read by the keys of [`EpochSampler`]: each sample also carries `sample_id` and `epoch`.

    A plain index is a key of epoch 0, which is what evaluation uses. A `datasets.Dataset` whose transform has a method
    `read(rows, epochs)`, as that of [`load_video_text`], is read by it, so that its samples may depend on the epoch. A
    [`VideoTextStream`] is read by its `read(indices, epochs)`.
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
