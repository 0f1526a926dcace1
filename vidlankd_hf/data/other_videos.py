"""Pairs every video with another one: the control in which captions do not describe the clips."""

import numpy as np

from .fingerprint import hash64


class OtherVideos:
    """Gives each of the selected videos another one, every video once, mostly from the same shard.

    The videos of a shard, which are sorted by the hashes of their names, are rotated by a number of places that
    depends on the seed. A shard with one selected video is joined with the next one. So neither names nor features of
    other shards must be read.

    Args:
        begins, ends: `[files]` range of the selected videos of each file.
        first_files: `[shards + 1]` first file of each shard, and the number of files.
        seed: Determines the rotations.

    Raises:
        ValueError: Fewer than two videos are selected.
    """

    def __init__(self, begins: np.ndarray, ends: np.ndarray, first_files: np.ndarray, seed: int):
        self.begins, self.seed = begins, seed
        self._before_file = np.concatenate([[0], np.cumsum(ends - begins)])
        total = int(self._before_file[-1])
        if total < 2:
            raise ValueError(
                f"shuffling videos needs at least 2 videos in each part of the data, but one has {total}: add videos, "
                "hold out more of them, or leave out shuffle_videos_seed"
            )
        firsts = [0]
        for end in self._before_file[first_files[1:]].tolist():
            if end - firsts[-1] >= 2:
                firsts.append(end)
        firsts[-1] = total  # a last shard with one video belongs to the one before it
        self._firsts = np.array(firsts)

    def of(self, file: int, video: int) -> tuple[int, int]:
        """The file and position of the video whose clips go with the captions of a video."""
        number = int(self._before_file[file]) + video - int(self.begins[file])
        shard = int(np.searchsorted(self._firsts, number, side="right")) - 1
        first, end = self._firsts[shard : shard + 2].tolist()
        rotation = 1 + hash64(f"{self.seed}/{first}") % (end - first - 1)
        other = first + (number - first + rotation) % (end - first)
        file = int(np.searchsorted(self._before_file, other, side="right")) - 1
        return file, int(self.begins[file]) + other - int(self._before_file[file])
