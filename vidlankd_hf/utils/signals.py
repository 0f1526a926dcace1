"""Data loader workers that ignore the signals which stop a run, and that end when their parent does.

Schedulers, `timeout` and Ctrl-C signal every process of a job. The main process then finishes its step and saves a
checkpoint, and may need further batches until then. So these signals are blocked before a worker is created: both
`fork` and `spawn` pass the signal mask on, and no worker ever receives one. A worker ends when its parent tells it to,
or within a second after its parent has died.
"""

import atexit
import copy
import multiprocessing
import os
import signal
import threading
import time
import weakref
from multiprocessing import resource_tracker
from multiprocessing.context import BaseContext, ForkProcess, ForkServerProcess, SpawnProcess
from multiprocessing.process import BaseProcess
from typing import Any

from torch.utils.data import DataLoader

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
PARENT_CHECK_SECONDS = 1.0

_started: weakref.WeakSet["_Worker"] = weakref.WeakSet()


class _Worker(BaseProcess):
    def start(self) -> None:
        self.creator = os.getpid()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            if not isinstance(self, ForkWorker):
                resource_tracker.ensure_running()  # otherwise `super().start()` starts it, which unblocks the signals
                signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _started.add(self)

    def run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # a fork server may have been started earlier
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
        super().run()

    def terminate(self) -> None:
        self.kill()  # SIGTERM is blocked


class ForkWorker(_Worker, ForkProcess):
    """Worker process that was forked."""


class SpawnWorker(_Worker, SpawnProcess):
    """Worker process that was spawned."""


class ForkServerWorker(_Worker, ForkServerProcess):
    """Worker process that a fork server created."""


WORKERS = {"fork": ForkWorker, "spawn": SpawnWorker, "forkserver": ForkServerWorker}


def survive_stop_signals(loader: DataLoader) -> DataLoader:
    """Makes the future workers of a data loader, or of accelerate's wrapper around one, ignore [`STOP_SIGNALS`]."""
    inner: Any = getattr(loader, "base_dataloader", loader)
    if inner.num_workers:
        context = inner.multiprocessing_context or multiprocessing.get_context()
        inner.multiprocessing_context = worker_context(context.get_start_method())
    return loader


def worker_context(method: str) -> BaseContext:
    """The context of `multiprocessing` with this start method; its processes ignore [`STOP_SIGNALS`]."""
    context: Any = copy.copy(multiprocessing.get_context(method))
    context.Process = WORKERS[method]
    return context


def _end_with_parent(parent: int) -> None:
    original = multiprocessing.parent_process()
    while os.getppid() == parent and original is not None and original.is_alive():
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(1)


@atexit.register
def _kill_remaining_workers() -> None:
    """Kills the workers that are left when Python exits: `multiprocessing` would wait for them forever."""
    remaining = [worker for worker in _started if worker.creator == os.getpid() and worker.is_alive()]
    if remaining:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler would report that they died
    for worker in remaining:
        worker.kill()
