"""Ends a run that makes no progress within a set time, and shows where each of its threads hangs."""

import faulthandler
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from transformers import TrainerCallback


class Watchdog(TrainerCallback):
    """Ends the process (exit code 1) with all threads' stacks on stderr after `seconds` without a heartbeat.

    As a callback it takes each step, evaluation batch and checkpoint as a heartbeat, but only within [`running`]. The
    timer is a thread in C that needs neither the GIL nor a running main thread.

    Args:
        seconds: Longest time without a heartbeat; 0 turns the watchdog off.
    """

    def __init__(self, seconds: float):
        self.seconds, self._armed, self._running = seconds, 0.0, False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Watches the block; may be nested."""
        outer, self._running = self._running, True
        self.heartbeat()
        try:
            yield
        finally:
            self._running = outer
            if not outer:
                self.stop()

    def heartbeat(self) -> None:
        """Restarts the timer, at most ten times per period: arming it starts a thread."""
        now = time.monotonic()
        if self._running and self.seconds > 0 and now - self._armed > self.seconds / 10:
            faulthandler.dump_traceback_later(self.seconds, exit=True, file=sys.__stderr__)
            self._armed = now

    def stop(self) -> None:
        """Disarms the timer until the next heartbeat."""
        if self._armed:
            faulthandler.cancel_dump_traceback_later()
            self._armed = 0.0

    def on_step_end(self, args, state, control, **kwargs):
        self.heartbeat()

    def on_prediction_step(self, args, state, control, **kwargs):
        self.heartbeat()

    def on_save(self, args, state, control, **kwargs):
        self.heartbeat()
