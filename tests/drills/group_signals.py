"""SIGTERM, SIGUSR1 or Ctrl-C to every process of a run at a random moment: not one finished step may be lost.

Schedulers, `timeout` and terminals signal the process group: the main processes and their loader workers. The runs
have 2 loader workers, which are created again for each epoch and each evaluation, on 1 or 2 ranks. Some signals come
during a slow step or save. In two runs, a step or a save takes more than a minute; they run alongside the others.
"""

import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from small_runs import TrainerCallback, finished_steps, forked, newest_step, same_end, start_or_resume, wait

from vidlankd_hf.reliability import checkpointing

STEPS = 18  # 6 per epoch (3 with two processes)
OPTIONS = {"max_steps": STEPS, "save_steps": 1000, "logging_steps": 1, "dataloader_num_workers": 2,
           "eval_strategy": "steps", "eval_steps": 3}  # fmt: skip
SLOW = {"step": 2.5, "save": 2.5}  # seconds
MINUTE = 65.0


class SlowStep(TrainerCallback):
    """Takes some seconds at a step; writes a file when it begins."""

    def __init__(self, folder: Path, at: int, seconds: float):
        self.folder, self.at, self.seconds = folder, at, seconds

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.at:
            (self.folder / ".slow").touch()
            end = time.monotonic() + self.seconds
            while time.monotonic() < end:  # a signal ends a sleep
                time.sleep(0.1)


def slow_saves(folder: Path, seconds: float) -> None:
    """Makes each save of this process slow; a file tells when one begins."""
    seal = checkpointing.seal

    def slowly(*args):
        (folder / ".slow").touch()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.1)
        seal(*args)

    checkpointing.seal = slowly


def group(folder: Path, log: Path, ranks: int, seconds: float = 0.0, kind: str = "", slow: float = 0.0) -> list[int]:
    """Starts a run in its own process group, and returns the ids of its processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def body():
        if kind == "save":
            slow_saves(folder, slow)
        callbacks = [SlowStep(folder, 8, slow)] if kind == "step" else []
        start_or_resume(folder, seconds, callbacks, **OPTIONS)

    pids: list[int] = []
    for rank in range(ranks):
        pids.append(forked(body, log, rank, ranks, port))
        os.setpgid(pids[-1], pids[0])
    return pids


def wait_until(condition: Callable[[], object], pids: list[int], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end and os.waitid(
        os.P_PID, pids[0], os.WEXITED | os.WNOHANG | os.WNOWAIT
    ) is None:  # fmt: skip
        time.sleep(0.01)


def references(work: Path) -> dict[int, Path]:
    """Makes the undisturbed runs on 1 and on 2 ranks."""
    folders = {ranks: work / f"group-reference-{ranks}" for ranks in (1, 2)}
    for ranks, folder in folders.items():
        codes = [wait(pid) for pid in group(folder, folder.with_suffix(".txt"), ranks)]
        assert codes == [0] * ranks, codes
    return folders


def stopped(pids: list[int], folder: Path, seconds: float = 120.0) -> tuple[bool, int]:
    """Waits for a run; returns whether it ended as promised, and how many finished steps are in no checkpoint."""
    codes = [wait(pid, seconds) for pid in pids]
    lost = max(finished_steps(folder, rank) for rank in range(len(pids))) - newest_step(folder)
    finished = None not in codes and newest_step(folder) == STEPS  # the signal came too late
    return (codes == [143] * len(pids) or finished) and lost == 0, lost


def drill(work: Path, times: int) -> Iterator[tuple[bool, int]]:
    expected = references(work)
    long = {}
    for kind in ("step", "save"):
        folder = work / f"group-minute-{kind}"
        long[folder] = group(folder, folder.with_suffix(".txt"), 1, 1.0, kind, MINUTE), kind
    told = set()
    for number in range(times):
        for folder, (pids, kind) in long.items():
            if folder not in told and (kind == "save" or (folder / ".slow").exists()) and finished_steps(folder):
                os.killpg(pids[0], signal.SIGTERM)
                told.add(folder)
        ranks, kind = 1 + number % 2, ("", "", "step", "save")[number // 2 % 4]
        folder = work / f"group-{number}"
        log = folder.with_suffix(".txt")
        pids = group(folder, log, ranks, 0.05, kind, SLOW.get(kind, 0.0))
        wait_until(lambda folder=folder: finished_steps(folder), pids)
        if kind == "step":
            wait_until((folder / ".slow").exists, pids)
        time.sleep(random.uniform(0, 2.0))
        chosen = random.choice([signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
        os.killpg(pids[0], chosen)
        # Once more, during the save, unless the first signal was Ctrl-C.
        if kind == "save" and chosen != signal.SIGINT:
            wait_until((folder / ".slow").exists, pids)
            time.sleep(random.uniform(0, SLOW["save"] / 2))
            os.killpg(pids[0], signal.SIGTERM)
        survived, lost = stopped(pids, folder)
        if number % 10 < 2:  # on 1 and on 2 ranks
            codes = [wait(pid) for pid in group(folder, log, ranks)]
            survived = survived and codes == [0] * ranks and same_end(folder, expected[ranks], STEPS)
        yield survived, lost
    for folder, (pids, _) in long.items():
        if folder not in told:
            wait_until(lambda folder=folder: finished_steps(folder) >= 8, pids)
            os.killpg(pids[0], signal.SIGTERM)
        survived, lost = stopped(pids, folder)
        again = [wait(pid) for pid in group(folder, folder.with_suffix(".txt"), 1)]
        yield survived and again == [0] and same_end(folder, expected[1], STEPS), lost
