"""Training curves: each component of the loss by its name, in TensorBoard, in Trackio, and drawn from a run alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import example, train
from PIL import Image

from vidlankd_hf.hub.curves import read_curves

ROOT = Path(__file__).parents[2]

OBJECTIVES = {"nst": 10.0, "crd": 1.0}
COMPONENTS = ("loss", "mlm_loss", "nst_loss", "crd_loss")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A student's run that reported to TensorBoard, and its trainer."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORBOARD_LOGGING_DIR", str(folder / "board"))
        trainer = train("student", folder / "student", OBJECTIVES, report_to="tensorboard", eval_strategy="epoch")
    trainer.evaluate()
    trainer.save_state()
    return folder, trainer


def test_tensorboard_gets_every_component_by_its_name(run):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder, trainer = run
    events = event_accumulator.EventAccumulator(str(next((folder / "board").rglob("events.*")).parent))
    events.Reload()
    for name in COMPONENTS:
        seen = {event.step: event.value for event in events.Scalars(f"train/{name}")}
        assert seen == pytest.approx({e["step"]: e[name] for e in trainer.state.log_history if name in e}, rel=1e-5)
        assert len(seen) == 3 and f"eval/{name}" in events.Tags()["scalars"]


@pytest.mark.slow
def test_trackio_gets_every_component_by_its_name(tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "from helpers import train\n"
        "import trackio\n"
        f"train('student', sys.argv[3], {OBJECTIVES}, report_to='trackio', project='curves', run_name='one')\n"
        "from trackio.sqlite_storage import SQLiteStorage\n"
        "rows = [row for row in SQLiteStorage.get_logs('curves', 'one')]\n"
        "print('LOGGED', sorted({name for row in rows for name in row}))\n"
    )
    command = [sys.executable, "-c", code, str(ROOT), str(ROOT / "tests"), str(tmp_path / "student")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in COMPONENTS:
        assert f"'train/{name}'" in done.stdout.partition("LOGGED")[2]


def test_curves_are_read_from_a_run_finished_or_not(run, tmp_path):
    folder, trainer = run
    curves = read_curves(folder / "student")
    for name in COMPONENTS:
        assert curves[name] == [(e["step"], e[name]) for e in trainer.state.log_history if name in e]
    assert curves["eval_mlm_loss"][-1][0] == 3
    for step in (2, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        state = {"log_history": [{"step": step, "epoch": 1, "loss": float(step)}]}
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(state))
    assert read_curves(tmp_path) == {"loss": [(10, 10.0)]}


def test_plot_run_draws_several_runs_on_one_axis_and_says_what_it_made(run, tmp_path, monkeypatch, capsys):
    folder, _ = run
    other = tmp_path / "other"
    other.mkdir()
    history = [{"step": step, "loss": 5.0 / step, "mlm_loss": 5.0 / step} for step in (1, 2, 3)]
    (other / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    monkeypatch.chdir(tmp_path)

    def plot(*arguments):
        monkeypatch.setattr(sys, "argv", ["plot_run.py", *map(str, arguments)])
        example("plot_run").main()
        return capsys.readouterr().out

    def refused(*arguments):
        with pytest.raises(SystemExit):
            plot(*arguments)
        return capsys.readouterr().err

    said = plot("--runs", folder / "student", other, "--output", tmp_path / "both.png")
    assert "The curves of 2 runs are in" in said and "loss, crd_loss, mlm_loss, nst_loss" in said
    assert "3 steps" in said and "loss 1.667" in said
    with Image.open(tmp_path / "both.png") as picture:
        colors = {color for _, color in picture.convert("RGB").getcolors(2**24)}
    assert {(0x1C, 0x5F, 0xA8), (0xC2, 0x57, 0x1A)} <= colors
    assert "no run logged 'blue_loss'" in refused("--runs", other, "--metrics", "blue_loss")
    assert "has no trainer_state.json" in refused("--runs", tmp_path / "nowhere")
    assert "there is no run in outputs/teacher or outputs/student" in refused()
