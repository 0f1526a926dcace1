"""SIGTERM or SIGUSR1 to any process of a run: all stop at the same place, save, and exit with the code asked for.

Training passes places at which it may stop: the end of each step and of each evaluation batch, counted alike in every
process. A thread of each process watches for a signal to it or, through the process group's store, to another one.
Each then tells up to which place it is committed to go, and all go on to the latest of these: so a process that is
ahead and waits in a collective for the others is met there. No device and no collective takes part.
"""

import signal
import threading

import torch.distributed as dist

from .ranks import default_store

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
POLL_SECONDS = 0.5


class Preempted(SystemExit):
    """Ends a run that was told to stop, after its checkpoint was written; `code` is what the process exits with."""


class EvaluationStopped(Exception):
    """Leaves an evaluation because the run was told to stop; it is done again when the run is resumed."""


class StopRequests:
    """At which place all processes stop, once one of them was told to; a context around training."""

    _uses = 0  # the same in all processes: tells apart several trainings of one program

    def __init__(self):
        StopRequests._uses += 1
        self._prefix = f"vidlankd/stop/{StopRequests._uses}"
        self._store = default_store()
        self._place = self._committed = 0
        self._stop_at = None
        self._lock = threading.Lock()
        self._asked, self._agreed, self._closed = threading.Event(), threading.Event(), threading.Event()
        self.signal: int | None = None

    def __enter__(self) -> "StopRequests":
        self._previous = {}
        if threading.current_thread() is threading.main_thread():  # others may not set handlers
            self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS}
        self._thread = threading.Thread(target=self._watch, name="stop-requests", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._closed.set()
        self._thread.join()

    def should_stop(self) -> bool:
        """Passes a place: whether all processes stop at it. Called by all equally often."""
        self._place += 1
        with self._lock:
            if self.signal is None and not self._asked.is_set():
                self._committed = self._place + 1
                return False
        self._agreed.wait()
        return self._stop_at <= self._place

    def _receive(self, number: int, frame) -> None:
        self.signal = number  # no more than this: a handler may interrupt whoever holds the lock

    def _watch(self) -> None:
        try:
            while self.signal is None and not self._others_were_asked():
                if self._closed.wait(POLL_SECONDS):
                    break
            with self._lock:
                self._asked.set()
                committed = self._committed
            self._stop_at = self._latest(committed)
        except RuntimeError:  # the store's process is gone; what comes next in training says so
            self._stop_at = 0
        self._agreed.set()

    def _others_were_asked(self) -> bool:
        return self._store is not None and self._store.check([f"{self._prefix}/asked"])

    def _latest(self, committed: int) -> int:
        if self._store is None:
            return committed
        if not self._closed.is_set():
            self._store.set(f"{self._prefix}/asked", "1")
        self._store.set(f"{self._prefix}/{dist.get_rank()}", str(committed))
        keys = [f"{self._prefix}/{rank}" for rank in range(dist.get_world_size())]
        while not self._store.check(keys):
            if self._closed.wait(POLL_SECONDS / 10):
                return committed
        return max(int(value) for value in self._store.multi_get(keys))
