"""Reads the stored alignment of blocks: each block's segments, teacher tokens and windows."""

from pathlib import Path
from typing import Any

import numpy as np

from .block_writer import pieces_of
from .checksums import DamagedData, Piece

FILES = ("segments.npy", "teacher_ids.npy", "teacher_segments.npy", "windows.npy", "ends.npy")


class StoredAlignment:
    """The alignment files of a folder, memory-mapped; [`AlignmentCutter`] lists them.

    Args:
        folder: Folder of blocks.
        info: Its `info.json`.
    """

    def __init__(self, folder: Path, info: dict[str, Any]):
        self.folder, self._shape = folder, (info["blocks"], info["block_tokens"])
        self._arrays: dict[str, np.ndarray] = {}

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_arrays": {}}  # each worker maps the files itself

    def pieces(self) -> list[Piece]:
        """Returns the pieces of all files, for [`verify_once`].

        Raises:
            DamagedData: A file cannot be read, or has another size.
        """
        pieces = []
        for name in FILES:
            try:
                array: np.memmap = np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
                found = pieces_of(self.folder, name, array.offset)
            except Exception as error:  # NumPy parses the header as Python, so any error may occur
                raise DamagedData(f"{self.folder / name} cannot be read: {error!r}") from error
            if array.dtype.kind != "u" or sum(piece.size for piece in found) != array.nbytes:
                raise DamagedData(f"{self.folder / name} was changed: it now holds {array.dtype} {list(array.shape)}")
            pieces += found
        return pieces

    def samples(self, rows: np.ndarray) -> list[dict[str, np.ndarray]]:
        """Returns the alignment of the blocks with the numbers `rows`, as [`TeacherBatch`] takes it."""
        segments, ids, teacher_segments, windows, ends = map(self._map, FILES)
        stops = ends[rows].tolist()
        starts = np.where((rows > 0)[:, None], ends[rows - 1], 0).tolist()
        return [
            {
                "segments": row,
                "teacher_ids": ids[token:next_token],
                "teacher_segments": teacher_segments[token:next_token],
                "teacher_windows": windows[window:next_window],
            }
            for row, (token, window), (next_token, next_window) in zip(segments[rows], starts, stops)
        ]

    def _map(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            array = np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
            self._arrays[name] = array.view(np.ndarray)  # slices faster than a memmap
        return self._arrays[name]


def describe_alignment(info: dict[str, Any]) -> str:
    """Describes the alignment of blocks in one sentence, from their `info.json`."""
    counts = info["alignment"]
    text = (
        f"{counts['segments']:,} segments cover {counts['aligned_share']:.2%} of the student's tokens; there are "
        f"{counts['teacher_tokens_per_token']:.2f} teacher tokens per student token and "
        f"{counts['windows_per_block']:.2f} windows per block"
    )
    if counts["poor_blocks"]:
        text += f"; in {counts['poor_blocks']:,} of {info['blocks']:,} blocks less than half of the tokens are aligned"
    return text
