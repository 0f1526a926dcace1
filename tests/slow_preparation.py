"""Runs an example whose preparation takes ten seconds in the process that does it; tests launch several of these.

The first process comes a second later than the others, so that it is one that waits.
"""

import os
import runpy
import sys
import time

import torch

from vidlankd_hf.data import howto100m, text_blocks, window_shards
from vidlankd_hf.data.window_writer import WindowWriter
from vidlankd_hf.evaluation import eval_only, finetune
from vidlankd_hf.experiments import vokenization
from vidlankd_hf.utils import locks
from vidlankd_hf.utils.examples import EXAMPLES

SECONDS = 10.0


def delay(owner, name: str, seconds: float) -> None:
    original = getattr(owner, name)

    def slow(*args, **options):
        time.sleep(seconds)
        return original(*args, **options)

    setattr(owner, name, slow)


def refuse(*args, **options):
    raise AssertionError("a process waits in a collective")


if __name__ == "__main__":
    example = sys.argv[1]
    locks.FIRST_SECONDS = 1.0
    delay(WindowWriter, "write", SECONDS)
    delay(text_blocks, "write_blocks", SECONDS)
    delay(vokenization._Vokenization, "write", SECONDS)
    delay(howto100m._Conversion, "write", SECONDS)
    for module in (finetune, eval_only):
        delay(module, "read_rows", SECONDS / 2)  # of two splits
    if os.environ["LOCAL_RANK"] == "0":
        for module in (text_blocks, window_shards):
            delay(module, "resumable_dir", 1.0)
        for module in (vokenization, howto100m):
            delay(module, "one_responsible", 1.0)
    if example == "vokenize":  # it has no option for the timeout of collectives, and needs none
        torch.distributed.barrier = refuse
    sys.argv = [str(EXAMPLES / f"{example}.py"), *sys.argv[2:]]
    runpy.run_path(sys.argv[0], run_name="__main__")
