"""Tokenizes texts into `blocks.npy`, piece by piece, so that an interrupted run continues after its last piece.

`pieces.jsonl` has a line for each piece, written once the piece is on the disk: its bytes and their sha256, and what
the next piece continues from. In a finished folder these are the checksums of the blocks.
"""

import itertools
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from ..utils.children import end_with_parent
from ..utils.io import atomic_write
from ..utils.messages import number_of
from .alignment import AlignedTexts, AlignmentCutter, Tokens, align
from .characters import has_text
from .checksums import Piece
from .growing_array import GrowingArray
from .sealed_json import sealed, unsealed
from .source_files import combined_hash
from .tokenization import special_tokens_around, tokenize
from .vocabulary import tokenizer_fingerprint

BLOCKS, PIECES = "blocks.npy", "pieces.jsonl"
Tokenized = tuple[int, int, np.ndarray, AlignedTexts | None]  # texts in a batch, those without tokens, ids, alignment
LEAST_ROOM = 4  # a window of the teacher must hold this many tokens of text
PIECE_BYTES = 2**25  # an interruption loses at most this much of blocks.npy, and the batches in progress


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


class Aligner(NamedTuple):
    """The tokenizer of a teacher, whose tokens are aligned with the student's.

    Attributes:
        tokenizer: The tokenizer.
        same: Whether it equals the student's.
        room: Maximum number of tokens that the teacher reads at once, without special tokens; `None`: no limit.
    """

    tokenizer: PreTrainedTokenizerBase
    same: bool
    room: int | None


def make_aligner(
    student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, teacher_length: int | None
) -> Aligner:
    """Checks that the tokens of two tokenizers can be aligned; returns what aligns them.

    Args:
        student, teacher: The tokenizers.
        teacher_length: Maximum number of tokens that the teacher reads at once, with special tokens; `None`: no limit.

    Raises:
        ValueError: A tokenizer does not say which characters each token covers, or the teacher reads too few tokens.
    """
    for whose, tokenizer in (("student", student), ("teacher", teacher)):
        if not tokenizer.is_fast:
            raise ValueError(
                f"the {whose}'s tokenizer ({type(tokenizer).__name__}) has no fast version, so it does not tell which "
                "characters each token covers: save a fast version (tokenizer.json), or use another model"
            )
    special = sum(map(len, special_tokens_around(teacher)))
    room = None if teacher_length is None else teacher_length - special
    if room is not None and room < LEAST_ROOM:
        raise ValueError(
            f"the teacher reads {teacher_length} tokens at once, {special} of them special: give a teacher_length of "
            f"at least {special + LEAST_ROOM}"
        )
    return Aligner(teacher, tokenizer_fingerprint(student) == tokenizer_fingerprint(teacher), room)


def write_blocks(
    batches: Iterable[list],
    tokenizer: Any,
    folder: Path,
    num_proc: int | None,
    block_tokens: int,
    aligner: Aligner | None = None,
) -> dict:
    """Writes the texts' tokens in full blocks; continues after the blocks that the folder already holds.

    Args:
        batches: All texts, in the same batches each time.
        tokenizer: The tokenizer.
        folder: Folder of `blocks.npy` and `pieces.jsonl`, and of the files of [`AlignmentCutter`].
        num_proc: Number of processes that tokenize; by default this process, with the tokenizer's threads.
        block_tokens: Tokens per block.
        aligner: The teacher's tokenizer, if its tokens are needed too.

    Returns:
        The counts for `info.json`.

    Raises:
        ValueError: The texts have fewer tokens than one block, or are hardly aligned.
        TextError: A text is not a string, or cannot be tokenized.
    """
    from datasets.utils import are_progress_bars_disabled

    dtype = _type_of_ids(tokenizer)
    cutter = aligner and AlignmentCutter(block_tokens, aligner.room, _type_of_ids(aligner.tokenizer))
    shapes = {BLOCKS: (dtype, (block_tokens,)), **(cutter.files if cutter else {})}
    with ExitStack() as stack:
        files = {name: stack.enter_context(closing(GrowingArray(folder / name, *shapes[name]))) for name in shapes}
        pieces = _complete_pieces(folder / PIECES, files)
        last: dict[str, Any] = pieces[-1] if pieces else {"texts": 0, "without_tokens": 0, "rest": []}
        texts, without_tokens, rest = last["texts"], last["without_tokens"], np.array(last["rest"], dtype)
        if cutter and pieces:
            cutter.resume(last["alignment"])

        def finish_piece() -> None:
            written = {name: file.finish_piece() for name, file in files.items()}
            piece = written.pop(BLOCKS) | {"texts": texts, "without_tokens": without_tokens, "rest": rest.tolist()}
            if cutter:
                piece |= {"files": written, "alignment": cutter.state()}
            log.write(json.dumps(sealed(piece)) + "\n")
            log.flush()
            os.fsync(log.fileno())

        if (folder / PIECES).exists():  # its last lines may describe pieces that were not written completely
            atomic_write(folder / PIECES, "".join(json.dumps(sealed(piece)) + "\n" for piece in pieces))
        progress = tqdm(
            desc="tokenizing text", unit=" texts", initial=texts, disable=are_progress_bars_disabled(), leave=False
        )
        with open(folder / PIECES, "a", encoding="utf-8") as log, progress:
            tokenized = _tokenized(_after(batches, texts), tokenizer, dtype, num_proc, aligner)
            for count, empty, ids, aligned in _numbered(tokenized, texts):
                progress.update(count)
                texts, without_tokens = texts + count, without_tokens + empty
                ids = np.concatenate([rest, ids])
                full = len(ids) // block_tokens
                files[BLOCKS].append(ids[: full * block_tokens])
                rest = ids[full * block_tokens :]
                if cutter and aligned is not None:
                    for name, rows in cutter.add(aligned).items():
                        files[name].append(rows)
                if files[BLOCKS].pending_bytes >= PIECE_BYTES:
                    finish_piece()
            finish_piece()
        blocks = files[BLOCKS].rows
        tokens = blocks * block_tokens + len(rest)
        if blocks == 0:
            raise ValueError(
                f"the text has {number_of(tokens, 'token')}, fewer than one block of {block_tokens}: add more text"
            )
        if cutter:
            cutter.check()
        for file in files.values():
            file.finish()
    info = {
        "texts": texts,
        "texts_without_tokens": without_tokens,
        "tokens": tokens,
        "blocks": blocks,
        "block_tokens": block_tokens,
        "left_over": len(rest),
        "sha256": files[BLOCKS].sha256,
    }
    if cutter:
        hashes = [file.sha256 for name, file in files.items() if name != BLOCKS]
        info["alignment"] = cutter.summary() | {"sha256": combined_hash(hashes)}
    return info


def _type_of_ids(tokenizer: Any) -> np.dtype:
    return np.dtype(np.uint16 if len(tokenizer) <= 2**16 else np.uint32)


def _numbered(tokenized: Iterator[Tokenized], texts: int) -> Iterator[Tokenized]:
    """Yields the batches; a [`TextError`] in one of them gets the number of its row among all texts."""
    try:
        for batch in tokenized:
            yield batch
            texts += batch[0]
    except TextError as error:
        raise TextError(texts + error.row, error.problem) from error


def pieces_of(folder: Path, name: str, begin: int) -> list[Piece]:
    """The pieces of a finished file whose rows begin at byte `begin`.

    Raises:
        ValueError: `pieces.jsonl` is missing or damaged.
    """
    try:
        lines = (folder / PIECES).read_text(encoding="utf-8").splitlines()
        found = (entry if name == BLOCKS else entry["files"][name] for entry in map(json.loads, lines))
        entries = [(entry["bytes"], entry["sha256"]) for entry in found]
        ends = list(itertools.accumulate((size for size, _ in entries), initial=begin))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{folder / PIECES} is damaged ({error!r})") from error
    return [Piece(folder / name, first, size, sha256) for first, (size, sha256) in zip(ends, entries)]


def _complete_pieces(path: Path, files: dict[str, GrowingArray]) -> list[dict]:
    """The pieces, in order, that match their lines in `path` in every file. Each file is positioned after them."""
    pieces: list[dict] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            piece = unsealed(json.loads(line), required=True)
        except (ValueError, TypeError, AttributeError, RecursionError):  # damaged, or the last one, cut short
            break
        contents = [file.read(piece if name == BLOCKS else piece["files"][name]) for name, file in files.items()]
        if None in contents:
            break
        for file, content in zip(files.values(), contents):
            file.keep(content)
        pieces.append(piece)
    for file in files.values():
        file.start()
    return pieces


def _after(batches: Iterable[list], texts: int) -> Iterator[list]:
    """The batches after the first `texts` texts, which are read again but not tokenized."""
    read = 0
    for batch in batches:
        if read >= texts:
            yield batch
        read += len(batch)


def _tokenized(
    batches: Iterable[list], tokenizer: Any, dtype: np.dtype, num_proc: int | None, aligner: Aligner | None
) -> Iterator[Tokenized]:
    """Yields the tokens of each batch in order; holds only a few batches at a time."""
    if not num_proc or num_proc == 1:
        yield from (_tokenize(batch, tokenizer, dtype, aligner) for batch in batches)
        return
    waiting: deque = deque()
    with ProcessPoolExecutor(num_proc, initializer=_begin_worker, initargs=(tokenizer, dtype, aligner)) as pool:
        for batch in batches:
            waiting.append(pool.submit(_tokenize_in_worker, batch))
            if len(waiting) > 2 * num_proc:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


_worker: dict[str, tuple] = {}


def _begin_worker(tokenizer: Any, dtype: np.dtype, aligner: Aligner | None) -> None:
    end_with_parent()
    _worker["of"] = tokenizer, dtype, aligner


def _tokenize_in_worker(batch: list) -> Tokenized:
    return _tokenize(batch, *_worker["of"])


def _tokenize(batch: list, tokenizer: Any, dtype: np.dtype, aligner: Aligner | None) -> Tokenized:
    for row, text in enumerate(batch):
        if not isinstance(text, str | None):
            kind = type(text).__name__
            raise TextError(row, f"the text is {str(text)[:40]!r} ({kind}), but the column must hold strings")
    texts = [text for text in batch if text and has_text(text)]
    aligned = None
    try:
        if aligner is None:
            ids = tokenize(tokenizer, texts)
        else:
            student = Tokens.of(tokenizer, texts)
            ids = student.ids
    except Exception as error:  # each tokenizer raises different errors
        raise _failing(batch, tokenizer, error) from error
    if aligner is not None:
        try:
            teacher = student if aligner.same else Tokens.of(aligner.tokenizer, texts)
        except Exception as error:
            raise _failing(batch, aligner.tokenizer, error, " by the teacher's tokenizer") from error
        aligned = align(texts, student, teacher, _type_of_ids(aligner.tokenizer), aligner.same)
    joined = np.fromiter(itertools.chain.from_iterable(ids), dtype, sum(map(len, ids)))
    return len(batch), len(batch) - sum(map(bool, ids)), joined, aligned


def _failing(batch: list, tokenizer: Any, error: Exception, by: str = "") -> Exception:
    """An error that says which text cannot be tokenized."""
    for row, text in enumerate(batch):
        try:
            tokenize(tokenizer, [text or ""])
        except Exception as reason:
            return TextError(row, f"the text cannot be tokenized{by}: {_surrogate_in([text]) or repr(reason)}")
    return error


def _surrogate_in(texts: list[str]) -> str | None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            near = ascii(text[max(0, error.start - 20) : error.end + 20])
            return f"it holds half of a surrogate pair, near {near}; write it as valid UTF-8"
    return None
