"""Text as full blocks of token ids, tokenized once and memory-mapped."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Dataset as TorchDataset
from transformers import PreTrainedTokenizerBase

from ..utils.io import discard, resumable_dir
from .block_writer import BLOCKS, PIECES, pieces_of, write_blocks
from .checksums import DamagedData, Piece, verify_once
from .sealed_json import read_sealed, sealed
from .source_files import check_unchanged, combined_hash, content_hashes
from .stored_alignment import StoredAlignment, describe_alignment
from .text_files import text_files
from .text_source import batches_of, load_text, naming_the_row
from .token_tasks import TokenTasks, make_aligner
from .vocabulary import tokenizer_fingerprint, vocabulary_fingerprint

if TYPE_CHECKING:  # stored blocks are read without `datasets`
    from datasets import Dataset, IterableDataset

logger = logging.getLogger(__name__)

BLOCK_TOKENS = 126  # with [CLS] and [SEP]: 128
MOST_UNKNOWN, UNKNOWN_SAMPLE = 0.05, 1000  # share of tokens; blocks that are counted
INFO = "info.json"


class TextBlocks(TorchDataset):
    """Map-style data set of memory-mapped blocks: `blocks[i]` is `{"input_ids": [126] unsigned integers}`.

    Samples of blocks for a teacher with another tokenizer also have the fields that [`TeacherBatch`] takes.

    Args:
        folder: Folder written by [`load_text_blocks`].
        start, stop: Range of the folder's blocks in this data set.
        vokens: Folder written by [`vokenize`] for these blocks; each block then has `voken_ids` too.

    Raises:
        DamagedData: The files differ from what was written; see [`verify_once`].
        ValueError: The vokens belong to another text or tokenizer.
    """

    def __init__(self, folder: str | Path, start: int = 0, stop: int | None = None, vokens: str | Path | None = None):
        self.folder, self.vokens = Path(folder), None if vokens is None else Path(vokens)
        self._arrays: dict[Path, np.memmap] = {}
        self.info = _read_info(self.folder)
        blocks = self.info["blocks"]
        self.start, self.stop = start, blocks if stop is None else stop
        self._alignment = StoredAlignment(self.folder, self.info) if "alignment" in self.info else None
        self._verify()
        if self.vokens is not None:
            info = read_vokens_info(self.vokens)
            self.num_vokens = info["num_vokens"]
            parts = {"vocabulary": "tokenizer", "block_tokens": "length of blocks", "sha256": "text"}
            for name, what in parts.items():
                ours, theirs = self.info[name], info["text"].get(name)
                if ours != theirs:
                    raise ValueError(
                        f"the vokens in {self.vokens} belong to another {what} ({str(theirs)[:12]}) than "
                        f"{self.folder} ({str(ours)[:12]}): make vokens for this text with `vidlankd vokenize`"
                    )
            path = self.vokens / "vokens.npy"
            if "sha256" in info:  # vokens made by older versions have none
                verify_once(self.vokens, [Piece(path, 0, path.stat().st_size, info["sha256"])])

    def _verify(self) -> None:
        """Compares the blocks with their checksums; see [`verify_once`]."""
        if "sha256" not in self.info:  # not written by this package
            return
        path = self.folder / BLOCKS
        try:
            array = self.array
            if (self.folder / PIECES).exists():
                pieces = pieces_of(self.folder, BLOCKS, array.offset)
            else:  # blocks of an older version
                pieces = [Piece(path, array.offset, array.nbytes, self.info["sha256"])]
        except (OSError, ValueError) as error:
            raise DamagedData(f"{path} cannot be read: {error}") from error
        shape = (self.info["blocks"], self.info["block_tokens"])
        if array.shape != shape or sum(piece.size for piece in pieces) != array.nbytes:
            raise DamagedData(f"{path} holds {array.shape} ids instead of {shape}")
        verify_once(self.folder, pieces + (self._alignment.pieces() if self._alignment else []))

    @property
    def content_fingerprint(self) -> str:
        """Hash of all blocks of this data set, of their vokens and of their alignment."""
        vokens = self.vokens and read_vokens_info(self.vokens)
        alignment = [self.info["alignment"]] if self._alignment else []
        return combined_hash(self.info["sha256"], self.start, self.stop, vokens, *alignment)

    @property
    def array(self) -> np.memmap:
        """The token ids of all blocks in the folder, `[blocks, block_tokens]`, memory-mapped."""
        return self._map(self.folder / "blocks.npy", "tokenize")

    def _map(self, path: Path, remedy: str) -> np.memmap:
        if path not in self._arrays:
            try:
                array: np.memmap = np.load(path, mmap_mode="r", allow_pickle=False)
            except Exception as error:  # NumPy parses the header as Python, so any error may occur
                raise ValueError(f"{path} is damaged ({error!r}): remove its folder to {remedy} again") from error
            if array.ndim != 2 or array.dtype.kind != "u" or len(array) < self.stop:
                raise ValueError(
                    f"{path} holds {array.dtype} {list(array.shape)} instead of {self.stop} blocks of ids: remove its "
                    f"folder to {remedy} again"
                )
            self._arrays[path] = array
        return self._arrays[path]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_arrays": {}}  # each worker maps the files itself

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(f"there is no block {index}: give 0 to {len(self) - 1}")
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, np.ndarray]]:
        rows = self.start + np.asarray(indices)
        samples = [{"input_ids": ids} for ids in self.array[rows]]
        if self._alignment is not None:
            samples = [sample | aligned for sample, aligned in zip(samples, self._alignment.samples(rows))]
        if self.vokens is not None:
            voken_ids = self._map(self.vokens / "vokens.npy", "vokenize")[rows]
            samples = [{**sample, "voken_ids": vokens} for sample, vokens in zip(samples, voken_ids)]
        return samples

    def split(self, held_out: int) -> tuple["TextBlocks", "TextBlocks"]:
        """Splits off the last blocks.

        Args:
            held_out: Number of blocks to hold out.

        Returns:
            Training data and held-out data.

        Raises:
            ValueError: No block, or every block, would be held out.
        """
        if not 0 < held_out < len(self):
            raise ValueError(f"cannot hold out {held_out} of {len(self)} blocks: give 1 to {len(self) - 1}")
        middle = self.stop - held_out
        bounds = ((self.start, middle), (middle, self.stop))
        train, evaluation = (TextBlocks(self.folder, start, stop, self.vokens) for start, stop in bounds)
        return train, evaluation


def read_vokens_info(folder: str | Path) -> dict:
    """The information that [`vokenize`] stored about the vokens in a folder.

    Raises:
        ValueError: Vokenization did not finish there.
    """
    path = Path(folder) / "info.json"
    if not path.exists():
        raise ValueError(f"{folder} holds no finished vokens: make them with `vidlankd vokenize`")
    info = read_sealed(path, "remove its folder to vokenize again")
    if not (isinstance(info.get("text"), dict) and type(info.get("num_vokens")) is int):
        raise DamagedData(f"{path} is damaged: remove its folder to vokenize again")
    return info


def _read_info(folder: Path) -> dict:
    info = read_sealed(folder / INFO, "remove its folder to tokenize again")
    if type(info.get("blocks")) is not int or not 0 < info["blocks"] < 2**63:
        raise DamagedData(f"{folder / INFO} is damaged: remove its folder to tokenize again")
    return info


def load_text_blocks(
    source: "str | Path | Dataset | IterableDataset",
    tokenizer: PreTrainedTokenizerBase,
    cache_dir: str | Path = "outputs/cache",
    split: str = "train",
    num_proc: int | None = None,
    block_tokens: int = BLOCK_TOKENS,
    streaming: bool = False,
    teacher_tokenizer: PreTrainedTokenizerBase | None = None,
    teacher_length: int | None = None,
) -> TextBlocks:
    """Tokenizes a text source once and cuts it into full blocks; a second call opens the stored blocks.

    It verifies them once per run and machine, and tokenizes again if they are damaged. An interrupted call
    is continued by the next one. Calls of several processes at the same time, also on several machines with a common
    `cache_dir`, share the work. Files are identified by their content.

    All texts are joined in order and cut every `block_tokens` tokens, so that no step computes padding. Only the last
    few tokens, fewer than a block, are left over; `info.json` counts them, and the texts without tokens. The ids take
    as few bytes as the vocabulary allows and are written in batches, so memory does not depend on the amount of text.

    With `teacher_tokenizer`, the tokens of a teacher with another tokenizer are stored with the blocks, aligned by the
    characters that they cover; see [`AlignmentCutter`]. The blocks stay the same.

    Args:
        source: See [`load_text`], or a `datasets.Dataset` or `datasets.IterableDataset` with a column `text`.
        tokenizer: The student's tokenizer, and the teacher's unless `teacher_tokenizer` is given.
        cache_dir: Parent of the folder of blocks, which is named after the text and the vocabulary.
        split: See [`load_text`].
        num_proc: Number of processes that tokenize; by default this process, with the tokenizer's threads.
        block_tokens: Ordinary tokens per block.
        streaming: Read a Hub data set without a copy of its text on disk. Files are always read in place.
        teacher_tokenizer: The teacher's tokenizer, if it differs from the student's.
        teacher_length: Maximum number of tokens that this teacher reads at once, including special tokens. It reads a
            block with more tokens in several windows. By default there is no limit.

    Raises:
        ValueError: The source does not exist or holds too little text for one block, or too few tokens of the two
            tokenizers can be aligned.
    """
    from datasets import Dataset
    from datasets.fingerprint import Hasher

    aligner = None if teacher_tokenizer is None else make_aligner(tokenizer, teacher_tokenizer, teacher_length)
    source = str(source) if isinstance(source, Path) else source
    dataset, files, contents = None, list[Path](), list[str]()
    if isinstance(source, str) and Path(source).exists():
        files, kind = text_files(Path(source), split, quiet=True)
        contents = content_hashes(files)
        fingerprint, streaming = combined_hash(kind, contents), True
    else:
        dataset = load_text(source, split, streaming=streaming) if isinstance(source, str) else source
        # Identifies the contents, or all that a stream will read and do (including a Hub revision).
        fingerprint = dataset._fingerprint if isinstance(dataset, Dataset) else Hasher.hash(dataset._ex_iterable)
    name = source if isinstance(source, str) else fingerprint
    settings: list = [tokenizer_fingerprint(tokenizer), block_tokens]
    if teacher_tokenizer is not None:
        settings += [tokenizer_fingerprint(teacher_tokenizer), teacher_length]
    made_of = [*settings, name]
    folder = Path(cache_dir) / f"blocks-{combined_hash('v3', fingerprint, settings)[:16]}"
    if folder.exists():
        inode = folder.stat().st_ino
        try:
            return _opened(folder, tokenizer)
        except (DamagedData, FileNotFoundError) as error:
            logger.warning("%s. The text is tokenized again.", error)
            discard(folder, inode)

    def batches() -> Iterator[list]:
        return batches_of(load_text(source, split, streaming=streaming) if dataset is None else dataset, name, files)

    tokens = TokenTasks(batches, tokenizer, aligner, num_proc)
    with naming_the_row(files), resumable_dir(folder, json.dumps(made_of), tokens.help_in) as part:
        if part is not None:
            info = write_blocks(tokens, part, block_tokens)
            check_unchanged(files, contents)
            info["vocabulary"], info["source"] = vocabulary_fingerprint(tokenizer), name
            if teacher_tokenizer is not None:
                info["alignment"] |= {"teacher_tokenizer": settings[2], "teacher_length": teacher_length}
            (part / INFO).write_text(json.dumps(sealed(info), indent=2) + "\n")
    return _opened(folder, tokenizer)


def _opened(folder: Path, tokenizer: PreTrainedTokenizerBase) -> TextBlocks:
    """Opens the blocks of a finished folder; logs how well they are aligned, and whether the vocabulary fits."""
    blocks = TextBlocks(folder)
    sample = blocks.array[:: -(-len(blocks) // UNKNOWN_SAMPLE)]
    share = 0.0 if tokenizer.unk_token_id is None else (sample == tokenizer.unk_token_id).mean()
    if share > MOST_UNKNOWN:
        logger.warning(
            "%.0f %% of the tokens of %s are %s: the vocabulary does not cover this text. Use the tokenizer of a "
            "model for its language and script.",
            *(100 * share, blocks.info["source"], tokenizer.unk_token),
        )
    if "alignment" in blocks.info:
        log = logger.warning if blocks.info["alignment"]["poor_blocks"] else logger.info
        log("%s: %s", folder, describe_alignment(blocks.info))
    return blocks
