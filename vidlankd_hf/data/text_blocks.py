"""Text as full blocks of token ids, tokenised once and memory-mapped."""

import glob
import hashlib
import itertools
import json
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
from torch.utils.data import Dataset as TorchDataset
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from ..utils.io import atomic_dir
from .vocabulary import tokenizer_fingerprint, vocabulary_fingerprint

if TYPE_CHECKING:  # stored blocks are read without `datasets`
    from datasets import Dataset, IterableDataset

BLOCK_TOKENS = 126  # with [CLS] and [SEP]: 128
BATCH_TEXTS = 1000  # tokenised at a time


class TextBlocks(TorchDataset):
    """Map-style data set of memory-mapped blocks: `blocks[i]` is `{"input_ids": [126] unsigned integers}`.

    Args:
        folder: Folder written by [`load_text_blocks`].
        start, stop: Range of the folder's blocks in this data set.
        vokens: Folder written by [`vokenize`] for these blocks; each block then has `voken_ids` too.

    Raises:
        ValueError: The vokens belong to another text or tokenizer.
    """

    def __init__(self, folder: str | Path, start: int = 0, stop: int | None = None, vokens: str | Path | None = None):
        self.folder, self.vokens = Path(folder), None if vokens is None else Path(vokens)
        self.info = json.loads((self.folder / "info.json").read_text())
        blocks = self.info.get("blocks") if isinstance(self.info, dict) else None
        if not isinstance(blocks, int) or not 0 < blocks < 2**63:
            raise ValueError(f"{self.folder / 'info.json'} is damaged: remove its folder to tokenise again")
        self.start, self.stop = start, blocks if stop is None else stop
        self._arrays = {}
        if self.vokens is not None:
            info = read_vokens_info(self.vokens)
            self.num_vokens = info["num_vokens"]
            parts = {"vocabulary": "tokenizer", "block_tokens": "length of blocks", "sha256": "text"}
            for name, what in parts.items():
                ours, theirs = self.info[name], info["text"][name]
                if ours != theirs:
                    raise ValueError(
                        f"the vokens in {self.vokens} belong to another {what} ({str(theirs)[:12]}) than "
                        f"{self.folder} ({str(ours)[:12]}): make vokens for this text with `vidlankd vokenize`"
                    )

    @property
    def array(self) -> np.ndarray:
        return self._map(self.folder / "blocks.npy", "tokenise")

    def _map(self, path: Path, remedy: str) -> np.ndarray:
        if path not in self._arrays:
            try:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
            except FileNotFoundError:
                raise
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
            raise IndexError(f"block {index} of {len(self)}")
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, np.ndarray]]:
        rows = self.start + np.asarray(indices)
        if self.vokens is None:
            return [{"input_ids": ids} for ids in self.array[rows]]
        voken_ids = self._map(self.vokens / "vokens.npy", "vokenize")[rows]
        return [{"input_ids": ids, "voken_ids": vokens} for ids, vokens in zip(self.array[rows], voken_ids)]

    def split(self, held_out: int) -> tuple["TextBlocks", "TextBlocks"]:
        """The first blocks for training and the last `held_out` for evaluation."""
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
    return json.loads(path.read_text())


def load_text(
    source: str, split: str = "train", text_column: str = "text", streaming: bool = False
) -> "Dataset | IterableDataset":
    """Opens a text source as a data set with the single column `text`.

    Args:
        source: A file or a folder of `.txt`, `.jsonl`, `.json` or `.parquet` files, also compressed (`.gz`, `.xz`,
            ...), or a Hub id, with the configuration after a colon if it has several
            (`"Salesforce/wikitext:wikitext-103-raw-v1"`).
        split: Split of a Hub data set. In a folder, the files whose names start with it (all files if none starts with
            `train`).
        text_column: Column that holds the text.
        streaming: Read or download the files while iterating, without a copy on disk.

    Returns:
        A `datasets.Dataset`, or a `datasets.IterableDataset` with `streaming`.

    Raises:
        ValueError: The source does not exist, is damaged, has no such column or holds no text.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    path = Path(source)
    if path.exists():
        files = sorted(p for p in ([path] if path.is_file() else path.iterdir()) if _kind(p))
        if not files:
            raise ValueError(f"{source} holds no text file: put {', '.join(_LOADERS)} files there")
        of_split = [p for p in files if p.stem.startswith(split)]
        if not of_split and split != "train":
            raise ValueError(f"no file in {source} starts with {split!r}: it holds {', '.join(p.name for p in files)}")
        files = of_split or files
        if not any(p.stat().st_size for p in files):
            raise ValueError(f"{source} holds no text: {', '.join(p.name for p in files)} is empty")
        kinds = {_kind(p) for p in files}
        if len(kinds) > 1:
            names = ", ".join(sorted(kinds))
            raise ValueError(f"{source} holds files of several kinds ({names}): keep one kind per folder")
        for file in files if kinds == {"json"} else ():
            _check_json_lines(file)
        try:
            names = [glob.escape(str(p)) for p in files]  # load_dataset takes them as patterns
            dataset = load_dataset(kinds.pop(), data_files=names, split="train", streaming=streaming)
        except (DatasetGenerationError, StopIteration, ValueError) as error:  # the last two if there are no rows
            reason = error.__cause__ or str(error) or "it is empty"
            raise ValueError(f"{source} cannot be read as text: {reason}") from error
    elif path.is_absolute() or source.startswith(".") or _kind(path) or source.count("/") > 1:
        raise ValueError(f"{source} does not exist: give a file, a folder or a Hub data set id")
    else:
        name, _, configuration = source.partition(":")
        dataset = load_dataset(name, configuration or None, split=split, streaming=streaming)
    columns = dataset.column_names or list(next(iter(dataset), ()))  # a stream may not know them yet
    if text_column not in columns:
        raise ValueError(f"{source} has no column {text_column!r}: it has {', '.join(columns) or 'none'}")
    dataset = dataset.select_columns(text_column)
    return dataset if text_column == "text" else dataset.rename_column(text_column, "text")


def load_text_blocks(
    source: "str | Path | Dataset | IterableDataset",
    tokenizer: PreTrainedTokenizerBase,
    cache_dir: str | Path = "outputs/cache",
    split: str = "train",
    num_proc: int | None = None,
    block_tokens: int = BLOCK_TOKENS,
    streaming: bool = False,
) -> TextBlocks:
    """Tokenises a text source once and cuts it into full blocks; a second call opens the stored blocks.

    All texts are joined in order and cut every `block_tokens` tokens, so that no step computes padding. Only the last
    few tokens, fewer than a block, are left over; `info.json` counts them, and the texts without tokens. The ids take
    as few bytes as the vocabulary allows and are written in batches, so memory does not depend on the amount of text.

    Args:
        source: See [`load_text`], or a `datasets.Dataset` or `datasets.IterableDataset` with a column `text`.
        tokenizer: Tokenizer of student and teacher.
        cache_dir: Parent of the folder of blocks, which is named after the text and the vocabulary.
        split: See [`load_text`].
        num_proc: Number of processes that tokenise; by default this process, with the tokenizer's threads.
        block_tokens: Ordinary tokens per block.
        streaming: Read a named `source` without a copy of its text on disk, for large ones.

    Raises:
        ValueError: The source does not exist, or holds too little text for one block.
    """
    from datasets import Dataset
    from datasets.fingerprint import Hasher

    source = str(source) if isinstance(source, Path) else source
    dataset = load_text(source, split, streaming=streaming) if isinstance(source, str) else source
    # Identifies the contents, or all that a stream will read and do (including a Hub revision).
    fingerprint = dataset._fingerprint if isinstance(dataset, Dataset) else Hasher.hash(dataset._ex_iterable)
    identity = f"v2 {fingerprint} {tokenizer_fingerprint(tokenizer)} {block_tokens}"
    folder = Path(cache_dir) / f"blocks-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    if not (folder / "info.json").exists():
        with atomic_dir(folder) as part:
            info = _write_blocks(dataset, tokenizer, part, num_proc, block_tokens)
            info["vocabulary"] = vocabulary_fingerprint(tokenizer)
            info["source"] = source if isinstance(source, str) else fingerprint
            (part / "info.json").write_text(json.dumps(info, indent=2) + "\n")
    return TextBlocks(folder)


def _write_blocks(dataset: Any, tokenizer: Any, folder: Path, num_proc: int | None, block_tokens: int) -> dict:
    from datasets.utils import are_progress_bars_disabled

    dtype = np.dtype(np.uint16 if len(tokenizer) <= 2**16 else np.uint32)
    texts = without_tokens = blocks = 0
    rest, sha256 = np.zeros(0, dtype), hashlib.sha256()
    batches = (batch["text"] for batch in dataset.iter(batch_size=BATCH_TEXTS))
    progress = tqdm(desc="tokenising text", unit=" texts", disable=are_progress_bars_disabled(), leave=False)
    with open(folder / "blocks.npy", "wb") as file, progress:
        begin = _write_header(file, dtype, 0, block_tokens)
        for count, empty, ids in _tokenized(batches, tokenizer, dtype, num_proc):
            progress.update(count)
            texts, without_tokens = texts + count, without_tokens + empty
            ids = np.concatenate([rest, ids])
            whole = len(ids) // block_tokens
            piece, rest = ids[: whole * block_tokens].tobytes(), ids[whole * block_tokens :]
            file.write(piece)
            sha256.update(piece)
            blocks += whole
        file.seek(0)
        if _write_header(file, dtype, blocks, block_tokens) != begin:
            raise RuntimeError("the header of blocks.npy grew, because this version of NumPy leaves no room in it")
    total = blocks * block_tokens + len(rest)
    if blocks == 0:
        raise ValueError(f"the text has {total} tokens, fewer than one block of {block_tokens}: give more text")
    return {
        "texts": texts,
        "texts_without_tokens": without_tokens,
        "tokens": total,
        "blocks": blocks,
        "block_tokens": block_tokens,
        "left_over": len(rest),
        "sha256": sha256.hexdigest(),
    }


def _write_header(file: Any, dtype: np.dtype, blocks: int, block_tokens: int) -> int:
    """Writes the header of a .npy file, equally long for any number of blocks; returns where the data start."""
    header = {"descr": dtype.str, "fortran_order": False, "shape": (blocks, block_tokens)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def _tokenized(
    batches: Iterable[list], tokenizer: Any, dtype: np.dtype, num_proc: int | None
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yields (texts, texts without tokens, ids) for each batch in order; holds only a few batches at a time."""
    if not num_proc or num_proc == 1:
        yield from (_tokenize(batch, tokenizer, dtype) for batch in batches)
        return
    waiting: deque = deque()
    with ProcessPoolExecutor(num_proc, initializer=_worker.update, initargs=({"of": (tokenizer, dtype)},)) as pool:
        for batch in batches:
            waiting.append(pool.submit(_tokenize_in_worker, batch))
            if len(waiting) > 2 * num_proc:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


_worker: dict[str, tuple] = {}


def _tokenize_in_worker(batch: list) -> tuple[int, int, np.ndarray]:
    return _tokenize(batch, *_worker["of"])


def _tokenize(batch: list, tokenizer: Any, dtype: np.dtype) -> tuple[int, int, np.ndarray]:
    wrong = next((text for text in batch if not isinstance(text, str | None)), None)
    if wrong is not None:
        raise ValueError(f"a text is {str(wrong)[:40]!r}, a {type(wrong).__name__}, but the column must hold strings")
    texts = [text for text in batch if text and not text.isspace()]
    ids = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    joined = np.fromiter(itertools.chain.from_iterable(ids), dtype, sum(map(len, ids)))
    return len(batch), len(batch) - sum(map(bool, ids)), joined


def _check_json_lines(path: Path) -> None:
    """Checks that every line of a .jsonl file is an object: a bare `null` makes Arrow's reader end the process."""
    lines = ".jsonl" in path.suffixes
    with fsspec.open(path, "rb", compression="infer") as file:
        for number, line in enumerate(file, 1):
            begin = line.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
            if begin and begin not in (b"{" if lines else b"{["):
                raise ValueError(f"{path}, line {number}: not a JSON object ({line[:40]!r}...)")
            if begin and not lines:
                return


_LOADERS = {".txt": "text", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
_COMPRESSIONS = (".gz", ".xz", ".bz2", ".zst")


def _kind(path: Path) -> str | None:
    """The loader of `datasets` for a file, by its suffix without compression; None if there is none."""
    name = path.with_suffix("") if path.suffix in _COMPRESSIONS else path
    return _LOADERS.get(name.suffix)
