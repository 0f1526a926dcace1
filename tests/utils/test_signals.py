"""Loader workers ignore the signals that stop a run, from their first instruction on, and end with their parent."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from helpers import make_texts, train
from torch.utils.data import DataLoader

from vidlankd_hf.utils.signals import STOP_SIGNALS, WORKERS, survive_stop_signals

SLOW_METHODS = [pytest.param(method, marks=pytest.mark.slow) for method in ("spawn", "forkserver")]


class Slow:
    """A data set whose samples take a while."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def __len__(self):
        return 4

    def __getitem__(self, index):
        time.sleep(self.seconds)
        return index


def loader(dataset, method: str = "fork", workers: int = 2) -> DataLoader:
    return survive_stop_signals(DataLoader(dataset, num_workers=workers, multiprocessing_context=method))


def gone(pid: int, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("method", ["fork", *SLOW_METHODS])
@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_worker_ignores_signals_from_its_first_instruction(method, number):
    batches = iter(loader(list(range(4)), method))
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for _ in range(20 if method == "fork" else 100):  # while they start, and for spawned ones also while they import
        for worker in workers:
            os.kill(worker.pid, number)
        time.sleep(0.01 if method == "fork" else 0.1)
    assert [int(batch) for batch in batches] == [0, 1, 2, 3]


def test_signals_of_the_main_process_are_not_lost_and_its_mask_stays(monkeypatch):
    seen = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    previous = signal.signal(signal.SIGUSR1, lambda *_: seen.append("SIGUSR1"))
    fork = os.fork

    def fork_after_signal():
        os.kill(os.getpid(), signal.SIGUSR1)
        return fork()

    monkeypatch.setattr(os, "fork", fork_after_signal)
    try:
        assert len(list(loader(Slow(0.0)))) == 4
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert seen and signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def in_child(body) -> tuple[int, list[int]]:
    """Runs `body` in a forked process; returns its id and the ids of processes that it prints, a line of them."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            body(lambda *pids: os.write(write, f"{' '.join(map(str, pids))}\n".encode()))
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as pipe:
        return pid, [int(word) for word in pipe.readline().split()]


def test_workers_end_with_their_parent_even_in_the_middle_of_a_sample():
    def body(tell):
        batches = iter(loader(Slow(600.0)))
        tell(*(worker.pid for worker in multiprocessing.active_children()))
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
        next(batches)

    pid, workers = in_child(body)
    os.waitpid(pid, 0)
    remaining = [worker for worker in workers if not gone(worker)]
    for worker in remaining:
        os.kill(worker, signal.SIGKILL)
    assert len(workers) == 2 and not remaining


def test_worker_that_does_not_end_is_killed():
    batches = iter(loader(Slow(600.0), workers=1))
    (worker,) = multiprocessing.active_children()
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler raises when a worker dies
    try:
        worker.terminate()
        worker.join(5)
    finally:
        signal.signal(signal.SIGCHLD, handler)
    assert worker.exitcode == -signal.SIGKILL
    del batches


@pytest.mark.slow
def test_python_exits_although_workers_are_busy(tmp_path):
    code = """
import time
from torch.utils.data import DataLoader
from vidlankd_hf.utils.signals import survive_stop_signals

class Slow:
    def __len__(self): return 4
    def __getitem__(self, index): time.sleep(600)

batches = iter(survive_stop_signals(DataLoader(Slow(), num_workers=2, multiprocessing_context="fork")))
import builtins
builtins.keep = batches  # not deleted before the end
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr.count("Traceback") == 0, done.stderr


def test_every_loader_of_a_trainer_has_such_workers(tmp_path):
    trainer = train("student", tmp_path, {}, max_steps=1, dataloader_num_workers=1)
    loaders = [trainer.get_train_dataloader(), trainer.get_eval_dataloader()]
    loaders.append(trainer.get_test_dataloader(make_texts(8)))
    method = multiprocessing.get_start_method()
    for one in loaders:
        assert one.multiprocessing_context.Process is WORKERS[method]
