"""Ctrl-C saves a checkpoint and stops the run; a second Ctrl-C kills it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vidlankd_hf.reliability.checkpointing import agree_on_checkpoint

TESTS = Path(__file__).parents[1]
RUN = """
import sys, time
sys.path.insert(0, {tests!r})
from helpers import train
from transformers import TrainerCallback

class Slow(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        print("step", state.global_step, flush=True)
        time.sleep({seconds})

train("student", {folder!r}, {{}}, max_steps=300, dataloader_num_workers=1, save_strategy="steps", save_steps=1000,
      callbacks=[Slow()])
"""


def start(tmp_path, seconds: float) -> subprocess.Popen:
    code = RUN.format(tests=str(TESTS), folder=str(tmp_path / "run"), seconds=seconds)
    return subprocess.Popen(
        [sys.executable, "-c", code], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a background job ignores it
        start_new_session=True,
    )  # fmt: skip


def wait_for(run: subprocess.Popen, words: str) -> None:
    for line in run.stdout:
        if words in line:
            return
    raise AssertionError(f"the run ended without {words!r}: {run.stderr.read()[-3000:]}")


def test_ctrl_c_saves_a_checkpoint_and_says_where(tmp_path):
    run = start(tmp_path, seconds=0.2)
    wait_for(run, "step 2")
    os.killpg(run.pid, signal.SIGINT)  # also to the loader's workers, as a terminal does
    out, errors = run.communicate(timeout=120)
    assert run.returncode == 143, errors[-3000:]
    checkpoint = agree_on_checkpoint(tmp_path / "run", saves=True)
    assert checkpoint is not None and f"the same command resumes from {checkpoint}" in out
    # The compile workers of torch 2.6 print a traceback; none may come from this package.
    assert "Press Ctrl-C again to quit at once" in errors and "vidlankd_hf/" not in errors


def test_second_ctrl_c_kills_the_run_at_once(tmp_path):
    run = start(tmp_path, seconds=60)
    wait_for(run, "step 0")
    time.sleep(0.5)
    run.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert run.poll() is None
    begun = time.monotonic()
    run.send_signal(signal.SIGINT)
    # The step sleeps in the interpreter: the system ends the process without waiting for it.
    assert run.wait(timeout=30) == -signal.SIGINT and time.monotonic() - begun < 20
    assert agree_on_checkpoint(tmp_path / "run", saves=True) is None


@pytest.mark.parametrize("interactive, error", [(False, None), (True, KeyboardInterrupt)])
def test_second_ctrl_c_in_an_interactive_session_raises_keyboard_interrupt(monkeypatch, interactive, error):
    """A notebook keeps its kernel."""
    from vidlankd_hf.reliability.preemption import StopRequests

    if interactive:
        monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    before = signal.getsignal(signal.SIGINT)
    with StopRequests():
        os.kill(os.getpid(), signal.SIGINT)
        expected = signal.default_int_handler if interactive else signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) == expected
        if error is not None:
            with pytest.raises(error):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)
    assert signal.getsignal(signal.SIGINT) == before
