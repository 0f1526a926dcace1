"""A loss, gradient or weight that is not finite stops the run with a report and reaches no checkpoint and no log."""

import errno
import json
import math
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from helpers import train
from transformers import TrainerCallback

from vidlankd_hf import DistillationConfig, TeacherConfig, TextCollator, VidLanKDStudent
from vidlankd_hf.evaluation.arguments import FinetuningArguments
from vidlankd_hf.reliability import nan_detection
from vidlankd_hf.reliability.checkpointing import agree_on_checkpoint, checkpoints_of
from vidlankd_hf.reliability.nan_detection import (
    NEVER,
    NonFiniteDetector,
    NonFiniteError,
    first_bad,
    weights_are_finite,
)

OPTIONS = {"objectives": {"nst": 30.0}, "max_steps": 12, "gradient_accumulation_steps": 2, "save_strategy": "steps"}
BAD_STEP = 7  # the third of the second epoch: 50 samples are 6 steps of 8


class Logs(TrainerCallback):
    def __init__(self):
        self.seen = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.seen.append(dict(logs))


def run(folder, callbacks=(), **options):
    """Trains until the run stops; returns the error, the report and the logs."""
    logs = Logs()
    with pytest.raises(NonFiniteError) as stopped:
        train("student", folder, **{**OPTIONS, **options}, callbacks=[logs, *callbacks])
    (report,) = folder.glob("nonfinite-step-*.json")
    return str(stopped.value), json.loads(report.read_text()), logs.seen


@pytest.fixture
def poisoned(monkeypatch):
    """Makes a component NaN in the second micro-batch of the bad step; returns the ids of the collated samples."""
    collated, forwards = [], []

    def collate(self, samples, original=TextCollator.__call__):
        collated.append([sample["sample_id"] for sample in samples])
        return original(self, samples)

    def forward(self, *args, original=VidLanKDStudent.forward, **kwargs):
        outputs = original(self, *args, **kwargs)
        forwards.append(None)
        if len(forwards) >= 2 * BAD_STEP:
            outputs.losses["nst"] = outputs.losses["nst"] * math.nan
        return outputs

    monkeypatch.setattr(TextCollator, "__call__", collate)
    monkeypatch.setattr(VidLanKDStudent, "forward", forward)
    return collated


@pytest.mark.parametrize("logging_steps, save_steps", [(1, 100), (5, 3), (100, 4), (100, 100)])
def test_bad_loss_stops_the_run_and_the_report_says_where(tmp_path, poisoned, logging_steps, save_steps):
    message, report, logs = run(tmp_path, logging_steps=logging_steps, save_steps=save_steps)
    assert report["step"] == BAD_STEP and report["components"] == ["nst"]
    assert report["sample_ids_of_processes"] == {"0": poisoned[2 * BAD_STEP - 1]}
    assert len(report["gradient_norms"]) == BAD_STEP and math.isnan(report["gradient_norms"][-1])
    assert all(math.isfinite(norm) for norm in report["gradient_norms"][:-1])
    assert "nst not finite in step 7" in message and report["replay"] in message
    assert report["replay"].endswith("--logging_steps 1 --logging_strategy steps")
    checkpoints = checkpoints_of(tmp_path)
    assert [c.name for c in checkpoints] == {3: ["checkpoint-6", "checkpoint-3"], 4: ["checkpoint-4"]}.get(
        save_steps, []
    )
    assert report["last_checkpoint"] == (str(checkpoints[0]) if checkpoints else None)
    assert all(math.isfinite(v) and v != 0 for entry in logs for k, v in entry.items() if k.endswith("loss"))


def test_filter_of_transformers_hides_nothing(tmp_path, poisoned):
    _, report, logs = run(tmp_path, logging_steps=1, logging_nan_inf_filter=True)
    assert report["step"] == BAD_STEP and len(logs) == BAD_STEP - 1


def test_bad_gradient_of_a_finite_loss_is_detected_and_all_samples_of_the_step_are_named(tmp_path):
    class Poison(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            if state.global_step + 1 == BAD_STEP:
                parameter = next(model.parameters())
                parameter.register_hook(lambda gradient: gradient * math.inf)

    message, report, _ = run(tmp_path, logging_steps=10, save_steps=4, callbacks=[Poison()])
    assert (report["step"], report["components"]) == (BAD_STEP, ["gradient"])
    assert len(report["sample_ids_of_processes"]["0"]) == 8
    assert [c.name for c in checkpoints_of(tmp_path)] == ["checkpoint-4"]


def test_bad_weights_are_in_no_checkpoint(tmp_path):
    class Poison(TrainerCallback):
        def on_optimizer_step(self, args, state, control, model=None, **kwargs):
            if state.global_step + 1 == 8:
                next(model.parameters()).data[0] = math.inf

    _, report, _ = run(tmp_path, logging_steps=100, save_steps=4, callbacks=[Poison()])
    assert (report["step"], report["components"]) == (8, ["weights"])
    assert (
        agree_on_checkpoint(tmp_path, saves=True) == str(tmp_path / "checkpoint-4")
        and len(checkpoints_of(tmp_path)) == 1
    )


def test_bad_weights_are_in_no_finished_model(tmp_path):
    trainer = train("student", tmp_path, {}, max_steps=1)
    with torch.no_grad():
        next(trainer.model.parameters())[0] = math.nan
    with pytest.raises(NonFiniteError, match="weights"):
        trainer.save_model()
    assert not (tmp_path / "model.safetensors").exists()


def test_detector_keeps_the_first_bad_position_of_each_value_and_the_norms_until_then():
    detector = NonFiniteDetector(["a", "b"], torch.device("cpu"))
    good, bad = torch.tensor(1.0), torch.tensor(math.inf)
    detector.record_losses([good, good], 0)
    detector.record_gradient(torch.tensor(2.0), 0, 0)
    detector.record_losses([good, bad], 1)
    detector.record_gradient(torch.tensor(math.nan), 1, 1)
    detector.record_losses([bad, bad], 2)
    detector.record_gradient(torch.tensor(5.0), 2, 2)
    assert detector.first.tolist() == [2, 1, 1]
    assert detector.norms[-2] == 2.0 and detector.norms[-1].isnan()
    assert first_bad(detector.first[None], detector.names) == (1, [(0, "b")])
    clean = torch.full((2, 3), NEVER)
    assert first_bad(clean, detector.names) is None
    clean[1, 2] = 4
    assert first_bad(clean, detector.names) == (4, [(1, "gradient")])


def test_weights_of_every_type_are_checked():
    model = torch.nn.Linear(2, 2)
    model.counts = torch.nn.Parameter(torch.ones(2, dtype=torch.long), requires_grad=False)
    assert weights_are_finite(model)
    model.bias.data[1] = -math.inf
    assert not weights_are_finite(model)


@pytest.mark.parametrize("arguments", [DistillationConfig, TeacherConfig, FinetuningArguments])
def test_no_trainer_logs_another_number_in_place_of_a_loss_that_is_not_finite(tmp_path, arguments):
    assert arguments(output_dir=str(tmp_path), use_cpu=True).logging_nan_inf_filter is False


class FullDisk:
    """A stream to a file on a full disk."""

    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    flush = write


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_report_that_cannot_be_written_is_on_stderr(tmp_path, poisoned, monkeypatch, capsys, number):
    def fail(path, content):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(nan_detection, "atomic_write", fail)
    with pytest.raises(NonFiniteError, match="(?s)nst not finite in step 7.*The report is on stderr only"):
        train("student", tmp_path, **OPTIONS)
    report = re.search(r"^{\n.*?^}$", capsys.readouterr().err, re.DOTALL | re.MULTILINE)
    assert json.loads(report.group())["sample_ids_of_processes"] == {"0": poisoned[2 * BAD_STEP - 1]}
    assert not list(tmp_path.glob("nonfinite*"))


def test_report_is_written_to_its_file_even_if_stderr_is_on_a_full_disk(tmp_path, poisoned, monkeypatch):
    monkeypatch.setattr(sys, "stderr", FullDisk())
    message, report, _ = run(tmp_path)
    assert report["step"] == BAD_STEP and f"Report: {tmp_path}" in message


def test_full_disk_hides_no_nan(tmp_path, poisoned, capsys):
    """With a file system that is really full; it needs the right to mount one."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", mount], capture_output=True).returncode:
        pytest.skip("no right to mount a file system")
    try:
        (mount / "run").mkdir()
        (mount / "run" / ".lock").touch()
        with open(mount / "other", "wb") as file:
            file.write(bytes(shutil.disk_usage(mount).free))
        with pytest.raises(NonFiniteError, match="(?s)nst not finite in step 7.*No space left on device"):
            train("student", mount / "run", **{**OPTIONS, "save_strategy": "no"})
        assert '"step": 7' in capsys.readouterr().err and not list((mount / "run").glob("nonfinite*"))
    finally:
        subprocess.run(["umount", "--lazy", mount], check=True)  # the lock is open
