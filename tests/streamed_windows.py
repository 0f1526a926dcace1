"""Samplers and loaders of windows that are read from disk, for tests."""

from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler, DataLoader

from vidlankd_hf.training.sampler import EpochDataset, EpochSampler


def ids(samples):
    return [(sample["id"], sample["epoch"], sample["sample_id"]) for sample in samples]


def make_sampler(stream, seed=3, epoch=0, samples_per_step=1):
    sampler = EpochSampler(len(stream), samples_per_step, seed, shard_sizes=stream.shard_sizes)
    sampler.set_epoch(epoch)
    return sampler


def order_of(stream, seed=3, epoch=0):
    return [key - epoch * len(stream) for key in make_sampler(stream, seed, epoch)]


def loader_of(stream, workers=0, epoch=0, rank=0, ranks=1, batch_size=4):
    """A user's own loader, on one of several ranks."""
    sampler = make_sampler(stream, epoch=epoch, samples_per_step=batch_size * ranks if ranks > 1 else 1)
    batches = BatchSampler(sampler, batch_size, drop_last=False)
    batches = BatchSamplerShard(batches, ranks, rank) if ranks > 1 else batches
    return DataLoader(EpochDataset(stream), batch_sampler=batches, num_workers=workers, collate_fn=list)


def loaded(stream, workers=0, **options):
    return [ids(batch) for batch in loader_of(stream, workers, **options)]
