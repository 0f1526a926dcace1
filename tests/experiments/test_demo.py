"""The demo: which runs it makes, in which order."""

import pytest

from vidlankd_hf.experiments.world.demo import stages_of
from vidlankd_hf.experiments.world.recipe import STUDENT_RECIPE


def option(run, name):
    return run.arguments[run.arguments.index(f"--{name}") + 1]


@pytest.mark.parametrize("thorough", [False, True])
def test_every_student_continues_the_language_model_for_equally_many_steps(tmp_path, thorough):
    *earlier, students = stages_of(1, tmp_path, thorough)
    made = {run.folder for stage in earlier for run, _ in stage}
    assert {"text_only", "shuffled", "nst", "crd"} <= {run.folder.name for run, _ in students}
    for run, row in students:
        assert option(run, "student") == str(tmp_path / "language_model") and tmp_path / "language_model" in made
        assert run.settings["max_steps"] == STUDENT_RECIPE["max_steps"] and "--max_steps" not in run.arguments
        assert row["model"] == run.folder.name


def test_every_run_needs_only_earlier_stages(tmp_path):
    made = set()
    for stage in stages_of(1, tmp_path, thorough=True):
        for run, _ in stage:
            needed = [option(run, name) for name in ("world", "teacher", "student") if f"--{name}" in run.arguments]
            assert {path for path in needed if path.startswith(str(tmp_path))} <= made
        made |= {str(run.folder) for run, _ in stage}


def test_language_model_learns_from_text_alone(tmp_path):
    runs = {run.folder.name: run for stage in stages_of(1, tmp_path, False) for run, _ in stage}
    assert option(runs["language_model"], "objectives") == "{}" and option(runs["language_model"], "student") == "tiny"
    assert runs["language_model"].settings["max_steps"] > STUDENT_RECIPE["max_steps"]


def test_the_papers_student_has_its_weights_and_its_teacher(tmp_path):
    runs = {run.folder.name: run for stage in stages_of(1, tmp_path, True) for run, _ in stage}
    assert option(runs["paper"], "teacher") == str(tmp_path / "hinge_teacher")
    assert option(runs["hinge_teacher"], "contrast") == "hinge" and option(runs["paper"], "teacher_input") == "masked"
    assert {name: o["weight"] for name, o in runs["paper"].settings["objectives"].items()} == {"nst": 1.0, "crd": 1.0}
