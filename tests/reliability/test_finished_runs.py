"""A trainer used from Python never overwrites a finished run, except its own."""

import json
import os
import signal
import time

import pytest
import torch
from helpers import make_texts, train
from safetensors import SafetensorError
from safetensors.torch import load_file

from vidlankd_hf.hub import model_cards

RUN = {"objectives": {}, "max_steps": 2, "save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "constant"}


@pytest.fixture
def finished(tmp_path):
    trainer = train("student", tmp_path / "run", **RUN)
    trainer.save_model()
    return trainer, tmp_path / "run"


def test_another_trainer_neither_trains_nor_saves_into_a_finished_run(finished, tmp_path):
    _, folder = finished
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for resume in (None, True):
        with pytest.raises(ValueError, match="holds a finished run: choose another --output_dir"):
            train("student", folder, **RUN, resume=resume)
    other = train("student", tmp_path / "other", **RUN)
    for write in (lambda: other.save_model(str(folder)), other.push_to_hub, other.create_model_card):
        other.args.output_dir = str(folder)
        with pytest.raises(ValueError, match="holds a finished run"):
            write()
    assert files == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_trainer_continues_with_its_own_finished_run(finished, tmp_path):
    trainer, folder = finished
    before = load_file(folder / "model.safetensors")
    trainer.args.max_steps, trainer.args.allow_changed = 3, ["max_steps"]
    trainer.train(resume_from_checkpoint=True)
    trainer.save_model()
    trainer.save_model(str(tmp_path / "elsewhere"))
    trainer.save_model(str(tmp_path / "elsewhere"))
    trainer.create_model_card()
    after = load_file(folder / "model.safetensors")
    assert trainer.state.global_step == 3 and any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("method", ["_save", "write_card"])
def test_full_disk_during_the_final_save_is_one_message_and_the_same_run_saves_later(tmp_path, monkeypatch, method):
    trainer = train("student", tmp_path / "run", **RUN)
    with monkeypatch.context() as patch:

        def full(*given, **more):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

        patch.setattr(trainer, method, full)
        with pytest.raises(RuntimeError, match="run has no new model, its checkpoints are untouched: .*No space left"):
            trainer.save_model()
    assert not list((tmp_path / "run").glob("*.safetensors"))
    again = train("student", tmp_path / "run", **RUN, resume=True)
    again.save_model()
    assert load_file(tmp_path / "run" / "model.safetensors").keys() and not (tmp_path / "run" / ".model.part").exists()


def test_signal_while_the_figure_of_the_card_is_drawn_leaves_a_run_that_finishes_later(tmp_path, finished):
    pid = os.fork()
    if pid == 0:
        try:
            torch.set_num_threads(1)
            trainer = train("student", tmp_path / "stopped", **RUN)

            def draw(name, log_history, output):
                output.write_bytes(b"half a figure")
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)

            model_cards.draw_losses = draw
            trainer.save_model()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    assert not list((tmp_path / "stopped").glob("*.safetensors"))
    again = train("student", tmp_path / "stopped", **RUN, resume=True)
    again.save_model()
    assert (tmp_path / "stopped" / model_cards.FIGURE_FILE).read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "stopped" / ".model.part").exists()
    weights = load_file(tmp_path / "stopped" / "model.safetensors")
    assert all(
        torch.equal(weights[name], tensor)
        for name, tensor in load_file(tmp_path / "run" / "model.safetensors").items()
    )


def test_finished_run_may_be_evaluated(finished, tmp_path):
    trainer, folder = finished
    other = train("student", tmp_path / "other", **RUN)
    other.args.output_dir = str(folder)
    assert other.evaluate(make_texts(13, seed=1))["eval_loss"] == trainer.evaluate()["eval_loss"]


@pytest.mark.parametrize("done", [True, False])
def test_run_json_decides_whether_a_run_is_finished(finished, done):
    """A script that was killed between saving the model and marking its run as finished may be started again."""
    _, folder = finished
    (folder / "run.json").write_text(json.dumps({"finished": done, "settings": {}}))
    if done:
        with pytest.raises(ValueError, match="finished run"):
            train("student", folder, **RUN, resume=True)
    else:
        train("student", folder, **RUN, resume=True).save_model()


def test_unfinished_run_is_resumed(tmp_path):
    train("student", tmp_path, **{**RUN, "max_steps": 4}, stop_after=1)
    assert train("student", tmp_path, **{**RUN, "max_steps": 4}, resume=True).state.global_step == 4
