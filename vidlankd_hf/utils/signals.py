"""Signals to the workers of a data loader."""

import signal

WORKER_SECONDS = 60


def survive_stop_signals() -> None:
    """In a data loader's worker: a signal to all processes of a machine must not take the batches from the last step.

    PyTorch's worker ends at once at SIGTERM, and training with it. Here it ends a minute later, if nobody ended it.
    """
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(WORKER_SECONDS))
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
