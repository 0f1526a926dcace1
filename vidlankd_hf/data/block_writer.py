"""Cuts tokens into `blocks.npy`, piece by piece, so that an interrupted run continues after its last piece.

`pieces.jsonl` has a line for each piece, written once the piece is on the disk: its bytes and their sha256, and what
the next piece continues from. In a finished folder these are the checksums of the blocks.
"""

import itertools
import json
import os
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..utils.io import atomic_write
from ..utils.messages import number_of
from .alignment import AlignmentCutter
from .checksums import Piece
from .growing_array import GrowingArray
from .sealed_json import sealed, unsealed
from .source_files import combined_hash
from .token_tasks import TokenTasks, type_of_ids

BLOCKS, PIECES = "blocks.npy", "pieces.jsonl"
PIECE_BYTES = 2**22  # an interruption loses at most this much of blocks.npy, and the tasks in progress


def write_blocks(texts_to_tokenize: TokenTasks, folder: Path, block_tokens: int) -> dict:
    """Writes the texts' tokens in full blocks; continues after the blocks that the folder already holds.

    Args:
        texts_to_tokenize: The texts and their tokenizers. Other processes may tokenize some of them.
        folder: Folder of `blocks.npy` and `pieces.jsonl`, and of the files of [`AlignmentCutter`].
        block_tokens: Tokens per block.

    Returns:
        The counts for `info.json`.

    Raises:
        ValueError: The texts have fewer tokens than one block, or are hardly aligned.
        TextError: A text is not a string, or cannot be tokenized.
    """
    from datasets.utils import are_progress_bars_disabled

    dtype, aligner = type_of_ids(texts_to_tokenize.tokenizer), texts_to_tokenize.aligner
    cutter = aligner and AlignmentCutter(block_tokens, aligner.room, type_of_ids(aligner.tokenizer))
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
            tokenized = stack.enter_context(closing(texts_to_tokenize.tokenized(folder, texts)))
            for count, empty, ids, aligned in tokenized:
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
    texts_to_tokenize.remove(folder)
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
