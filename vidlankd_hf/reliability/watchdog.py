"""A run that no longer moves ends within a set time, and shows where every thread of it stood."""

import faulthandler
import sys
import time


class Watchdog:
    """Ends the process (exit code 1) with all threads' stacks on stderr, if [`heartbeat`] is not called for `seconds`.

    The clock is a thread of the interpreter that needs neither the GIL nor a running main thread. 0 turns it off.
    """

    def __init__(self, seconds: float):
        self.seconds, self._armed = seconds, 0.0

    def heartbeat(self) -> None:
        """Sets the clock back, at most ten times per period: arming it starts a thread."""
        now = time.monotonic()
        if self.seconds > 0 and now - self._armed > self.seconds / 10:
            faulthandler.dump_traceback_later(self.seconds, exit=True, file=sys.__stderr__)
            self._armed = now

    def stop(self) -> None:
        if self._armed:
            faulthandler.cancel_dump_traceback_later()
            self._armed = 0.0
