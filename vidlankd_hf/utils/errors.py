"""How commands report errors: an expected error is one message, any other error has its traceback."""

import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path

from tqdm.std import tqdm

from .examples import EXAMPLES, PACKAGE


def run_example(main: Callable[[], None]) -> None:
    """Runs an example's `main`. An expected error ends it with its message and exit status 1, without a traceback.

    Errors that this package raises, and errors of the operating system about a file, are expected. Any other error
    keeps its traceback; with VIDLANKD_TRACEBACK=1, expected errors do too.
    """
    # To save a model, accelerate imports DeepSpeed if it is installed, which then warns that there is no GPU.
    logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())
    if logging.lastResort is not None:  # writes the warnings of programs that do not configure logging
        logging.lastResort.setFormatter(PrintableFormatter())
    _calm_progress_bars()
    try:
        main()
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        if os.environ.get("VIDLANKD_TRACEBACK") or not _is_expected(error):
            raise
        let_main_speak()
        sys.exit(f"{Path(sys.argv[0]).name}: error: {printable(str(error))}")
    except KeyboardInterrupt:
        print(f"\n{Path(sys.argv[0]).name}: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def printable(text: str) -> str:
    """Escapes what would control a terminal: a file name in a message may hold anything."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


class PrintableFormatter(logging.Formatter):
    """Formats log messages with [`printable`]."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _calm_progress_bars() -> None:
    """Where stderr is no terminal, lets progress bars write a line every 30 s instead of filling the log.

    tqdm reads TQDM_MININTERVAL only when it is imported, which has happened by now.
    """
    if not sys.stderr.isatty() and "TQDM_MININTERVAL" not in os.environ:
        tqdm.__init__ = partialmethod(tqdm.__init__, mininterval=30, maxinterval=30)


def show_log() -> None:
    """Shows this package's log messages of level INFO or higher on stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter())
    logging.getLogger("vidlankd_hf").addHandler(handler)
    logging.getLogger("vidlankd_hf").setLevel(logging.INFO)


def _is_expected(error: Exception) -> bool:
    raised = traceback.extract_tb(error.__traceback__)[-1]
    ours = any(Path(raised.filename).resolve().is_relative_to(folder.resolve()) for folder in (PACKAGE, EXAMPLES))
    return (ours and raised.line.startswith("raise ")) or getattr(error, "filename", None) is not None


def let_main_speak() -> None:
    """Waits 5 s on all ranks except 0, so that an error that all ranks raise is shown only once.

    The launcher ends the waiting processes when rank 0 has exited.
    """
    if os.environ.get("RANK", "0") != "0":
        time.sleep(5)
