"""The demo: which runs it makes, in which order."""

import pytest

from vidlankd_hf.experiments.grid import ExperimentRun
from vidlankd_hf.experiments.world import demo
from vidlankd_hf.experiments.world.demo import runs_of, steps_of
from vidlankd_hf.experiments.world.recipe import STUDENT_RECIPE


def option(run, name):
    return run.arguments[run.arguments.index(f"--{name}") + 1]


def by_name(folder, thorough):
    return {made.run.folder.name: made.run for made in runs_of(1, folder, thorough)}


@pytest.mark.parametrize("thorough", [False, True])
def test_every_student_continues_the_language_model_for_equally_many_steps(tmp_path, thorough):
    students = [made for made in runs_of(1, tmp_path, thorough) if made.run.folder.parent.name == "students"]
    assert {"text_only", "shuffled", "nst", "crd"} <= {made.run.folder.name for made in students}
    for made in students:
        run = made.run
        assert option(run, "student") == str(tmp_path / "language_model") and "language_model" in made.needs
        assert run.settings["max_steps"] == STUDENT_RECIPE["max_steps"] and "--max_steps" not in run.arguments
        assert made.row["model"] == run.folder.name


def test_every_run_waits_for_the_models_and_the_world_that_it_reads(tmp_path):
    made = set()
    for entry in runs_of(1, tmp_path, thorough=True):
        run = entry.run
        read = {option(run, name) for name in ("world", "teacher", "student") if f"--{name}" in run.arguments}
        needed = {str(tmp_path / name) for name in entry.needs}
        assert {path for path in read if path.startswith(str(tmp_path))} <= {*needed, str(tmp_path / "world")}
        assert needed <= made
        made.add(str(run.folder))


def test_only_the_world_runs_alone(tmp_path):
    steps = steps_of(1, tmp_path, True, print)
    assert [step.name for step in steps if step.alone] == [str(tmp_path / "world")]


def test_language_model_learns_from_text_alone(tmp_path):
    runs = by_name(tmp_path, False)
    assert option(runs["language_model"], "objectives") == "{}" and option(runs["language_model"], "student") == "tiny"
    assert runs["language_model"].settings["max_steps"] > STUDENT_RECIPE["max_steps"]


def test_the_papers_student_has_its_weights_and_its_teacher(tmp_path):
    runs = by_name(tmp_path, True)
    assert option(runs["paper"], "teacher") == str(tmp_path / "hinge_teacher")
    assert option(runs["hinge_teacher"], "contrast") == "hinge" and option(runs["paper"], "teacher_input") == "masked"
    assert {name: o["weight"] for name, o in runs["paper"].settings["objectives"].items()} == {"nst": 1.0, "crd": 1.0}


def test_steps_keep_the_rows_of_teachers_and_students(tmp_path, monkeypatch):
    scores = [{"attribute": "colour", "accuracy": 0.5}, {"attribute": "shape", "accuracy": 0.25}]
    monkeypatch.setattr(ExperimentRun, "make", lambda run, quiet, launcher=None, gpu=None: None)
    monkeypatch.setattr(demo, "probe", lambda *args: scores)
    monkeypatch.setattr(demo, "held_out_language", lambda folder: {"mlm_loss": 1.0})
    rows = []
    for step in steps_of(1, tmp_path, False, rows.extend):
        assert str(tmp_path) in step.work(quiet=True, gpu=None)
    assert [row["model"] for row in rows[::2]] == ["teacher", "text_only", "nst", "crd", "shuffled"]
    assert [("mlm_loss" in row) for row in rows[::2]] == [False, True, True, True, True]
    assert rows[2] == {"model": "text_only", "weights": {}, "seed": 1, **scores[0], "mlm_loss": 1.0}
