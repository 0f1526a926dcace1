"""SIGTERM and SIGUSR1 stop a run with a checkpoint, at the same step in every process, and it resumes exactly."""

import json
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
import torch
from helpers import logged, train
from launching import launched
from transformers import TrainerCallback

from vidlankd_hf.reliability import preemption
from vidlankd_hf.reliability.checkpointing import agree_on_checkpoint, checkpoints_of
from vidlankd_hf.reliability.preemption import Preempted, StopRequests
from vidlankd_hf.training.distillation_trainer import DistillationTrainer

ROOT = Path(__file__).parents[2]
LOSSES = ("loss", "grad_norm", "mlm_loss", "nst_loss", "crd_loss")
OPTIONS = {
    "objectives": {"nst": 30.0, "crd": 1.0},
    "dropout": 0.1,
    "max_steps": 8,
    "gradient_accumulation_steps": 2,
    "save_strategy": "steps",
    "save_steps": 100,
    "eval_strategy": "steps",
    "eval_steps": 3,
    "logging_steps": 4,
}


def evaluations(trained):
    return [
        {k: v for k, v in entry.items() if k.endswith("loss")}
        for entry in trained.state.log_history
        if "eval_loss" in entry
    ]


class Signal(TrainerCallback):
    """Sends a signal to this process at one event of one step."""

    def __init__(self, event: str, step: int, number=signal.SIGTERM):
        def send(args, state, control, **kwargs):
            if state.global_step == step:
                os.kill(os.getpid(), number)

        setattr(self, event, send)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train("student", tmp_path_factory.mktemp("whole"), **OPTIONS)


MOMENTS = {
    "warm-up": ("on_train_begin", 0, 1),
    "first step": ("on_step_begin", 0, 1),
    "step": ("on_step_begin", 3, 4),
    "micro-batch": ("on_substep_end", 4, 5),
    "before logging": ("on_step_end", 4, 4),
    "last step of an epoch": ("on_step_begin", 5, 6),
    "save": ("on_save", 3, 3),
    "last step": ("on_step_begin", 7, 8),
}


@pytest.mark.parametrize(
    "moment, number", [*((moment, signal.SIGTERM) for moment in MOMENTS), ("step", signal.SIGUSR1)]
)
def test_run_told_to_stop_resumes_exactly(tmp_path, whole, moment, number):
    event, step, stops_after = MOMENTS[moment]
    options = {**OPTIONS, "save_steps": 3 if moment == "save" else 100}
    before = {number: signal.getsignal(number) for number in preemption.SIGNALS}
    with pytest.raises(Preempted) as stopped:
        train("student", tmp_path, **options, callbacks=[Signal(event, step, number)])
    assert stopped.value.code == 143
    assert {number: signal.getsignal(number) for number in preemption.SIGNALS} == before
    assert agree_on_checkpoint(tmp_path, saves=True) == str(tmp_path / f"checkpoint-{stops_after}")
    resumed = train("student", tmp_path, **options, resume=True)
    assert resumed.state.global_step == 8
    assert logged(resumed, *LOSSES) == logged(whole, *LOSSES), "logs cover the steps before the stop, too"
    assert evaluations(resumed) == evaluations(whole)
    for (name, a), b in zip(whole.model.state_dict().items(), resumed.model.state_dict().values()):
        assert torch.equal(a, b), name


def test_interrupted_evaluation_is_repeated(tmp_path, whole, monkeypatch):
    seen = []

    def collect(self, outputs, batch, real):
        seen.append(self.state.global_step)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    with monkeypatch.context() as patched, pytest.raises(Preempted) as stopped:
        patched.setattr(DistillationTrainer, "collect", collect)
        train("student", tmp_path, **{**OPTIONS, "preempt_exit_code": 7})
    assert stopped.value.code == 7
    assert seen == [3, 3], "of 4 batches"
    assert [c.name for c in checkpoints_of(tmp_path)] == ["checkpoint-3"]
    resumed = train("student", tmp_path, **OPTIONS, resume=True)
    assert logged(resumed, *LOSSES) == logged(whole, *LOSSES)
    assert evaluations(resumed) == evaluations(whole)


def test_evaluation_before_the_first_step_is_interrupted_and_nothing_is_saved(tmp_path, whole, monkeypatch):
    def collect(self, outputs, batch, real):
        os.kill(os.getpid(), signal.SIGTERM)
        return {}

    with monkeypatch.context() as patched, pytest.raises(Preempted) as stopped:
        patched.setattr(DistillationTrainer, "collect", collect)
        train("student", tmp_path, **OPTIONS, eval_on_start=True)
    assert stopped.value.code == 143 and not checkpoints_of(tmp_path)
    assert logged(train("student", tmp_path, **OPTIONS, eval_on_start=True), *LOSSES) == logged(whole, *LOSSES)


def test_run_with_epoch_evaluation_keeps_it(tmp_path):
    options = {**OPTIONS, "eval_strategy": "epoch", "save_strategy": "epoch", "num_train_epochs": 2, "max_steps": -1}
    whole = train("student", tmp_path / "whole", **options)
    with pytest.raises(Preempted):
        train("student", tmp_path / "parts", **options, callbacks=[Signal("on_step_begin", 5)])
    resumed = train("student", tmp_path / "parts", **options, resume=True)
    assert len(evaluations(whole)) == 2
    assert (logged(resumed, *LOSSES), evaluations(resumed)) == (logged(whole, *LOSSES), evaluations(whole))


def test_signal_to_loader_workers_does_not_end_the_run(tmp_path, whole):
    """Some schedulers signal every process of a job."""

    class SignalChildren(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 2:
                workers = [str(child.pid) for child in multiprocessing.active_children()]
                assert len(workers) == 2
                subprocess.run(["kill", "-TERM", str(os.getpid()), *workers], check=True)
                time.sleep(0.5)

    with pytest.raises(Preempted):
        train("student", tmp_path, **OPTIONS, dataloader_num_workers=2, callbacks=[SignalChildren()])
    assert [c.name for c in checkpoints_of(tmp_path)] == ["checkpoint-3"]
    resumed = train("student", tmp_path, **OPTIONS, dataloader_num_workers=2, resume=True)
    assert logged(resumed, *LOSSES) == logged(whole, *LOSSES)


class SharedStore(dict):
    """The process group's store, for threads that stand for processes."""

    def check(self, keys):
        return all(key in self for key in keys)

    def set(self, key, value):
        self[key] = value.encode()

    def multi_get(self, keys):
        return [self[key] for key in keys]


@pytest.mark.parametrize("ahead", [1, 5])
@pytest.mark.parametrize("told", [(0,), (1,), (0, 2), (0, 1, 2)])
def test_processes_that_are_not_at_the_same_place_stop_at_the_same_place(monkeypatch, told, ahead):
    """Processes may run `ahead` places ahead of the slowest, as collectives and a GPU's queue allow."""
    monkeypatch.setattr(preemption, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(preemption.dist, "get_world_size", lambda: 3)
    current, store, places, stopped = threading.local(), SharedStore(), [0, 0, 0], [None] * 3
    moved = threading.Condition()
    monkeypatch.setattr(preemption.dist, "get_rank", lambda: current.rank)
    monkeypatch.setattr(preemption, "default_store", lambda: store)

    def process(rank):
        current.rank = rank
        stops = StopRequests()
        stops._prefix = "test"
        watch = stops._watch

        def watch_as_rank():
            current.rank = rank
            watch()

        stops._watch = watch_as_rank
        with stops:
            for place in range(1, 2000):
                with moved:
                    moved.wait_for(lambda place=place: min(places) + ahead >= place, timeout=20)
                    places[rank] = place
                    moved.notify_all()
                time.sleep(0.001 * (rank + 1))
                if rank in told and place == 20 + 7 * rank:
                    stops.signal = signal.SIGTERM
                if stops.should_stop():
                    stopped[rank] = place
                    return

    threads = [threading.Thread(target=process, args=(rank,), daemon=True) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(set(stopped)) == 1 and stopped[0] is not None and stopped[0] >= 20


def test_finished_process_does_not_keep_others_waiting(monkeypatch):
    monkeypatch.setattr(preemption, "POLL_SECONDS", 0.01)
    with StopRequests() as stops:
        assert not stops.should_stop()
    assert not stops._thread.is_alive()


@pytest.mark.slow
@pytest.mark.parametrize(
    "config, target",
    [("cpu.yaml", "rank 0"), ("cpu.yaml", "rank 1"), ("cpu.yaml", "launcher"), ("cpu_zero2.yaml", "rank 1")],
)
def test_signal_to_one_process_of_a_launch_saves_and_the_run_resumes_exactly(tmp_path, target, config):
    options = {**OPTIONS, "kind": "student", "max_steps": 12, "use_cpu": False, "seconds_a_step": 0.4,
               "per_device_train_batch_size": 4, "eval_strategy": "no", "logging_steps": 1}  # fmt: skip
    whole = launched(config, tmp_path / "whole", options)
    assert whole.wait(timeout=300) == 0
    parts = launched(config, tmp_path / "parts", options)
    pids = tmp_path / "parts" / "run"
    waited = time.monotonic()
    while not (pids / "pid-1").exists() or not (pids / "step-3").exists():
        assert parts.poll() is None and time.monotonic() - waited < 120
        time.sleep(0.1)
    pid = parts.pid if target == "launcher" else int((pids / f"pid-{target[-1]}").read_text())
    os.kill(pid, signal.SIGTERM)
    assert parts.wait(timeout=120) != 0
    (checkpoint,) = checkpoints_of(pids)
    assert agree_on_checkpoint(pids, saves=True) == str(checkpoint)
    resumed = launched(config, tmp_path / "parts", {**options, "resume": str(checkpoint)})
    assert resumed.wait(timeout=300) == 0
    ours, expected = (json.loads((tmp_path / n / "result.json").read_text()) for n in ("parts", "whole"))
    losses = [[{n: e[n] for n in LOSSES} for e in seen["log_history"] if "loss" in e] for seen in (ours, expected)]
    assert len(losses[0]) == 12 and losses[0] == losses[1]
