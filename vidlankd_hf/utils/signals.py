"""Signals to the workers of a data loader."""

import signal

WORKER_SECONDS = 60


def survive_stop_signals() -> None:
    """Keep a data loader's worker alive when every process of a machine is signalled: the last step needs its batches.

    PyTorch's worker exits at once on SIGTERM, which ends training too. Here it exits a minute later, if it still runs.
    """
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(WORKER_SECONDS))
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a worker exits when its parent is gone
