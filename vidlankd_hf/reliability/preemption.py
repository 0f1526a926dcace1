"""SIGTERM, SIGUSR1 or Ctrl-C to any process of a run: all processes stop at the same place, save and exit.

Training may stop at the end of each step and of each evaluation batch, and all processes count these places in the
same way. A thread of each process watches for a signal to it or, through the process group's store, to another
process. Each process then publishes the last place that it is committed to reach, and all continue to the latest of
these, so that no process waits in a collective for one that has stopped. The agreement itself uses no device and no
collective.
"""

import os
import signal
import sys
import threading

import torch.distributed as dist

from .ranks import default_store

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
POLL_SECONDS = 0.5


class Preempted(SystemExit):
    """Ends a run that was told to stop, after its checkpoint is saved; `code` is the exit code of the process."""


class EvaluationStopped(Exception):
    """Leaves an evaluation because the run was told to stop; the resumed run repeats it."""


class StopRequests:
    """Context around training in which a signal to one process stops all processes at the same place.

    A second Ctrl-C kills the process at once; in an interactive session it raises `KeyboardInterrupt` instead.
    """

    _uses = 0  # the same in all processes: separates several trainings of one program

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
        if threading.current_thread() is threading.main_thread():  # other threads may not set handlers
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
        """Counts a place and returns whether all processes stop at it; all processes call it equally often."""
        self._place += 1
        with self._lock:
            if self.signal is None and not self._asked.is_set():
                self._committed = self._place + 1
                return False
        self._agreed.wait()
        return self._stop_at <= self._place

    def _receive(self, number: int, frame) -> None:
        self.signal = number  # takes no lock: the handler may have interrupted the code that holds it
        if number == signal.SIGINT:  # the system's own handler also ends a process that waits inside a collective
            again = signal.default_int_handler if hasattr(sys, "ps1") else signal.SIG_DFL
            signal.signal(signal.SIGINT, again)
            os.write(2, b"\nInterrupted: stopping after this step. Press Ctrl-C again to quit at once.\n")

    def _watch(self) -> None:
        try:
            while self.signal is None and not self._others_were_asked():
                if self._closed.wait(POLL_SECONDS):
                    break
            with self._lock:
                self._asked.set()
                committed = self._committed
            self._stop_at = self._latest(committed)
        except RuntimeError:  # the process with the store is gone, which the next collective will report
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
