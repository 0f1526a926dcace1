"""Child processes that end with the process that needs them."""

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None  # before a fork, which must not load libraries


def end_with_parent(stop_signal: int = signal.SIGKILL) -> None:
    """Lets the system send a signal to this process when the one that started it ends (on Linux)."""
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, stop_signal)
