"""Child processes that end when their parent does."""

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None  # loading it after a fork may deadlock


def end_with_parent(stop_signal: int = signal.SIGKILL) -> None:
    """Asks the system to send this process a signal when its parent ends; does nothing on systems other than Linux."""
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, stop_signal)
