"""Tokenizes texts into `blocks.npy`, piece by piece, so that an interrupted run continues after its last piece.

`pieces.jsonl` has a line for each piece, written once the piece is on the disk: its bytes and their sha256, and what
the next piece continues from. In a finished folder these are the checksums of the blocks.
"""

import hashlib
import itertools
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm.auto import tqdm

from ..utils.children import end_with_parent
from ..utils.io import atomic_write
from .characters import has_text
from .checksums import Piece
from .sealed_json import sealed, unsealed
from .tokenization import tokenize

BLOCKS, PIECES = "blocks.npy", "pieces.jsonl"
PIECE_BYTES = 2**25  # what an interruption costs at most, besides the batches at work


class TextError(ValueError):
    """A text cannot be used.

    Args:
        row: Its row, counted from 0.
        problem: What is wrong.
    """

    def __init__(self, row: int, problem: str):
        super().__init__(row, problem)
        self.row, self.problem = row, problem

    def __str__(self) -> str:
        return self.problem


def write_blocks(
    batches: Iterable[list], tokenizer: Any, folder: Path, num_proc: int | None, block_tokens: int
) -> dict:
    """Writes full blocks of the texts' tokens, or the rest of them if the folder holds some already.

    Args:
        batches: All texts, in the same batches each time.
        tokenizer: The tokenizer.
        folder: Folder of `blocks.npy` and `pieces.jsonl`.
        num_proc: Number of processes that tokenize; by default this process, with the tokenizer's threads.
        block_tokens: Tokens per block.

    Returns:
        The counts for `info.json`.

    Raises:
        ValueError: The texts have fewer tokens than one block.
        TextError: A text is not a string, or cannot be tokenized.
    """
    from datasets.utils import are_progress_bars_disabled

    dtype = np.dtype(np.uint16 if len(tokenizer) <= 2**16 else np.uint32)
    total = hashlib.sha256()
    with open(folder / BLOCKS, "r+b" if (folder / BLOCKS).exists() else "w+b") as file:
        begin = _write_header(file, dtype, 0, block_tokens)
        pieces = _complete_pieces(folder / PIECES, file, begin, total)
        end = begin + sum(piece["bytes"] for piece in pieces)
        file.truncate(end)
        file.seek(end)
        last: dict[str, Any] = pieces[-1] if pieces else {"texts": 0, "without_tokens": 0, "rest": []}
        texts, without_tokens, rest = last["texts"], last["without_tokens"], np.array(last["rest"], dtype)
        pending: list[bytes] = []

        def finish_piece() -> None:
            nonlocal end
            content = b"".join(pending)
            pending.clear()
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            end += len(content)
            piece = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            piece |= {"texts": texts, "without_tokens": without_tokens, "rest": rest.tolist()}
            log.write(json.dumps(sealed(piece)) + "\n")
            log.flush()
            os.fsync(log.fileno())

        if (folder / PIECES).exists():  # its last lines may belong to no complete piece
            atomic_write(folder / PIECES, "".join(json.dumps(sealed(piece)) + "\n" for piece in pieces))
        progress = tqdm(
            desc="tokenizing text", unit=" texts", initial=texts, disable=are_progress_bars_disabled(), leave=False
        )
        with open(folder / PIECES, "a", encoding="utf-8") as log, progress:
            for count, empty, ids in _numbered(_tokenized(_after(batches, texts), tokenizer, dtype, num_proc), texts):
                progress.update(count)
                texts, without_tokens = texts + count, without_tokens + empty
                ids = np.concatenate([rest, ids])
                whole = len(ids) // block_tokens
                pending.append(ids[: whole * block_tokens].tobytes())
                rest = ids[whole * block_tokens :]
                total.update(pending[-1])
                if sum(map(len, pending)) >= PIECE_BYTES:
                    finish_piece()
            finish_piece()
        blocks = (end - begin) // (block_tokens * dtype.itemsize)
        tokens = blocks * block_tokens + len(rest)
        if blocks == 0:
            raise ValueError(f"the text has {tokens} tokens, fewer than one block of {block_tokens}: add more text")
        file.seek(0)
        if _write_header(file, dtype, blocks, block_tokens) != begin:
            raise RuntimeError("the header of blocks.npy grew, because this version of NumPy leaves no room in it")
    return {
        "texts": texts,
        "texts_without_tokens": without_tokens,
        "tokens": tokens,
        "blocks": blocks,
        "block_tokens": block_tokens,
        "left_over": len(rest),
        "sha256": total.hexdigest(),
    }


def _numbered(tokenized: Iterator[tuple[int, int, np.ndarray]], texts: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yields the batches; a [`TextError`] in one of them gets the number of its row among all texts."""
    try:
        for batch in tokenized:
            yield batch
            texts += batch[0]
    except TextError as error:
        raise TextError(texts + error.row, error.problem) from error


def pieces_of(folder: Path, begin: int) -> list[Piece]:
    """The pieces of a finished `blocks.npy` whose blocks begin at byte `begin`.

    Raises:
        ValueError: `pieces.jsonl` is missing or damaged.
    """
    try:
        lines = (folder / PIECES).read_text(encoding="utf-8").splitlines()
        entries = [(entry["bytes"], entry["sha256"]) for entry in map(json.loads, lines)]
        ends = list(itertools.accumulate((size for size, _ in entries), initial=begin))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{folder / PIECES} is damaged ({error!r})") from error
    return [Piece(folder / BLOCKS, first, size, sha256) for first, (size, sha256) in zip(ends, entries)]


def _complete_pieces(path: Path, file: BinaryIO, begin: int, total: Any) -> list[dict]:
    """The pieces in `file` that agree with their lines in `path`, in order; adds them to the hash `total`."""
    pieces: list[dict] = []
    if not path.exists():
        return pieces
    file.seek(begin)
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            piece = unsealed(json.loads(line), required=True)
        except (ValueError, TypeError, AttributeError, RecursionError):  # damaged, or the last one, cut short
            break
        content = file.read(piece["bytes"])
        if hashlib.sha256(content).hexdigest() != piece["sha256"]:
            break
        total.update(content)
        pieces.append(piece)
    return pieces


def _after(batches: Iterable[list], texts: int) -> Iterator[list]:
    """The batches after the first `texts` texts, which are read again but not tokenized."""
    read = 0
    for batch in batches:
        if read >= texts:
            yield batch
        read += len(batch)


def _write_header(file: BinaryIO, dtype: np.dtype, blocks: int, block_tokens: int) -> int:
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
    with ProcessPoolExecutor(num_proc, initializer=_begin_worker, initargs=(tokenizer, dtype)) as pool:
        for batch in batches:
            waiting.append(pool.submit(_tokenize_in_worker, batch))
            if len(waiting) > 2 * num_proc:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


_worker: dict[str, tuple] = {}


def _begin_worker(tokenizer: Any, dtype: np.dtype) -> None:
    end_with_parent()
    _worker["of"] = tokenizer, dtype


def _tokenize_in_worker(batch: list) -> tuple[int, int, np.ndarray]:
    return _tokenize(batch, *_worker["of"])


def _tokenize(batch: list, tokenizer: Any, dtype: np.dtype) -> tuple[int, int, np.ndarray]:
    for row, text in enumerate(batch):
        if not isinstance(text, str | None):
            kind = type(text).__name__
            raise TextError(row, f"the text is {str(text)[:40]!r}, a {kind}, but the column must hold strings")
    texts = [text for text in batch if text and has_text(text)]
    try:
        ids = tokenize(tokenizer, texts)
    except Exception as error:  # each tokenizer has its own
        raise _failing(batch, tokenizer, error) from error
    joined = np.fromiter(itertools.chain.from_iterable(ids), dtype, sum(map(len, ids)))
    return len(batch), len(batch) - sum(map(bool, ids)), joined


def _failing(batch: list, tokenizer: Any, error: Exception) -> Exception:
    """An error that says which text cannot be tokenized."""
    for row, text in enumerate(batch):
        try:
            tokenize(tokenizer, [text or ""])
        except Exception as reason:
            return TextError(row, f"the text cannot be tokenized: {_surrogate_in([text]) or repr(reason)}")
    return error


def _surrogate_in(texts: list[str]) -> str | None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            near = ascii(text[max(0, error.start - 20) : error.end + 20])
            return f"it holds half of a surrogate pair, near {near}; write it as valid UTF-8"
    return None
