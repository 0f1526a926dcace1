"""Results of a part: a JSON file that is written after every check, so that nothing is lost when time runs out."""

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # measuring.py, step.py, step_variants.py

import torch
from measuring import describe_machine


class SkippedError(Exception):
    """A check that this machine cannot do; the message says why."""


class Results:
    """Results of one part, by name of the check.

    Args:
        part: Name of the part and of its file. A check that the file holds already, and that did not fail, is not
            repeated.
        args: The part's arguments.
    """

    def __init__(self, part: str, args: argparse.Namespace):
        self.path, self.failed = args.output_dir / f"{part}.json", []
        held = json.loads(self.path.read_text())["checks"] if self.path.is_file() else {}
        self.checks = {name: check for name, check in held.items() if "failed" not in check}
        self.machine = describe_machine(args.device)
        self.ends = time.monotonic() + args.seconds

    def seconds_left(self) -> float:
        return self.ends - time.monotonic()

    def run(self, name: str, check: Callable[[], dict]) -> None:
        """Runs a check and stores what it measured, or how it failed; an error does not end the part."""
        if name in self.checks:
            print(f"{name}: done before", flush=True)
            return
        if self.seconds_left() <= 0:
            print(f"{name}: no time left", flush=True)
            self.failed.append(name)
            return
        print(f"{name} ...", flush=True)
        began = time.perf_counter()
        try:
            found = check()
        except SkippedError as reason:
            found = {"skipped": str(reason)}
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            found = {"failed": f"{type(error).__name__}: {error}"[-2000:]}
            self.failed.append(name)
        self.checks[name] = {"took_seconds": round(time.perf_counter() - began, 2), **found}
        shown = {key: value for key, value in self.checks[name].items() if key not in ("rows", "log")}
        print(f"{name}: {json.dumps(shown)[:600]}", flush=True)
        self.save()

    def save(self) -> None:
        content = {"command": " ".join(sys.argv), "date": time.strftime("%Y-%m-%d"), "machine": self.machine}
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps({**content, "checks": self.checks}, indent=1) + "\n")
        os.replace(part, self.path)


def parser_of(description: str) -> argparse.ArgumentParser:
    """The options that all parts have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on CPU if there is no GPU")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the part's JSON file")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no check after this time")
    parser.add_argument("--only", nargs="+", help="names of the checks to run (default: all)")
    return parser


def arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parses the command line and chooses the device.

    Raises:
        SystemExit: There is no GPU, and this is not a rehearsal.
    """
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    args.device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.device == "cpu" and not args.rehearse:
        raise SystemExit("there is no GPU: give --rehearse to try the part with tiny sizes on CPU")
    return args
