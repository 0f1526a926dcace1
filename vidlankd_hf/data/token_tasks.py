"""Tokenizes texts in tasks of some batches each, which several processes share.

A task stores the tokens of its batches in `tasks/rows-<first row>.npz`; the process that writes the blocks takes them
from there in order, and removes the file.
"""

import itertools
import zipfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..utils.io import atomic_file
from .alignment import AlignedTexts, Tokens, align
from .characters import has_text
from .shared_tasks import SharedTasks, TasksRemoved
from .tokenization import special_tokens_around, tokenize
from .vocabulary import tokenizer_fingerprint

TASK_CHARACTERS = 2**22  # about a million tokens, which take a process about three seconds
LEAST_ROOM = 4  # a window of the teacher must hold this many tokens of text
Tokenized = tuple[int, int, np.ndarray, AlignedTexts | None]  # texts in a batch, those without tokens, ids, alignment
Group = tuple[int, list[list]]  # row of the first text, and batches of texts
STORED = {"segments": np.int32, "teacher_segments": np.int32, "places": np.int32}  # numbers within a batch are small


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


class TokenTasks:
    """Texts and the tokenizers that read them.

    Args:
        batches: Returns all texts, in the same batches each time.
        tokenizer: The tokenizer.
        aligner: The teacher's tokenizer, if its tokens are needed too.
        num_proc: See [`SharedTasks`]. One process uses the tokenizer's threads.
    """

    def __init__(
        self,
        batches: Callable[[], Iterable[list]],
        tokenizer: PreTrainedTokenizerBase,
        aligner: Aligner | None = None,
        num_proc: int | None = None,
    ):
        self.batches, self.tokenizer, self.aligner, self.num_proc = batches, tokenizer, aligner, num_proc
        self._work = partial(_tokenize_group, tokenizer=tokenizer, aligner=aligner)
        self._complete = False

    def help_in(self, folder: Path) -> bool:
        """Tokenizes texts for the process that writes blocks in `folder`; returns whether there were any."""
        tasks = SharedTasks(folder, self.num_proc)
        if self._complete or not tasks.folder.is_dir():
            return False
        try:
            for _ in tasks.run(_tasks(self.batches()), self._work):
                pass
            self._complete = True
        except TasksRemoved:
            pass
        return tasks.claimed > 0

    def tokenized(self, folder: Path, texts: int) -> Generator[Tokenized, None, None]:
        """Yields the tokens of each batch after the first `texts` texts, in order.

        Raises:
            TextError: A text is not a string, or cannot be tokenized.
        """
        tasks = SharedTasks(folder, self.num_proc)
        tasks.folder.mkdir(exist_ok=True)
        needed = (task for task in _tasks(self.batches()) if task[1][0] + sum(map(len, task[1][1])) > texts)
        with closing(tasks.run(needed, self._work)) as done:
            for name, group, _ in done:
                path, row = tasks.folder / f"{name}.npz", group[0]
                stored = _read_group(path)
                if stored is None:  # damaged, or removed before an interruption
                    self._work(tasks.folder, name, group)
                    stored = _read_group(path)
                if stored is None:
                    raise OSError(f"{path} was written and cannot be read: check the disk")
                for batch in stored:
                    if row >= texts:
                        yield batch
                    row += batch[0]
                path.unlink(missing_ok=True)

    def remove(self, folder: Path) -> None:
        """Removes the tasks from the folder of finished blocks."""
        SharedTasks(folder).remove()


def type_of_ids(tokenizer: Any) -> np.dtype:
    """The smallest type that holds the ids of a tokenizer."""
    return np.dtype(np.uint16 if len(tokenizer) <= 2**16 else np.uint32)


def _tasks(batches: Iterable[list]) -> Iterator[tuple[str, Group]]:
    """Groups batches to tasks, which are named after their first row."""
    first, group, characters = 0, list[list](), 0
    for batch in batches:
        group.append(batch)
        characters += sum(len(text) for text in batch if isinstance(text, str))
        if characters >= TASK_CHARACTERS:
            yield f"rows-{first:012d}", (first, group)
            first, group, characters = first + sum(map(len, group)), [], 0
    if group:
        yield f"rows-{first:012d}", (first, group)


def _tokenize_group(
    folder: Path, name: str, group: Group, tokenizer: PreTrainedTokenizerBase, aligner: Aligner | None
) -> dict:
    row, batches = group
    done = list[Tokenized]()
    for batch in batches:
        try:
            done.append(_tokenize(batch, tokenizer, type_of_ids(tokenizer), aligner))
        except TextError as error:
            raise TextError(row + error.row, error.problem) from error
        row += len(batch)
    arrays: dict[str, Any] = {
        "texts": np.array([batch[0] for batch in done]),
        "without_tokens": np.array([batch[1] for batch in done]),
        "lengths": np.array([len(batch[2]) for batch in done]),
        "ids": np.concatenate([batch[2] for batch in done]),
    }
    aligned = [batch[3] for batch in done if batch[3] is not None]
    if aligned:
        arrays["teacher_lengths"] = np.array([len(texts.teacher_ids) for texts in aligned])
        for field, parts in zip(AlignedTexts._fields, zip(*aligned)):
            arrays[field] = np.concatenate(parts).astype(STORED.get(field, parts[0].dtype))
    with atomic_file(folder / f"{name}.npz") as file:
        np.savez(file, **arrays)
    return {"texts": int(arrays["texts"].sum())}


def _read_group(path: Path) -> list[Tokenized] | None:
    """The batches that [`_tokenize_group`] stored; `None` if the file is missing or damaged (it has checksums)."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    ids = np.split(arrays["ids"], np.cumsum(arrays["lengths"])[:-1])
    aligned: list[AlignedTexts | None] = [None] * len(ids)
    if "teacher_lengths" in arrays:
        fields = []
        for field in AlignedTexts._fields:
            lengths = arrays["lengths" if field == "segments" else "teacher_lengths"]
            values = arrays[field].astype(np.int64) if field in STORED else arrays[field]
            fields.append(np.split(values, np.cumsum(lengths)[:-1]))
        aligned = [AlignedTexts(*texts) for texts in zip(*fields)]
    return list(zip(arrays["texts"].tolist(), arrays["without_tokens"].tolist(), ids, aligned))


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
        aligned = align(texts, student, teacher, type_of_ids(aligner.tokenizer), aligner.same)
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
