"""Checkpoints are complete or absent, and resuming takes the newest complete one."""

import json
import os
import shutil

import pytest
import torch
from helpers import train, write_checkpoint_files
from prepared_data import flip
from safetensors.torch import load_file
from transformers import TrainerCallback

from vidlankd_hf.reliability import checkpointing, manifest
from vidlankd_hf.reliability.checkpointing import (
    agree_on_checkpoint,
    checkpoints_of,
    rotate,
    save_checkpoint,
    verify_checkpoint,
)
from vidlankd_hf.reliability.manifest import Layout

SAVING = {"objectives": {}, "max_steps": 6, "save_strategy": "steps", "save_steps": 2}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train("student", folder, **SAVING)
    return folder


@pytest.fixture
def run(run_folder, tmp_path):
    return shutil.copytree(run_folder, tmp_path / "run")


def names(folder):
    return [checkpoint.name for checkpoint in checkpoints_of(folder)]


def small(folder, step, content="{}", keep=None, best=None, spare=0):
    save_checkpoint(
        folder / f"checkpoint-{step}", lambda part: write_checkpoint_files(part, content), main_process=True,
        expected_bytes=spare, keep=keep, best=best, layout=Layout(),
    )  # fmt: skip


def test_manifest_lists_every_file_and_no_hidden_folder_remains(run):
    assert names(run) == ["checkpoint-6", "checkpoint-4", "checkpoint-2"]
    assert [path.name for path in run.glob(".*")] == [".lock"]
    newest = run / "checkpoint-6"
    listed = json.loads((newest / "manifest.json").read_text())["files"]
    assert set(listed) == {p.relative_to(newest).as_posix() for p in newest.rglob("*") if p.is_file()} - {
        "manifest.json"
    }
    assert {"model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"} <= set(listed)
    assert verify_checkpoint(newest) is None and agree_on_checkpoint(run, saves=True) == str(newest)


@pytest.mark.parametrize(
    "name, damage, said",
    [
        ("model.safetensors", "truncate", "bytes instead of"),
        ("optimizer.pt", "truncate", "bytes instead of"),
        ("model.safetensors", "flip", "sha256"),
        ("optimizer.pt", "flip", "sha256"),
        ("trainer_state.json", "flip", "sha256"),
        ("rng_state.pth", "remove", "is missing"),
        ("manifest.json", "remove", "not written completely"),
        ("manifest.json", "truncate", "damaged"),
    ],
)
def test_damaged_checkpoint_is_skipped_and_the_reason_is_printed(run, run_folder, capsys, name, damage, said):
    path = run / "checkpoint-6" / name
    if damage == "remove":
        path.unlink()
    elif damage == "truncate":
        os.truncate(path, path.stat().st_size // 2)
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert agree_on_checkpoint(run, saves=True) == str(run / "checkpoint-4")
    out = capsys.readouterr().out
    assert "checkpoint-6" in out and said in out
    with pytest.raises(ValueError, match=said):
        train("student", run, resume=str(run / "checkpoint-6"), **SAVING)
    resumed = train("student", run, resume=True, **SAVING)
    assert resumed.state.global_step == 6 and verify_checkpoint(run / "checkpoint-6") is None, (
        "and it is written again, complete"
    )
    again, first = (load_file(folder / "checkpoint-6" / "model.safetensors") for folder in (run, run_folder))
    assert all(torch.equal(again[name], first[name]) for name in first)


def test_name_in_a_manifest_does_not_control_the_terminal(run, capsys):
    manifest = run / "checkpoint-6" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["files"]["a\x1b[2J\0"] = {"bytes": 1, "sha256": ""}
    manifest.write_text(json.dumps(content))
    assert agree_on_checkpoint(run, saves=True) == str(run / "checkpoint-4")
    assert capsys.readouterr().out == f"Skipping {run / 'checkpoint-6'}: a\\x1b[2J\\x00 is missing.\n"


def test_there_is_no_checkpoint_to_resume_from(tmp_path):
    with pytest.raises(ValueError, match="no complete checkpoint"):
        train("student", tmp_path, resume=True, **SAVING)


@pytest.mark.parametrize("moment", ["write", "seal", "manifest", "rename"])
def test_interrupted_save_leaves_no_checkpoint_and_older_ones_untouched(tmp_path, monkeypatch, moment):
    small(tmp_path, 1)

    class Killed(BaseException):
        """Like a kill: the package does not catch it."""

    def die(*args, **kwargs):
        raise Killed

    if moment == "seal":
        monkeypatch.setattr(checkpointing, "seal", die)
    elif moment == "manifest":
        monkeypatch.setattr(manifest, "check_format", die)
    elif moment == "rename":
        monkeypatch.setattr(checkpointing, "_replace", die)
    with pytest.raises(Killed):
        if moment == "write":
            save_checkpoint(tmp_path / "checkpoint-2", die, True, 0, None, None, Layout())
        small(tmp_path, 2)
    assert names(tmp_path) == ["checkpoint-1"] and verify_checkpoint(tmp_path / "checkpoint-1") is None
    monkeypatch.undo()
    checkpointing.remove_leftovers(tmp_path)
    small(tmp_path, 2)
    assert agree_on_checkpoint(tmp_path, saves=True) == str(tmp_path / "checkpoint-2")


@pytest.mark.parametrize("name, content", [("a.json", "{"), ("a.safetensors", "\x08\0\0\0"), ("a.pt", "PK")])
def test_file_that_its_writer_cut_short_makes_no_checkpoint(tmp_path, name, content):
    def write(part):
        with open(os.path.join(part, name), "w") as file:
            file.write(content)

    with pytest.raises(RuntimeError, match="older checkpoints are untouched.*not (a )?complete"):
        save_checkpoint(tmp_path / "checkpoint-1", write, True, 0, None, None, Layout())
    assert not list(tmp_path.iterdir())


def test_disk_without_room_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
    small(tmp_path, 1)
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(RuntimeError, match="needs about .* MiB.*left.*save_total_limit"):
        small(tmp_path / "new", 2, spare=2 * free)
    small(tmp_path, 2, spare=2 * free)  # the size of the older checkpoint replaces the estimate
    monkeypatch.setattr(checkpointing.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(RuntimeError, match="has 0.0 MiB left"):
        small(tmp_path, 3, keep=1)
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-1"]


def test_expected_size_is_about_the_real_one(run_folder):
    trainer = train("student", run_folder / "other", {}, max_steps=1)
    real = sum(p.stat().st_size for p in (run_folder / "checkpoint-6").iterdir())
    guess = checkpointing.expected_bytes(trainer.model, sharded=False)
    assert 0.8 * real < guess + checkpointing.SPARE_BYTES and guess < 1.2 * real


def test_old_checkpoint_goes_only_after_the_new_one_is_in_its_place(tmp_path):
    for step in (1, 2, 3):
        small(tmp_path, step, keep=2)
    assert names(tmp_path) == ["checkpoint-3", "checkpoint-2"]
    with pytest.raises(RuntimeError):
        small(tmp_path, 4, content="{", keep=2)
    assert names(tmp_path) == ["checkpoint-3", "checkpoint-2"] and not list(tmp_path.glob(".*"))


def test_best_checkpoint_stays_and_damaged_ones_do_not_count(tmp_path):
    for step in (1, 2, 3, 4):
        small(tmp_path, step)
    (tmp_path / "checkpoint-3" / "manifest.json").unlink()
    rotate(tmp_path, 2, protected={str(tmp_path / "checkpoint-4"), str(tmp_path / "checkpoint-1")})
    assert names(tmp_path) == ["checkpoint-4", "checkpoint-3", "checkpoint-1"]


def test_old_checkpoint_that_cannot_be_removed_does_not_end_the_run(tmp_path, monkeypatch, capsys):
    small(tmp_path, 1)
    move = checkpointing.move

    def fail(source, target):
        if source == tmp_path / "checkpoint-1":
            raise OSError("Input/output error")
        move(source, target)

    monkeypatch.setattr(checkpointing, "move", fail)
    small(tmp_path, 2, keep=1)
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-1"]
    assert "checkpoint-1 could not be removed: Input/output error" in capsys.readouterr().out


def test_damaged_checkpoint_of_the_same_step_is_replaced(tmp_path):
    small(tmp_path, 1)
    (tmp_path / "checkpoint-1" / "trainer_state.json").write_text("[1")
    small(tmp_path, 1)
    assert verify_checkpoint(tmp_path / "checkpoint-1") is None and names(tmp_path) == ["checkpoint-1"]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["checkpoint-0006", "CHECKPOINT-6", "checkpoint-6.tmp", "checkpoint-６"])
def test_folder_with_another_name_is_no_checkpoint_and_is_kept(run, capsys, name):
    shutil.copytree(run / "checkpoint-2", run / name)
    (run / name / "optimizer.pt").unlink()
    assert agree_on_checkpoint(run, saves=True) == str(run / "checkpoint-6")
    said = f"Skipping {run / name}: rename it to checkpoint-<step> to resume from it"
    assert (said in capsys.readouterr().out) == name[-1].isascii() * name[-1].isdigit()
    rotate(run, 1, protected=set())
    assert names(run) == ["checkpoint-6"] and (run / name / "model.safetensors").exists()


def test_empty_name_of_a_checkpoint_does_not_start_a_new_run(run, capsys):
    with pytest.raises(ValueError, match="cannot resume from '': it has no manifest.json"):
        train("student", run, **SAVING, resume="")
    assert names(run) == ["checkpoint-6", "checkpoint-4", "checkpoint-2"]


def test_link_to_a_checkpoint_on_another_disk_is_resumed_and_removed_without_its_target(run, tmp_path):
    shutil.move(run / "checkpoint-6", tmp_path / "elsewhere")
    (run / "checkpoint-6").symlink_to(tmp_path / "elsewhere")
    assert agree_on_checkpoint(run, saves=True) == str(run / "checkpoint-6")
    for keep, step in ((None, 6), (1, 8)):
        small(run, step, keep=keep)
        (run / f".checkpoint-{step}.old").symlink_to(tmp_path / "elsewhere")  # left by a killed process
    (run / ".seen-token-0").touch()  # left by a start that was killed
    checkpointing.remove_leftovers(run)
    assert [path.name for path in run.glob(".*")] == [".lock"]
    (run / "checkpoint-10").write_text("a file")
    small(run, 10, keep=1)
    assert [path.name for path in run.iterdir() if "checkpoint" in path.name] == ["checkpoint-10"]
    assert (tmp_path / "elsewhere" / "model.safetensors").exists()


def test_clock_that_jumps_back_changes_nothing(tmp_path, monkeypatch):
    expected = train("student", tmp_path / "undisturbed", **SAVING)
    times = iter(range(2_000_000_000, 0, -1000))
    monkeypatch.setattr("time.time", lambda: float(next(times)))
    monkeypatch.setattr("time.time_ns", lambda: next(times) * 10**9)
    train("student", tmp_path / "run", **SAVING, stop_after=4)
    for age, checkpoint in enumerate(checkpoints_of(tmp_path / "run")):
        os.utime(checkpoint, (age, age))  # the newest checkpoint has the oldest time
    trainer = train("student", tmp_path / "run", **SAVING, resume=True)
    assert trainer._resumed_from.endswith("checkpoint-4") and names(tmp_path / "run")[0] == "checkpoint-6"
    weights = expected.model.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in trainer.model.state_dict().items())


class EarlierIsBetter(TrainerCallback):
    def on_evaluate(self, args, state, control, metrics, **kwargs):
        metrics["eval_loss"] = float(state.global_step)


BEST = {
    "objectives": {}, "max_steps": 3, "save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps",
    "eval_steps": 1, "load_best_model_at_end": True, "metric_for_best_model": "loss", "callbacks": [EarlierIsBetter()],
}  # fmt: skip


@pytest.mark.parametrize("way", ["moved", "copied", "linked"])
def test_run_that_was_moved_ends_with_its_best_weights(tmp_path, way):
    expected = train("student", tmp_path / "run", **BEST)
    assert expected.state.best_global_step == 1
    folder = tmp_path / "elsewhere" / "run"
    folder.parent.mkdir()
    if way == "linked":
        folder.symlink_to(tmp_path / "run")
    else:
        shutil.copytree(tmp_path / "run", folder)
    if way == "moved":
        shutil.rmtree(tmp_path / "run")
    trainer = train("student", folder, **BEST, resume=True)
    assert trainer.state.best_model_checkpoint == str(folder / "checkpoint-1")
    weights = expected.model.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in trainer.model.state_dict().items())


@pytest.mark.parametrize("damage", ["gone", "flipped"])
def test_run_whose_best_checkpoint_is_damaged_is_refused(tmp_path, damage):
    train("student", tmp_path, **BEST)
    best = tmp_path / "checkpoint-1"
    if damage == "gone":
        shutil.rmtree(best)
    else:
        flip(best / "model.safetensors", 5000)
    with pytest.raises(ValueError, match="best checkpoint is .*checkpoint-1, but .* --load_best_model_at_end false"):
        train("student", tmp_path, **BEST, resume=True)
    allowed = {"load_best_model_at_end": False, "allow_changed": ["load_best_model_at_end"]}
    assert train("student", tmp_path, **{**BEST, **allowed}, resume=True).state.global_step == 3


def test_best_model_is_recorded_under_its_final_name(tmp_path):
    options = {**SAVING, "eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True,
               "metric_for_best_model": "loss", "save_total_limit": 2}  # fmt: skip
    trainer = train("student", tmp_path, **options)
    best = trainer.state.best_model_checkpoint
    assert best == str(tmp_path / f"checkpoint-{trainer.state.best_global_step}") and verify_checkpoint(best) is None
    state = json.loads((tmp_path / "checkpoint-6" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == best


def test_finished_model_comes_with_its_weights_last(tmp_path, monkeypatch):
    trainer = train("student", tmp_path, {}, max_steps=1)
    moved, replace = [], os.replace

    def watch(source, target):
        moved.append(os.path.basename(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watch)
    trainer.save_model()
    assert moved[-1] == "model.safetensors" and {"config.json", "tokenizer.json", "README.md"} <= set(moved)
    assert not (tmp_path / ".model.part").exists() and ".model.part" not in (tmp_path / "README.md").read_text()
