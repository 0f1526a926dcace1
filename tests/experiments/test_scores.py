"""Scores of students on tasks: how they are made, stored and summarized."""

import json

import pytest
import yaml
from downstream_data import make_data
from experiment_data import BAD, GOOD, HALF, entry, kept_scores, result, scoring_of, tuned
from helpers import refusal

from vidlankd_hf.evaluation.significance import paired_test
from vidlankd_hf.experiments.ablations import report
from vidlankd_hf.experiments.ablations.runs import SeedRuns
from vidlankd_hf.experiments.ablations.scores import column_values, read_scores, read_scoring
from vidlankd_hf.experiments.ablations.tables import ROWS


def test_a_score_is_the_mean_over_all_runs_with_spread_collapsed_runs_and_a_test_against_text_only():
    value = column_values(kept_scores(), "crd", "text_only")["sst2"]
    assert value["mean"] == pytest.approx((100 + 100 + 100 + 50) / 4) and value["runs"] == 4
    assert value["std"] == pytest.approx(25.0) and value["collapsed"] == 0
    labels = {"labels": [0, 1] * 40}
    joined = [[{"predictions": a + b, **labels} for a, b in pairs] for pairs in (
        [(HALF, HALF), (BAD, HALF)], [(GOOD, GOOD), (GOOD, HALF)]
    )]  # fmt: skip
    assert value["p"] == paired_test("accuracy", *joined) < 0.01
    text = column_values(kept_scores(), "text_only", "text_only")["sst2"]
    assert text["p"] is None and text["collapsed"] == 1 and text["mean"] == 50


def test_other_splits_and_methods_without_fine_tuning_are_columns_too():
    diagnostics = {"GLUE diagnostics": {"matthews_correlation": 0.2, "Logic": None}}
    zero = {"size": 4, "probe": {"accuracy": 0.5, "right": [True, False] * 2}, "masked": None}
    kept = {1: {"crd": {"mnli": entry("mnli", [tuned(1, GOOD, **diagnostics)]), "coda": entry("coda", [zero])}}}
    values = column_values(kept, "crd", "text_only")
    assert set(values) == {
        "mnli", "mnli/GLUE diagnostics/matthews_correlation", "coda/probe"
    }  # fmt: skip
    assert values["mnli/GLUE diagnostics/matthews_correlation"]["mean"] == 20
    assert values["coda/probe"]["mean"] == 50 and values["coda/probe"]["p"] is None


def test_only_the_learning_rate_with_the_best_median_counts():
    runs = [tuned(1, GOOD), tuned(1, BAD, "constant", rate=1e-3)]
    value = column_values({1: {"crd": {"sst2": entry("sst2", runs)}}}, "crd", "text_only")["sst2"]
    assert value["mean"] == 100 and value["collapsed"] == 0


def test_ablation_table_shows_the_tasks_next_to_the_loss_with_marks(tmp_path):
    results = {seed: {name: result(name) for name in ("text_only", "crd")} for seed in (1, 2)}
    text = report.write_table("continue", results, tmp_path, kept_scores()).read_text()
    assert "| SST2 | MLM loss |" in text
    assert "| text only | 50.0 ± 0.0 (1 of 4 collapsed) | 2.00 ± 0.00 |" in text
    assert f"| {ROWS['crd'].label} | 87.5 ± 25.0* | 2.00 ± 0.00 |" in text and report.LEGEND in text
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert rows[1]["tasks"]["sst2"]["mean"] == 87.5
    assert report.LEGEND not in report.write_table("continue", results, tmp_path).read_text()


def test_scores_are_kept_without_the_models_and_refused_if_made_with_other_settings(tmp_path, own_tasks):
    scoring, task = scoring_of(tmp_path, seeds=2)
    runs = SeedRuns(1, tmp_path / "models", tmp_path / "results")
    folder = scoring.run(runs, "crd", task).folder / "crd" / "moods"
    for seed in (1, 2, 3):  # the third is of an earlier run with more seeds
        place = folder / "lr-0.0001" / f"seed-{seed}"
        place.mkdir(parents=True)
        (place / "result.json").write_text(json.dumps(tuned(seed, GOOD)))
    assert not scoring.is_kept(runs, "crd", task)
    scoring.keep(runs, "crd", task)
    assert scoring.is_kept(runs, "crd", task)
    held = read_scores(tmp_path / "results")["crd"]["moods"]
    assert [run["seed"] for run in held["runs"]] == [1, 2] and held["title"] == "moods"
    assert report.read_kept(tmp_path) == {}, "scores are not results of students"
    other, _ = scoring_of(tmp_path, seeds=1)
    with pytest.raises(ValueError, match="'seeds': 2.*but this run has.*--results"):
        other.is_kept(runs, "crd", task)


def test_command_that_scores_a_student_has_the_options_of_the_file_for_its_task(tmp_path):
    section = {"tasks": ["sst2", "rte"], "data": str(make_data(tmp_path / "data")), "seeds": 2}
    section |= {"train_rows": ["sst2=100", "rte=50"], "finetune_options": {"max_steps": 9}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"evaluate_all": section}, sort_keys=False))
    scoring = read_scoring(str(tmp_path / "c.yaml"), None, None, None)
    runs = SeedRuns(1, tmp_path / "models", tmp_path / "results")
    run = scoring.run(runs, "crd", "rte")
    assert " ".join(run.arguments) == (
        f"--models {tmp_path}/models/students/crd --names crd --tasks rte --data {tmp_path}/data --seeds 2 "
        f'--finetune_options {{"max_steps": 9}} --train_rows rte=50 --output_dir {tmp_path}/models/scores/crd/rte '
        "--no_card"
    )
    assert scoring.run(runs, "nst", "sst2").folder != scoring.run(runs, "crd", "sst2").folder != run.folder


@pytest.mark.parametrize(
    "words, message",
    [
        (["--tasks", "sst3"], "did you mean sst2"),
        (["--tasks", "world", "--data", "glue"], "--data glue has no effect"),
        (["--slurm", "gpu"], "not JSON of submitit parameters"),
        (["--slurm", "{}", "--jobs", "2"], "--jobs is for this machine"),
        (["--jobs", "-1"], "--jobs is -1"),
    ],
)
def test_mistakes_are_errors_before_anything_is_trained(monkeypatch, tmp_path, words, message):
    assert message in refusal(monkeypatch, "reproduce", *words, "--output_dir", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_option_that_the_experiment_chooses_is_refused_in_the_file(tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"evaluate_all": {"tasks": ["rte"], "models": ["x"]}}))
    with pytest.raises(ValueError, match="has models, which this command chooses"):
        read_scoring(str(tmp_path / "c.yaml"), None, None, None)
