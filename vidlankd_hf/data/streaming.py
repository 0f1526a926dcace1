"""Captioned video as a stream: shards in a shuffled order, blocks within them, and a place to go on from."""

import copy
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from .features import read_manifest
from .window_shards import WindowShard

BLOCK_WINDOWS = 256
LEAST_VIDEOS = 64  # read together, so that a batch is not of one video


class VideoTextStream(IterableDataset):
    """The windows of [`load_video_text`], read a shard at a time; what it returns with `streaming=True`.

    A shard, here, is one of the features', or several in a row that have 64 videos together. An epoch's order is a
    pure function of (seed, epoch). Shards are shuffled. The windows of a shard are in fixed blocks of at most 256; a
    shard of J blocks has the windows j, j + J, j + 2 J, ... in its block j, so that windows of one video, which are no
    negatives of each other, are mostly in different blocks. The blocks of a shard are shuffled, and the windows in
    each. There is no buffer: a place in the order is (shard, block, offset), and going on from there reads nothing
    that comes before it. What a process holds does not depend on how much data there are.

    Our trainers read it by their own sampler, in this order, with their own state. In a loop of your own:

        stream = load_video_text(..., seed=0, streaming=True).take_turns(batch_size=32, rank=0, ranks=1)
        stream.set_epoch(2)
        loader = DataLoader(stream, batch_size=32, num_workers=2, collate_fn=VideoTextCollator(tokenizer))
        for number, batch in enumerate(loader, 1):
            ...
            state = stream.state_after(32 * number)  # for load_state_dict, in place of set_epoch

    Args:
        features: Folder of the features.
        folder: What [`prepare_windows`] made of the captions.
        streams: Of the features, by name; all by default.
        seed: Of the order, and of where windows begin in each epoch; None: order 0, windows that stay.

    Attributes:
        feature_size: F, the width of the features.
        sizes: [shards] windows of each shard, in the sense above.

    Raises:
        ValueError: No such stream of features.
    """

    def __init__(
        self, features: str | Path, folder: str | Path, streams: Sequence[str] | None = None, seed: int | None = None
    ):
        self.features, self.folder, self.seed = Path(features), Path(folder), seed
        known = read_manifest(features)["streams"]
        unknown = sorted(set(streams or ()) - set(known))
        if unknown:
            raise ValueError(f"{features} has no stream {unknown[0]!r}: it has {', '.join(known)}")
        self.streams = list(streams or known)
        self.feature_size: int = sum(known[name]["width"] for name in self.streams)
        info = json.loads((self.folder / "info.json").read_text())
        self.max_tokens: int = info["max_tokens"]
        self.names = [shard["name"] for shard in info["shards"]]
        self._groups = _group([shard["videos"] for shard in info["shards"]])
        self._most_open = 2 * int(
            np.diff(self._groups).max()
        )  # a batch may hold the end of one and the next's beginning
        self._select(np.zeros(len(self.names), np.int64), np.array([shard["windows"] for shard in info["shards"]]))
        self.take_turns(1)
        self.set_epoch(0)
        self._open: dict[int, WindowShard] = {}
        self._pid = os.getpid()

    def _select(self, begins: np.ndarray, ends: np.ndarray) -> None:
        """Which windows of each file are in this stream."""
        self._begins, self._ends = begins, ends
        self._before_file = np.concatenate([[0], np.cumsum(ends - begins)])
        self._before = self._before_file[self._groups]
        self.sizes = np.diff(self._before)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": {}}

    # ---- reading by number ----

    @property
    def num_windows(self) -> int:
        return int(self._before[-1])

    def read(self, indices: Sequence[int], epochs: Sequence[int]) -> list[dict]:
        """Windows by their number, from 0 to before `num_windows`, each in an epoch."""
        rows = []
        for index, epoch in zip(indices, epochs):
            file = int(np.searchsorted(self._before_file, index, side="right")) - 1
            window = int(self._begins[file] + index - self._before_file[file])
            rows.append(self._file(file).read(window, epoch, self.seed, self.streams))
        return rows

    def _file(self, number: int) -> WindowShard:
        if self._pid != os.getpid():
            self._open, self._pid = {}, os.getpid()
        if number not in self._open:
            while len(self._open) >= self._most_open:
                self._open.pop(next(iter(self._open)))
            self._open[number] = WindowShard(self.folder, self.features, self.names[number], self.max_tokens)
        return self._open[number]

    def videos(self) -> list[str]:
        """The video of each window, by number."""
        found = []
        for number, (begin, end) in enumerate(zip(self._begins, self._ends)):
            file = self._file(number)
            found += map(file.video_name, file.video_of(np.arange(begin, end)))
        return found

    def split_by_video(self, share: float) -> tuple["VideoTextStream", "VideoTextStream"]:
        """Training and held-out windows: those of the videos, about `share` of them, whose names have small hashes.

        Raises:
            ValueError: That would be no video, or all of them.
        """
        if not 0 < share < 1:
            raise ValueError(f"cannot hold out {share} of the videos: give a share between 0 and 1, such as 0.05")
        files = [(file.hashes, file.first_windows) for file in map(self._file, range(len(self.names)))]
        limit = max(int(share * 2**64), min(int(hashes[0]) for hashes, _ in files) + 1)
        counts = [int(np.searchsorted(hashes, np.uint64(limit))) for hashes, _ in files]
        videos = sum(len(hashes) for hashes, _ in files)
        if sum(counts) == videos:
            raise ValueError(f"cannot hold out {videos} of {videos} videos: add videos or lower the share")
        middles = np.array(
            [
                first_windows[count] if count < len(first_windows) else end
                for (_, first_windows), count, end in zip(files, counts, self._ends)
            ]
        )
        train, held_out = copy.copy(self), copy.copy(self)
        train._select(middles, self._ends)
        held_out._select(self._begins, middles)
        return train, held_out

    # ---- order ----

    def order(self, seed: int, epoch: int, place: tuple[int, int, int] = (0, 0, 0)) -> Iterator[int]:
        """The numbers of the windows in an epoch's order, from `place` on: how many-th shard and block, and offset."""
        shards, (_, block, offset) = self._shard_order(seed, epoch), place
        for shard in shards[place[0] :]:
            blocks = self._block_order(seed, epoch, shard)
            for number in blocks[block:]:
                members = np.arange(number, self.sizes[shard], len(blocks)) + self._before[shard]
                yield from _random(seed, epoch, shard + 1, number + 1).permutation(members)[offset:].tolist()
                offset = 0
            block = 0

    def place(self, seed: int, epoch: int, samples: int) -> tuple[int, int, int]:
        """The place in an epoch's order after its first `samples`."""
        shards = self._shard_order(seed, epoch)
        before = np.concatenate([[0], np.cumsum(self.sizes[shards])])
        shard = int(np.searchsorted(before, samples, side="right")) - 1
        if shard == len(shards):
            return shard, 0, 0
        before_block = self._before_block(seed, epoch, shards[shard])
        rest = samples - int(before[shard])
        block = int(np.searchsorted(before_block, rest, side="right")) - 1
        return shard, block, rest - int(before_block[block])

    def _samples_before(self, seed: int, epoch: int, place: tuple[int, int, int]) -> int:
        shards, (shard, block, offset) = self._shard_order(seed, epoch), place
        samples = int(self.sizes[shards[:shard]].sum()) + offset
        return (
            samples if shard == len(shards) else samples + int(self._before_block(seed, epoch, shards[shard])[block])
        )

    def _shard_order(self, seed: int, epoch: int) -> np.ndarray:
        return _random(seed, epoch).permutation(np.flatnonzero(self.sizes))

    def _block_order(self, seed: int, epoch: int, shard: int) -> np.ndarray:
        return _random(seed, epoch, shard + 1).permutation(-(-int(self.sizes[shard]) // BLOCK_WINDOWS))

    def _before_block(self, seed: int, epoch: int, shard: int) -> np.ndarray:
        """[blocks + 1] windows of the shard before each of its blocks, in their order."""
        blocks = self._block_order(seed, epoch, shard)
        return np.concatenate([[0], np.cumsum(-(-(self.sizes[shard] - blocks) // len(blocks)))])

    # ---- iterating ----

    def take_turns(self, batch_size: int, rank: int = 0, ranks: int = 1) -> "VideoTextStream":
        """Divides the epoch into batches that the ranks, and within a rank the workers of a loader, take in turn.

        Then the batches and their order are the same for any number of workers, and `ranks` ranks together have, batch
        for batch, what one has. With several ranks an epoch ends at the last turn in which all have a full batch; what
        is left, other windows in each epoch, is fewer than `batch_size * ranks`.

        Args:
            batch_size: That of the loader.
            rank, ranks: This process, and how many there are.

        Returns:
            Itself.
        """
        if batch_size < 1 or not 0 <= rank < ranks:
            raise ValueError(f"batch_size {batch_size}, rank {rank} of {ranks}: rank must be from 0 to before ranks")
        self.batch_size, self.rank, self.ranks = batch_size, rank, ranks
        return self

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is this epoch, from its beginning."""
        self.epoch, self._start, self._taken = epoch, (0, 0, 0), 0

    def __len__(self) -> int:
        """Windows of an epoch that this rank has."""
        return self._length() // self.ranks

    def _length(self) -> int:
        size, turn = self.num_windows, self.batch_size * self.ranks
        return size if self.ranks == 1 else size - size % turn

    def __iter__(self) -> Iterator[dict]:
        """The windows of this rank and worker, as samples for [`VideoTextCollator`]."""
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        seed, epoch, self._taken = self.seed or 0, self.epoch, 0
        rest = self._length() - self._samples_before(seed, epoch, self._start)
        for n, index in zip(range(rest), self.order(seed, epoch, self._start)):
            turn, rank = divmod(n // self.batch_size, self.ranks)
            if rank == self.rank and turn % workers == number:
                self._taken += 1
                yield {**self.read([index], [epoch])[0], "sample_id": index, "epoch": epoch}

    def state_after(self, samples: int) -> dict[str, int]:
        """The state once all ranks together have taken so many samples since the epoch began, or was gone on with.

        Args:
            samples: Of whole batches, where there are several workers or ranks.

        Returns:
            {"epoch", "shard", "block", "offset"}: how many-th shard of the epoch, how many-th block of the shard, and
            windows of it.
        """
        seed = self.seed or 0
        before = self._samples_before(seed, self.epoch, self._start)
        shard, block, offset = self.place(seed, self.epoch, before + samples)
        return {"epoch": self.epoch, "shard": shard, "block": block, "offset": offset}

    def state_dict(self) -> dict[str, int]:
        """`state_after` the last sample of an iteration in this process, without workers."""
        batches, rest = divmod(self._taken, self.batch_size)
        return self.state_after(batches * self.batch_size * self.ranks + rest)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next iteration goes on from `state`: same data, same seed; workers and batches may be others."""
        self.set_epoch(state["epoch"])
        self._start = state["shard"], state["block"], state["offset"]


def _group(videos: Sequence[int]) -> np.ndarray:
    """The first file of each shard, and the number of files, for files of so many videos."""
    firsts, together = [0], 0
    for number, count in enumerate(videos):
        if together >= LEAST_VIDEOS:
            firsts.append(number)
            together = 0
        together += count
    if together < LEAST_VIDEOS and len(firsts) > 1:
        firsts.pop()
    return np.array([*firsts, len(videos)])


def _random(*entropy: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([int(part) for part in entropy]))
