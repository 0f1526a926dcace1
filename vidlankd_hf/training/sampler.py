"""The order of samples in an epoch, and the epoch and id that travel with each sample."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler
from transformers import TrainerCallback

from ..data.fingerprint import data_fingerprint
from ..utils.messages import number_of

BLOCK_SAMPLES = 256
LISTED = 2**16


class EpochSampler(Sampler[int]):
    """Yields `key = epoch * size + index`; the order of an epoch is a pure function of (seed, epoch).

    An epoch consists of complete optimizer steps, so it stays the same however a step is split into processes and
    micro-batches. The few samples that do not fill a step are different ones in each epoch.

    By default, the order is a random permutation. With `shard_sizes`, samples are read shard by shard, so that data on
    disk need not fit in memory: shards are shuffled, and each is cut into fixed blocks of at most 256 samples. Block j
    of J holds the samples j, j + J, j + 2 J, ..., so that neighbors, such as windows of one video, which are not each
    other's negatives, mostly fall into different blocks. The blocks of a shard, and the samples of a block, are
    shuffled too.

    Args:
        size: Number of samples.
        samples_per_step: Samples of one optimizer step: processes x micro-batch x accumulation.
        seed: Seed of the order.
        shard_sizes: `[shards]` samples of each shard, if samples are to be read shard by shard.

    Raises:
        ValueError: There are fewer samples than one step takes.
    """

    def __init__(self, size: int, samples_per_step: int, seed: int, shard_sizes: Sequence[int] | None = None):
        if size < samples_per_step:
            raise ValueError(
                f"the training data has {number_of(size, 'sample')}, fewer than one optimizer step takes "
                f"({samples_per_step} = "
                "processes x --per_device_train_batch_size x --gradient_accumulation_steps): lower these or add data"
            )
        self.size, self.seed, self.epoch = size, seed, 0
        self.length = size - size % samples_per_step
        self.shard_sizes = None if shard_sizes is None else np.asarray(shard_sizes)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * self.size
        if self.shard_sizes is None:
            order = self._random().permutation(self.size)[: self.length]
            for begin in range(0, self.length, LISTED):  # Python's integers take five times the memory of an array's
                yield from (order[begin : begin + LISTED] + first).tolist()
        else:
            yield from (first + index for index in islice(self._by_shard(), self.length))

    def _by_shard(self) -> Iterator[int]:
        before = np.concatenate([[0], np.cumsum(self.shard_sizes)])
        for shard in self._random().permutation(np.flatnonzero(self.shard_sizes)):
            size = self.shard_sizes[shard]
            num_blocks = -(-int(size) // BLOCK_SAMPLES)
            for block in self._random(shard + 1).permutation(num_blocks):
                samples = np.arange(block, size, num_blocks) + before[shard]
                yield from self._random(shard + 1, block + 1).permutation(samples).tolist()

    def _random(self, *place: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self.seed, self.epoch, *map(int, place)]))


class SetEpoch(TrainerCallback):
    """Tells the [`EpochSampler`] of the training data which epoch begins.

    accelerate does not reach a sampler inside the wrappers for several processes, so a resumed epoch would be epoch 0.
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
    """Finds the evaluation batch size nearest to `asked` at which every batch holds a negative.

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
        f"the evaluation data ({number_of(len(groups), 'sample')} of "
        f"{number_of(len(set(groups)), 'video or text', 'videos or texts')}) cannot be divided into "
        f"batches of about {asked} that all hold a negative: hold out more (--held_out_videos, --held_out_text) or "
        "change --per_device_eval_batch_size"
    )


class EpochDataset(Dataset):
    """A map-style data set read by the keys of [`EpochSampler`]; adds `sample_id` and `epoch` to each sample.

    A plain index is a key of epoch 0, which is what evaluation uses. Samples may depend on the epoch if the data set,
    or the transform of a `datasets.Dataset`, has a method `read`; see [`VideoTextStream`] and [`WindowReader`].

    Args:
        dataset: Any map-style data set of dicts. If it has `shard_sizes`, its samples are best read shard by shard.
    """

    def __init__(self, dataset: Any):
        self.dataset, self.size = dataset, len(dataset)
        self.shard_sizes: Sequence[int] | None = getattr(dataset, "shard_sizes", None)
        layout = getattr(dataset, "format", None)  # of a datasets.Dataset
        transform = layout["format_kwargs"].get("transform") if isinstance(layout, dict) else None
        self._read_rows = getattr(transform, "read", None)
        self._rows = dataset.with_format(None) if self._read_rows else None

    @property
    def content_fingerprint(self) -> str | None:
        """See [`data_fingerprint`]."""
        return data_fingerprint(self.dataset)

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[dict]:
        """Iterates over epoch 0. Every integer is a key, so iteration by index would not end."""
        return (self[key] for key in range(self.size))

    def __getitem__(self, key: int) -> dict:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: list[int]) -> list[dict]:
        epochs, indices = zip(*(divmod(key, self.size) for key in keys))
        samples = self._read(list(indices), epochs)
        return [{**s, "sample_id": i, "epoch": e} for s, i, e in zip(samples, indices, epochs)]

    def _read(self, indices: list[int], epochs: Sequence[int]) -> list[dict]:
        if self._read_rows is not None:
            columns = self._read_rows(self._rows[indices], epochs)
            return [dict(zip(columns, values)) for values in zip(*columns.values())]
        if hasattr(self.dataset, "read"):
            return self.dataset.read(indices, epochs)
        if hasattr(self.dataset, "__getitems__"):
            return self.dataset.__getitems__(indices)
        return [self.dataset[index] for index in indices]
