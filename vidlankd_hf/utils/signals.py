"""Signal handling in the workers of a data loader."""

import signal

WORKER_SECONDS = 60  # that a worker lives after SIGTERM


def survive_stop_signals() -> None:
    """Keeps a data loader's worker alive for a minute after SIGTERM, and ignores SIGUSR1.

    By default, a worker exits at SIGTERM, and training fails with it. Cluster managers send the signal to all
    processes of a job, but the main process still needs batches to finish its step.
    """
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(WORKER_SECONDS))
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a worker exits when its parent is gone
