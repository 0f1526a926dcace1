"""Windows of captioned video read from disk, for data that do not fit in memory."""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset
from torch.utils.data import Dataset as TorchDataset

from ..utils.json_files import read_json
from ..utils.messages import number_of
from .block_checksums import checksums_of
from .features import read_manifest
from .held_out import MOST_HELD_OUT, check_held_out
from .other_videos import OtherVideos
from .source_files import combined_hash
from .window_shards import WindowShard

HELD_OUT_SHARE = 0.05  # of the videos, by default
MIN_VIDEOS = 64  # per shard, so that a batch has clips of several videos


class VideoTextStream(TorchDataset):
    """The windows of [`load_video_text`] as a map-style data set on disk; returned with `streaming=True`.

    Windows are numbered shard by shard. A shard has the windows of one feature shard (a "file" in the code below), or
    of several consecutive ones, so that it has at least 64 videos. A process keeps few files open, so its memory does
    not depend on the amount of data, as long as windows are read shard by shard, in the order of an [`EpochSampler`]
    with `shard_sizes`. Our trainers do this. In your own loop:

        stream = load_video_text(..., seed=0, streaming=True)
        sampler = EpochSampler(len(stream), samples_per_step=32, seed=0, shard_sizes=stream.shard_sizes)
        sampler.set_epoch(2)
        collator = VideoTextCollator(tokenizer)
        loader = DataLoader(EpochDataset(stream), batch_size=32, sampler=sampler, num_workers=2, collate_fn=collator)

    To resume, `accelerate.skip_first_batches(loader, batches)` skips batches without reading them. For several
    processes, `accelerator.prepare(loader)` gives each process its batches.

    Args:
        features: Folder of the features.
        folder: Folder of the windows, written by [`prepare_windows`].
        streams: Names of the feature streams to read; all by default.
        seed: Determines where windows start in each epoch; None keeps them the same in every epoch.
        mil_candidates, shuffle_videos_seed: See [`load_video_text`].

    Attributes:
        feature_size: F, the width of the features.
        shard_sizes: `[shards]` number of windows of each shard.
        names: File names of the feature shards.

    Raises:
        ValueError: The features lack a requested stream.
    """

    def __init__(
        self,
        features: str | Path,
        folder: str | Path,
        streams: Sequence[str] | None = None,
        seed: int | None = None,
        mil_candidates: int | None = None,
        shuffle_videos_seed: int | None = None,
    ):
        self.features, self.folder, self.seed = Path(features), Path(folder), seed
        self.mil_candidates, self.shuffle_videos_seed = mil_candidates, shuffle_videos_seed
        manifest = read_manifest(features)
        known = manifest["streams"]
        unknown = sorted(set(streams or ()) - set(known))
        if unknown:
            raise ValueError(f"{features} has no stream {unknown[0]!r}: it has {', '.join(known)}")
        self.streams = list(streams or known)
        self.feature_size: int = sum(known[name]["width"] for name in self.streams)
        info = read_json(self.folder / "info.json", dict, "remove its folder to divide the captions again")
        self.max_tokens: int = info["max_tokens"]
        self.names = [shard["name"] for shard in info["shards"]]
        self._first_files = _group_files([shard["videos"] for shard in info["shards"]])
        # A batch may hold the end of one shard and the beginning of the next.
        self._max_open = 2 * int(np.diff(self._first_files).max())
        windows, videos = (np.array([shard[kind] for shard in info["shards"]]) for kind in ("windows", "videos"))
        self._select(np.zeros_like(windows), windows, np.zeros_like(videos), videos)
        self._checksums = {name: checksums_of(manifest, name) for name in self.names}
        more: list = [] if mil_candidates is None else [mil_candidates]
        more += [] if shuffle_videos_seed is None else [{"shuffle_videos_seed": shuffle_videos_seed}]
        self._content = combined_hash(manifest["sha256"], info.get("files"), self.streams, seed, *more)
        self._open: dict[int, WindowShard] = {}

    def _select(self, begins: np.ndarray, ends: np.ndarray, first_videos: np.ndarray, end_videos: np.ndarray) -> None:
        """Restricts the data set to these windows of each file, which are those of these videos."""
        self._begins, self._ends = begins, ends
        self._others = None
        if self.shuffle_videos_seed is not None:
            self._others = OtherVideos(first_videos, end_videos, self._first_files, self.shuffle_videos_seed)
        self._before_file = np.concatenate([[0], np.cumsum(ends - begins)])
        self.shard_sizes = np.diff(self._before_file[self._first_files])

    @property
    def content_fingerprint(self) -> str:
        """Hash of all features and windows of this data set, in any epoch."""
        return combined_hash(self._content, self._begins.tolist(), self._ends.tolist())

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": {}}

    def __len__(self) -> int:
        return int(self._before_file[-1])

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < len(self):
            raise IndexError(f"there is no window {index}: give 0 to {len(self) - 1}")
        return self.read([index], [0])[0]

    def read(self, indices: Sequence[int], epochs: Sequence[int]) -> list[dict]:
        """Reads windows, each as it is in an epoch.

        Args:
            indices: Indices of the windows.
            epochs: The epoch of each window.

        Returns:
            Rows with the columns of [`load_video_text`].
        """
        rows = []
        for index, epoch in zip(indices, epochs):
            shard, window, other = self._locate(index)
            clip = None if other is None else (other[0].features, other[0].entry(other[1]))
            rows.append(shard.sample(window, epoch, self.seed, self.streams, self.mil_candidates, clip))
        return rows

    def _locate(self, index: int) -> tuple[WindowShard, int, tuple[WindowShard, int] | None]:
        """The shard of a window, its number there, and the other video whose clip it has, with its shard."""
        file = int(np.searchsorted(self._before_file, index, side="right")) - 1
        window = int(self._begins[file] + index - self._before_file[file])
        shard = self._shard(file)
        if self._others is None:
            return shard, window, None
        other_file, other = self._others.of(file, shard.locate(window)[0])
        return shard, window, (self._shard(other_file), other)

    def draw(self, count: int, seed: int) -> Dataset:
        """Draws windows at random, in memory that does not depend on the amount of data.

        Args:
            count: Number of windows.
            seed: Seed of the draw.

        Returns:
            A data set like that of [`load_video_text`] without streaming, in the order of this one. Its features are
            read when a row is accessed, and it is the same in every epoch.

        Raises:
            ValueError: There are fewer windows.
        """
        if not 1 <= count <= len(self):
            raise ValueError(f"cannot draw {count} of {number_of(len(self), 'window')}: give 1 to {len(self)}")
        rows = []
        for index in np.sort(np.random.default_rng(seed).choice(len(self), count, replace=False)).tolist():
            shard, window, other = self._locate(index)
            entry = None if other is None else other[0].entry(other[1])
            rows.append({**shard.describe(*shard.locate(window), other=entry), "window": index})
        return Dataset.from_list(rows).with_transform(self._read_rows)

    def _read_rows(self, rows: dict[str, list]) -> dict[str, list]:
        read = self.read(rows["window"], [0] * len(rows["window"]))
        return {name: [row[name] for row in read] for name in read[0]}

    def _shard(self, file: int) -> WindowShard:
        if file not in self._open:
            while len(self._open) >= self._max_open:
                self._open.pop(next(iter(self._open)))
            name = self.names[file]
            found = self._checksums[name]
            self._open[file] = WindowShard(self.folder, self.features, name, self.max_tokens, found)
        return self._open[file]

    def videos(self) -> list[str]:
        """The video of each window, whose clip is read."""
        names = []
        for file, (begin, end) in enumerate(zip(self._begins.tolist(), self._ends.tolist())):
            of_windows = [self._shard(file).locate(window)[0] for window in range(begin, end)]
            name_of = {video: self._name_of_clip(file, video) for video in set(of_windows)}
            names += [name_of[video] for video in of_windows]
        return names

    def _name_of_clip(self, file: int, video: int) -> str:
        file, video = (file, video) if self._others is None else self._others.of(file, video)
        return self._shard(file).entry(video)["video"]

    def split_by_video(self, held_out: float | None = None) -> tuple["VideoTextStream", "VideoTextStream"]:
        """Splits the windows; the videos whose names have small hashes are held out.

        Args:
            held_out: Approximate share (below 1) or number of the videos to hold out; a share is at least two videos.
                Default: 5 %, but at most about 10,000 windows.

        Returns:
            Training data and held-out data.

        Raises:
            ValueError: `held_out` is neither a share nor a number, or every video would be held out.
        """
        check_held_out("--held_out_videos", held_out)
        files = [(shard.hashes, shard.first_windows) for shard in map(self._shard, range(len(self.names)))]
        videos = sum(len(hashes) for hashes, _ in files)
        if held_out is None:
            held_out = min(HELD_OUT_SHARE, MOST_HELD_OUT / len(self))
        if held_out < 1:
            smallest = sorted(int(value) for hashes, _ in files for value in hashes[:2])
            least = max(1, min(2, videos - 1))  # a contrast, or captions of another video, need a second one
            limit = max(int(held_out * 2**64), smallest[least - 1] + 1)
        elif held_out < videos:
            limit = int(np.partition(np.concatenate([hashes for hashes, _ in files]), int(held_out))[int(held_out)])
        else:
            limit = 2**64 - 1
        counts = [int(np.searchsorted(hashes, np.uint64(limit))) for hashes, _ in files]
        if sum(counts) == videos:
            raise ValueError(
                f"cannot hold out {videos} of {number_of(videos, 'video')}: add videos, or train on all of them with "
                "--held_out_videos 0"
            )
        bounds = np.array([np.append(firsts, end)[n] for (_, firsts), n, end in zip(files, counts, self._ends)])
        train, rest = copy.copy(self), copy.copy(self)
        held, everything = np.array(counts), np.array([len(hashes) for hashes, _ in files])
        train._select(bounds, self._ends, held, everything)
        rest._select(self._begins, bounds, np.zeros_like(held), held)
        return train, rest


def _group_files(videos: Sequence[int]) -> np.ndarray:
    """Divides files into shards of at least `MIN_VIDEOS` videos.

    Args:
        videos: Number of videos of each file.

    Returns:
        The first file of each shard, and the number of files.
    """
    firsts, in_shard = [0], 0
    for number, count in enumerate(videos):
        if in_shard >= MIN_VIDEOS:
            firsts.append(number)
            in_shard = 0
        in_shard += count
    if in_shard < MIN_VIDEOS and len(firsts) > 1:
        firsts.pop()
    return np.array([*firsts, len(videos)])
