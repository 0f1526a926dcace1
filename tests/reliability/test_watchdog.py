"""A run that hangs, loses a worker or runs out of memory stops, and says why and what to do."""

import faulthandler
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import train
from launching import launched
from transformers import TrainerCallback

from vidlankd_hf import DistillationConfig, TextCollator, VidLanKDStudent
from vidlankd_hf.reliability.checkpointing import checkpoints_of
from vidlankd_hf.reliability.out_of_memory import advice, explain_out_of_memory

ROOT = Path(__file__).parents[2]
HANGS = """
import sys, time
sys.path.insert(0, {tests!r})
from helpers import train
from transformers import TrainerCallback

class Hang(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 3:
            self.wait_for_what_never_comes()

    def wait_for_what_never_comes(self):
        time.sleep(600)

train("student", {folder!r}, {{}}, max_steps=6, hang_timeout={timeout}, save_strategy="steps", save_steps=2,
      callbacks=[Hang()])
"""


def test_hung_run_ends_with_the_stacks_of_its_threads(tmp_path):
    script = tmp_path / "hangs.py"
    script.write_text(HANGS.format(tests=str(ROOT / "tests"), folder=str(tmp_path / "run"), timeout=6.0))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert "Timeout (0:00:06" in done.stderr and "wait_for_what_never_comes" in done.stderr
    assert [c.name for c in checkpoints_of(tmp_path / "run")] == ["checkpoint-2"]


def test_run_that_makes_progress_is_not_ended(tmp_path):
    class Slow(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            time.sleep(1.2)

    assert train("student", tmp_path, {}, max_steps=4, hang_timeout=4.0, callbacks=[Slow()]).state.global_step == 4
    time.sleep(4.2)  # the timer is disarmed


def test_evaluation_is_watched_and_leaves_nothing_armed(tmp_path, monkeypatch):
    """A notebook that idles after `evaluate()` is not ended."""
    trainer = train("student", tmp_path, {}, max_steps=1, hang_timeout=100.0)
    armed = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda seconds, **_: armed.append(seconds))
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", armed.clear)
    batches = []
    collect = trainer.collect
    trainer.collect = lambda *args: batches.append(list(armed)) or collect(*args)
    trainer.evaluate()
    assert len(batches) > 1 and all(batches) and not armed


@pytest.mark.parametrize(
    "options", [{"hang_timeout": -1.0}, {"hang_timeout": float("nan")}, {"preempt_exit_code": 256}]
)
def test_impossible_settings_are_refused(tmp_path, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        DistillationConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none", **options)


def test_dead_loader_worker_is_reported(tmp_path, monkeypatch):
    def collate(self, samples, original=TextCollator.__call__):
        if 7 in [sample["sample_id"] for sample in samples]:
            os.kill(os.getpid(), 9)
        return original(self, samples)

    monkeypatch.setattr(TextCollator, "__call__", collate)
    with pytest.raises(RuntimeError, match="data loader worker died at step .*lower --dataloader_num_workers"):
        train("student", tmp_path, {}, max_steps=20, dataloader_num_workers=2)


@pytest.mark.parametrize("error", [ConnectionResetError, ConnectionRefusedError, FileNotFoundError, EOFError])
def test_worker_that_dies_while_its_batch_is_fetched_is_reported(tmp_path, monkeypatch, error):
    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr("multiprocessing.connection.Client", refuse)
    with pytest.raises(RuntimeError, match=f"data loader worker died at step 0 .{error.__name__}"):
        train("student", tmp_path, {}, max_steps=2, dataloader_num_workers=1)


def test_error_of_a_file_is_not_taken_for_a_dead_worker(tmp_path, monkeypatch):
    def collate(self, samples):
        raise FileNotFoundError("shard-7")

    monkeypatch.setattr(TextCollator, "__call__", collate)
    for workers in (0, 1):
        with pytest.raises(FileNotFoundError, match="shard-7"):
            train("student", tmp_path, {}, max_steps=2, dataloader_num_workers=workers)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_out_of_memory_says_what_to_lower(tmp_path, monkeypatch, error):
    def forward(self, *args, original=VidLanKDStudent.forward, **kwargs):
        if self.training == training:
            raise error
        return original(self, *args, **kwargs)

    monkeypatch.setattr(VidLanKDStudent, "forward", forward)
    options = {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 1, "per_device_train_batch_size": 6}
    training = True
    with pytest.raises(
        torch.OutOfMemoryError, match="batch_size 3 .it is 6.*accumulation_steps 2 .it is 1"
    ) as stopped:
        train("student", tmp_path, {}, **options)
    assert str(error) in str(stopped.value)
    training = False
    with pytest.raises(torch.OutOfMemoryError, match="evaluation: lower --per_device_eval_batch_size from 4 to 2"):
        train("student", tmp_path, {}, **options)


def test_memory_that_really_runs_out_is_noticed(tmp_path):
    args = DistillationConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    with pytest.raises(torch.OutOfMemoryError, match="give --per_device_train_batch_size 4"):
        with explain_out_of_memory(args):
            torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="^another"):
        with explain_out_of_memory(args):
            raise RuntimeError("another")


@pytest.mark.parametrize("size, accumulation, said", [(8, 1, "size 4 .*steps 2 "), (9, 2, "size 3 .*steps 6 "),
                                                      (7, 1, "size 1 .*steps 7 "), (1, 4, "bf16")])  # fmt: skip
def test_advice_keeps_the_samples_of_a_step(tmp_path, size, accumulation, said):
    args = DistillationConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none",
                              per_device_train_batch_size=size, gradient_accumulation_steps=accumulation)  # fmt: skip
    assert re.search(said, advice(args, evaluating=False))


@pytest.mark.slow
def test_launch_ends_if_one_of_its_processes_hangs(tmp_path):
    options = {"kind": "student", "objectives": {}, "max_steps": 50, "use_cpu": False, "seconds_a_step": 0.2,
               "hang_timeout": 5.0, "hang_at": 4, "per_device_train_batch_size": 4}  # fmt: skip
    begun = time.monotonic()
    launch = launched("cpu.yaml", tmp_path, options)
    assert launch.wait(timeout=150) != 0 and time.monotonic() - begun < 120
    log = (tmp_path / "log.txt").read_text()
    assert "Timeout (0:00:05" in log and "hang_here" in log
