"""The console script `vidlankd COMMAND ...`. Without a command it needs only the standard library, so it is fast."""

import runpy
import sys
from importlib.metadata import version
from pathlib import Path

from .errors import run_example
from .examples import COMMANDS, EXAMPLES, overview
from .messages import nearest


def lists_commands() -> bool:
    """Whether this process is `vidlankd` without a command to run."""
    return Path(*sys.argv[:1]).name == "vidlankd" and not set(sys.argv[1:2]) & set(COMMANDS)


def main() -> None:
    """Runs a command; without one, lists them."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(overview())
    elif words[0] == "--version":
        print(f"vidlankd_hf {version('vidlankd_hf')}")
    elif words[0] not in COMMANDS:
        sys.exit(f"vidlankd: there is no command {words[0]!r}{nearest(words[0], COMMANDS)}; `vidlankd` lists them")
    else:
        sys.argv = [f"vidlankd {words[0]}", *words[1:]]
        run_example(lambda: runpy.run_path(str(EXAMPLES / f"{COMMANDS[words[0]]}.py"))["main"]())
