"""Tasks that processes share, also on several machines with a common folder, without talking to each other.

A process claims a task by locking its file `NAME.lock` and ends it by writing its result to `NAME.done.json`. The lock
of a process that has ended is free, so that another process repeats the task. What a task writes must depend on its
name and argument alone: then the number of processes has no influence.
"""

import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

from ..utils.children import end_with_parent
from ..utils.io import atomic_write, move
from ..utils.locks import POLL_SECONDS, Waiting, holder_of, is_first_process, release_lock, sign, take_lock
from .checksums import DamagedData
from .sealed_json import read_sealed, sealed

TASKS = "tasks"
AHEAD = 8  # tasks whose arguments are held in memory, besides one for each process
Task = tuple[str, Any]  # name and argument
Work = Callable[[Path, str, Any], dict]  # from the folder, name and argument of a task to its result, as JSON values


class TasksRemoved(Exception):
    """Another process has finished, and has removed the tasks."""


class SharedTasks:
    """The tasks in the subfolder `tasks` of a folder that is being prepared.

    Args:
        folder: The folder.
        num_proc: Number of processes on this machine that run tasks: one pool for each process of a launch.

    Attributes:
        folder: The subfolder.
        claimed: Number of tasks that this process has run.
    """

    def __init__(self, folder: Path, num_proc: int | None = None):
        self.folder, self.claimed = folder / TASKS, 0
        self.num_proc = max(1, (num_proc or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))

    def result(self, name: str) -> dict | None:
        """The result of a task, or `None` if it is not done or its result is damaged."""
        try:
            return read_sealed(self.folder / f"{name}.done.json", "start the same command again")
        except (FileNotFoundError, DamagedData):
            return None

    def forget(self, name: str) -> None:
        """Makes a task undone, because what it wrote is damaged."""
        (self.folder / f"{name}.done.json").unlink(missing_ok=True)

    def remove(self) -> None:
        """Removes the subfolder in one step."""
        removed = self.folder.with_name(f"{TASKS}.removed")
        shutil.rmtree(removed, ignore_errors=True)
        if self.folder.exists():
            move(self.folder, removed)
            shutil.rmtree(removed)

    def run(self, tasks: Iterable[Task], work: Work) -> Generator[tuple[str, Any, dict], None, None]:
        """Runs tasks that no other process runs, and yields all of them in order as soon as they are done.

        Args:
            tasks: The tasks, the same ones in every process; read as far ahead as processes are busy.
            work: Runs a task. With several processes it is called in a child process.

        Yields:
            Name, argument and result of each task.

        Raises:
            TasksRemoved: Another process has finished.
            Exception: What `work` raised.
        """
        source, waiting = iter(tasks), Waiting()
        tail: deque[Task] = deque()  # read, but not yielded
        running: dict[Future, Claim] = {}
        pool: ProcessPoolExecutor | None = None
        try:
            while True:
                if tail and (result := self.result(tail[0][0])) is not None:
                    yield *tail.popleft(), result
                    continue
                _end_finished(running, 0)
                claim = None if len(running) > self.num_proc else self._claim_one_of(tail)
                idle = claim is None and len(running) <= self.num_proc
                if idle and len(tail) < self.num_proc + AHEAD and (task := next(source, None)) is not None:
                    tail.append(task)
                elif not tail:
                    return
                elif claim is None and running:
                    _end_finished(running, POLL_SECONDS)
                elif claim is None:
                    lock = self.folder / f"{tail[0][0]}.lock"
                    waiting.pause(f"{holder_of(lock)} makes {tail[0][0]} of {self.folder.parent}")
                elif self.num_proc == 1:
                    try:
                        _run(work, self.folder, *claim.task)
                    finally:
                        release_lock(claim.descriptor)
                else:
                    pool = pool or ProcessPoolExecutor(self.num_proc, initializer=_begin_worker, initargs=(work,))
                    running[pool.submit(_run_in_worker, self.folder, *claim.task)] = claim
        except FileNotFoundError as error:
            if self.folder.exists():
                raise
            raise TasksRemoved from error
        finally:
            if pool is not None:
                pool.shutdown(cancel_futures=True)
            for claim in running.values():
                release_lock(claim.descriptor)

    def _claim_one_of(self, tasks: Iterable[Task]) -> "Claim | None":
        """Claims the first task that is neither done nor claimed; `None` if there is none.

        Raises:
            FileNotFoundError: The subfolder was removed.
        """
        for task in tasks:
            if (self.folder / f"{task[0]}.done.json").exists() and self.result(task[0]) is not None:
                continue
            held = os.open(self.folder / f"{task[0]}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            taken = take_lock(held, wait=False)
            if taken or (taken is None and is_first_process()):
                if self.result(task[0]) is None:  # not done while the lock was opened
                    sign(held)
                    self.claimed += 1
                    return Claim(task, held)
                release_lock(held)
            else:
                os.close(held)
        return None


class Claim(NamedTuple):
    """A task that this process runs, and the descriptor of its lock."""

    task: Task
    descriptor: int


def _end_finished(running: dict[Future, Claim], seconds: float) -> None:
    """Waits until a task has ended, at most for some seconds; raises its error."""
    for future in wait(running, seconds, FIRST_COMPLETED).done:
        release_lock(running.pop(future).descriptor)
        future.result()


def _run(work: Work, folder: Path, name: str, argument: Any) -> None:
    atomic_write(folder / f"{name}.done.json", json.dumps(sealed(work(folder, name, argument))))


_worker: dict[str, Work] = {}


def _begin_worker(work: Work) -> None:
    end_with_parent()
    _worker["work"] = work


def _run_in_worker(folder: Path, name: str, argument: Any) -> None:
    _run(_worker["work"], folder, name, argument)
