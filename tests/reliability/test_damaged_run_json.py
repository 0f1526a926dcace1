"""With a damaged or unreadable `run.json`, a run resumes from its newest complete checkpoint, with a message."""

import errno
import json
import os
from pathlib import Path

import pytest
from helpers import train

from vidlankd_hf import DistillationConfig
from vidlankd_hf.reliability.checkpointing import checkpoints_of
from vidlankd_hf.reliability.run_dir import is_finished, mark_finished, open_run_dir, read_run, read_settings

RUN = {"objectives": {}, "max_steps": 4, "save_steps": 2, "save_strategy": "steps"}


def arguments(folder, **changes):
    options = {"per_device_train_batch_size": 4, "seed": 5, "learning_rate": 1e-3, "use_cpu": True, **RUN, **changes}
    return DistillationConfig(output_dir=str(folder), report_to="none", disable_tqdm=True, **options)


@pytest.fixture
def run(tmp_path):
    open_run_dir(arguments(tmp_path / "run"), {"text": "a"})
    train("student", tmp_path / "run", **RUN)
    return tmp_path / "run"


def as_pipe(path):
    path.unlink()
    os.mkfifo(path)


def as_folder(path):
    path.unlink()
    path.mkdir()
    (path / "x").write_text("")


DAMAGES = {
    "empty": lambda path: path.write_text(""),
    "truncated": lambda path: path.write_text(path.read_text()[:200]),
    "list": lambda path: path.write_text("[]"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "other keys": lambda path: path.write_text('{"finished": "no"}'),
    "number for a list": lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), "trainings": 5})),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "folder": as_folder,
    "pipe": as_pipe,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_run_resumes_from_the_newest_checkpoint_with_its_copy_of_the_settings(run, capsys, damage):
    held = json.loads((run / "run.json").read_text())["settings"]
    DAMAGES[damage](run / "run.json")
    assert open_run_dir(arguments(run), {"text": "a"}) == str(run / "checkpoint-4")
    out = capsys.readouterr().out
    assert "run.json is damaged or cannot be read: the copy in" in out and "Resuming from" in out
    assert read_settings(run) == held and not is_finished(run)
    DAMAGES[damage](run / "run.json")
    with pytest.raises(ValueError, match="other settings.*text was 'a' and is now 'b'"):
        open_run_dir(arguments(run), {"text": "b"})


def test_io_error_counts_as_damage(run, monkeypatch, capsys):
    read = Path.read_text

    def fail(path, *args, **kwargs):
        if path == run / "run.json":
            raise OSError(errno.EIO, "Input/output error")
        return read(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", fail)
    assert open_run_dir(arguments(run), {"text": "a"}) == str(run / "checkpoint-4")
    assert "damaged or cannot be read" in capsys.readouterr().out


def test_checkpoints_without_a_copy_are_also_resumed_and_a_message_says_that_settings_are_new(tmp_path, capsys):
    train("student", tmp_path, **RUN)  # from Python: no run.json
    (tmp_path / "run.json").write_text("")
    assert open_run_dir(arguments(tmp_path), {}) == str(tmp_path / "checkpoint-4")
    assert "it is rewritten with these settings" in capsys.readouterr().out
    assert read_settings(tmp_path)["max_steps"] == 4


def test_run_without_a_checkpoint_starts_from_the_beginning(tmp_path, capsys):
    (tmp_path / "run.json").write_text("")
    assert open_run_dir(arguments(tmp_path), {}) is None and read_run(tmp_path) is not None
    assert "training starts from the beginning" in capsys.readouterr().out


def test_model_with_a_damaged_run_json_may_be_a_finished_run_and_is_not_overwritten(run):
    (run / "model.safetensors").write_bytes(b"weights")
    (run / "run.json").write_text("")
    with pytest.raises(ValueError, match="run.json is damaged or cannot be read, so it may be a finished run"):
        open_run_dir(arguments(run), {"text": "a"})
    with pytest.raises(ValueError, match="may be a finished run"):
        train("student", run, **RUN, resume=True)
    assert (run / "model.safetensors").read_bytes() == b"weights"


def test_damage_during_training_does_not_keep_the_run_from_finishing(run):
    (run / "run.json").write_text("{")
    train("student", run, **{**RUN, "max_steps": 6}, allow_changed=["max_steps"], resume=True)
    mark_finished(arguments(run))
    assert is_finished(run) and len(checkpoints_of(run)) == 3


def test_settings_of_a_damaged_run_are_not_invented(run):
    (run / "run.json").write_text("{")
    with pytest.raises(ValueError, match="run.json is missing or damaged"):
        read_settings(run)
