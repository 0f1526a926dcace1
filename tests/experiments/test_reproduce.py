"""The paper's experiment: its plan and cost, the scores of its students, its tables, and a complete small one."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from downstream_data import make_data
from helpers import example, refusal
from task_files import write_table, write_task

from vidlankd_hf.evaluation import TASKS
from vidlankd_hf.evaluation.significance import paired_test
from vidlankd_hf.experiments.ablations import report
from vidlankd_hf.experiments.ablations.experiment import Experiment
from vidlankd_hf.experiments.ablations.runs import SeedRuns
from vidlankd_hf.experiments.ablations.scores import column_values, read_scores, read_scoring
from vidlankd_hf.experiments.ablations.tables import ROWS, TEACHERS
from vidlankd_hf.experiments.flops import teacher_step_flops
from vidlankd_hf.experiments.reproduce.cost import COUNTS_FILE, Estimator, processes_of, write_plan
from vidlankd_hf.experiments.reproduce.paper import PUBLISHED, TABLES
from vidlankd_hf.experiments.reproduce.planned_runs import PlannedRuns
from vidlankd_hf.experiments.reproduce.tables import fill_table, write_tables
from vidlankd_hf.experiments.script_arguments import ReproductionArguments
from vidlankd_hf.experiments.world.recipe import STUDENT_RECIPE, TEACHER_RECIPE

ROOT = Path(__file__).parents[2]


@pytest.fixture
def own_tasks():
    """Removes the tasks that a test adds."""
    before = set(TASKS)
    yield
    for name in set(TASKS) - before:
        del TASKS[name]


def test_tables_of_the_paper_hold_known_students_and_start_with_the_text_only_one():
    assert list(TABLES) == [*range(1, 10)]
    for table in TABLES.values():
        assert table.rows[0] == "text_only" and set(table.rows) <= set(ROWS)
    assert not set(ROWS) & set(TEACHERS), "both are names of steps"


# Scores


def entry(task, runs, percent=False, identity=None):
    return {"task": task, "title": task.upper(), "percent": percent, "identity": identity, "runs": runs}


def tuned(seed, predictions, collapsed=None, rate=1e-4, **other_splits):
    labels = [0, 1] * (len(predictions) // 2)
    score = float(np.mean(np.array(predictions) == labels))
    return {
        "seed": seed, "learning_rate": rate, "metric": "accuracy", "score": score, "collapsed": collapsed,
        "scores": {"validation": {"accuracy": score}, **other_splits}, "seconds": 36.0,
        "examples": {"predictions": predictions, "labels": labels},
    }  # fmt: skip


GOOD, HALF, BAD = [0, 1] * 20, [0, 1] * 10 + [1, 0] * 10, [0] * 40


def kept_scores():
    """Two seeds of training, two of fine-tuning."""
    student = [[tuned(1, GOOD), tuned(2, GOOD)], [tuned(1, GOOD), tuned(2, HALF)]]
    text = [[tuned(1, HALF), tuned(2, BAD, "constant")], [tuned(1, HALF), tuned(2, HALF)]]
    return {
        seed: {"text_only": {"sst2": entry("sst2", text[i])}, "crd": {"sst2": entry("sst2", student[i])}}
        for i, seed in enumerate((1, 2))
    }


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


def result(name, **more):
    cost = {"mlm_loss": 2.0, "steps": 10, "tflop": 1.5, "sequences_per_step": 32, "seconds": 3.0}
    return {"teacher": TEACHERS[ROWS[name].teacher], **cost, **more}


def scoring_of(tmp_path, **section):
    for split in ("train", "dev"):
        write_table(tmp_path / f"{split}.tsv", [{"text": f"word{i}", "label": "ab"[i % 2]} for i in range(8)])
    files = {"train": "train.tsv", "dev": "dev.tsv"}
    task = write_task(tmp_path / "moods.yaml", kind="classification", files=files, labels=["a", "b"])
    (tmp_path / "tasks.yaml").write_text(yaml.safe_dump({"evaluate_all": {"task_file": [str(task)], **section}}))
    return read_scoring(str(tmp_path / "tasks.yaml"), None, None, None), str(task)


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


# Plan and cost


@pytest.fixture
def own_data(tiny_world, tmp_path):
    """Settings of own data, whose captions are streamed."""
    common = {"max_steps": 4, "warmup_steps": 0, "use_cpu": True, "per_device_train_batch_size": 4}
    sections = {
        "pretrain_teacher": {
            "features": f"{tiny_world}/features", "captions": f"{tiny_world}/captions.jsonl",
            "tokenizer": f"{tiny_world}/tokenizer", "text_model": "tiny", "max_length": 32, "streaming": True,
            "cache_dir": f"{tmp_path}/cache", **common,
        },
        "distill": {
            "text": f"{tiny_world}/text", "student": "tiny", "block_tokens": 30, "cache_dir": f"{tmp_path}/cache",
            **common,
        },
    }  # fmt: skip
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path


def experiment_of(tmp_path, config=None, tables=(1,), runs_class=SeedRuns, **options):
    names = list(dict.fromkeys(name for number in tables for name in TABLES[number].rows))
    scoring = read_scoring(None if config is None else str(config), options.pop("tasks", None), None, None)
    args = ReproductionArguments(output_dir=str(tmp_path / "out"), **options)
    return Experiment(args, names, None if config is None else str(config), scoring, runs_class)


def test_steps_hold_teachers_before_students_before_scores_for_every_seed(tmp_path):
    steps = experiment_of(tmp_path, tables=[6], seeds=[1, 2], tasks=["world"]).steps()
    needs = {step.name: step.needs for step in steps}
    assert needs["seed 2, world"] == () and needs["seed 2, image_teacher"] == ("seed 2, world",)
    assert needs["seed 2, by_image_teacher"] == ("seed 2, image_teacher", "seed 2, bert_language_model")
    assert needs["seed 2, by_image_teacher on world"] == ("seed 2, by_image_teacher",)
    places = {step.name: i for i, step in enumerate(steps)}
    assert all(places[need] < places[name] for name in needs for need in needs[name])
    assert len(steps) == 2 * (1 + 4 + 1 + 5 + 5)  # the 1s: world and language model


def test_only_what_has_no_stored_result_is_made(tmp_path):
    experiment = experiment_of(tmp_path, tables=[8], tasks=["world"])
    runs = experiment.runs[1]
    for name in ("text_only", "crd"):
        path = runs.results / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**runs.identity(name), "steps": 3}))
    path = runs.results / "scores" / "crd" / "world.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(entry("world", [tuned(1, GOOD)], identity=experiment.scoring.identity("world"))))
    names = {step.name.removeprefix("seed 1, ") for step in experiment.steps()}
    assert names == {
        *("world", "teacher", "bert_language_model"),
        *("continue", "text_only", "continue on world", "text_only on world"),
    }, "the text-only student is trained again only if its folder is gone; crd needs nothing"  # fmt: skip


def test_streamed_own_data_have_the_shuffled_control_and_are_prepared_first(tmp_path, own_data):
    experiment = experiment_of(tmp_path, own_data, tables=[1])
    first = example("reproduce").preparation_step(experiment, str(own_data))
    steps = {step.name: step for step in experiment.steps(first)}
    assert next(iter(steps)) == "preparation" and "seed 1, world" not in steps
    assert steps["seed 1, shuffled_teacher"].needs == ("preparation",)
    run = experiment.runs[1].teacher_run("shuffled_teacher")
    assert run.arguments[-2:] == ["--shuffle_videos", "True"] and run.settings["streaming"] is True


def test_section_without_data_changes_the_recipe_of_the_grounded_world(tmp_path):
    path = tmp_path / "c.yaml"
    sections = {"make_world": {"num_nouns": 48}, "pretrain_teacher": {"max_steps": 7}}
    path.write_text(yaml.safe_dump(sections))
    runs = experiment_of(tmp_path, path).runs[1]
    assert runs.world_run().settings == {"num_nouns": 48, "seed": 1}
    assert runs.teacher_run("teacher").settings == {**TEACHER_RECIPE, "max_steps": 7, "seed": 1}
    assert str(path) in runs.teacher_run("teacher").arguments
    assert runs.student_recipe == STUDENT_RECIPE and runs.teacher_recipe["max_steps"] == 7
    sections["pretrain_teacher"]["captions"] = "captions.srt"
    path.write_text(yaml.safe_dump(sections))
    with pytest.raises(ValueError, match="section pretrain_teacher.*lacks features, tokenizer"):
        experiment_of(tmp_path, path)


@pytest.mark.slow
def test_planned_models_have_the_shapes_of_trained_ones(tmp_path, tiny_world, own_data):
    runs = PlannedRuns(1, tmp_path / "models", tmp_path / "results", str(own_data))
    teacher = runs.teacher_model("teacher")
    assert teacher.config.text_config.vocab_size == len(TOKENIZER(tiny_world))
    assert teacher.config.video_config.feature_size == 64 + 192 and teacher.device.type == "meta"
    assert runs.teacher_model("text_teacher").video_encoder is None
    assert runs.teacher_model("frame_teacher").config.video_config.feature_size == 64
    continued, _ = runs._models("continue")
    assert continued.config.hidden_size == teacher.config.hidden_size
    command = runs.student_run("text_only_equal_compute").arguments
    steps = int(command[command.index("--max_steps") + 1])
    assert steps == round(4 * runs._sequence_flops("crd") / runs._sequence_flops("text_only")) > 4


def TOKENIZER(world):
    from vidlankd_hf.data.vocabulary import load_tokenizer

    return load_tokenizer(str(world / "tokenizer"))


def test_flops_of_a_teachers_step_are_those_of_the_cost_model(tmp_path, own_data):
    """docs/scaling.md: 128 x (3 encoder + head) for the text, 3T (2FP + 2PH + N (8H² + 4HI + 4TH)) for the video."""
    runs = PlannedRuns(1, tmp_path / "models", tmp_path / "results", str(own_data))
    teacher = runs.teacher_model("teacher")
    layers, width, inner, length, video, features, projection = 2, 128, 512, 32, 10, 256, 1024
    vocabulary = teacher.config.text_config.vocab_size

    def encoder(positions):
        return layers * (8 * width**2 + 4 * width * inner + 4 * positions * width)

    text = length * 3 * encoder(length) + 3 * 4 * 2 * (width**2 + vocabulary * width)
    clip = 3 * video * (2 * features * projection + 2 * projection * width + encoder(video))
    counted = teacher_step_flops(teacher, 2, length, video)
    assert counted == pytest.approx(2 * (text + clip), rel=0.05)
    assert teacher_step_flops(runs.teacher_model("text_teacher"), 2, length, video) < 0.8 * counted


def estimates(experiment, tflops=None):
    estimator, lines = Estimator(experiment, tflops), []
    costs = {step.name.removeprefix("seed 1, "): estimator.cost(step) for step in experiment.steps()}
    write_plan([*costs.values()], estimator, lines.append)
    return costs, "\n".join(lines)


def test_plan_has_every_command_with_its_cost_at_the_given_rate(tmp_path, own_data):
    experiment = experiment_of(tmp_path, own_data, [8], PlannedRuns, launcher="accelerate launch --num_processes 2")
    experiment.names = ["crd"]
    costs, text = estimates(experiment, tflops=0.5)
    crd, runs = costs["crd"], experiment.runs[1]
    assert crd.steps == 4 and crd.flops == pytest.approx(4 * 4 * 2 * runs._sequence_flops("crd"))
    assert crd.hours == pytest.approx(crd.flops / 0.5e12 / 3600)
    assert crd.command.startswith("accelerate launch --num_processes 2 -m vidlankd_hf.examples.distill --config")
    parameters = sum(p.numel() for p in runs._models("crd")[0].parameters())
    assert crd.gigabytes == pytest.approx(4e-9 * parameters), "4 steps, and no checkpoint before the end"
    assert all(cost.command in text and f"seed 1, {name}: " in text for name, cost in costs.items())
    assert f"{len(costs)} runs. In all: " in text and "Rate of a student: 0.5 TFLOP/s, given by --tflops." in text


@pytest.mark.slow
def test_rates_are_measured_on_finished_runs_and_what_is_done_costs_nothing(tmp_path, own_data):
    experiment = experiment_of(tmp_path, own_data, [6], PlannedRuns)
    experiment.names = ["crd", "by_shuffled_teacher"]
    costs, text = estimates(experiment)
    assert costs["crd"].hours is None and "unknown: no run is finished, and --tflops is not given" in text
    runs = experiment.runs[1]
    runs.results.mkdir(parents=True)
    stored = {**runs.identity("nst"), "tflop": 6.0, "seconds": 3.0}
    (runs.results / "nst.json").write_text(json.dumps(stored))
    folder = runs.folder / "teacher"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"finished": True, "settings": {}}))
    state = {"global_step": 4, "log_history": [{"train_runtime": 2.0}]}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    half = runs.folder / "shuffled_teacher" / "checkpoint-3"
    half.mkdir(parents=True)
    costs, text = estimates(experiment, tflops=9.0)
    assert costs["crd"].hours == pytest.approx(costs["crd"].flops / 2e12 / 3600)
    assert "Rate of a student: 2 TFLOP/s, the median of 1 finished runs." in text
    assert costs["teacher"].flops == 0 and costs["teacher"].hours == 0
    assert costs["shuffled_teacher"].hours == pytest.approx(2.0 / 3600 / 4), "one of four steps is left"


def test_without_counts_the_steps_of_an_epoch_are_unknown_and_the_plan_says_what_to_do(tmp_path, own_data):
    sections = yaml.safe_load(own_data.read_text())
    for section in sections.values():
        section["num_train_epochs"] = section.pop("max_steps") / 2
    own_data.write_text(yaml.safe_dump(sections))
    experiment = experiment_of(tmp_path, own_data, [8], PlannedRuns)
    experiment.names = ["text_only"]
    costs, text = estimates(experiment)
    assert costs["teacher"].steps is None and "vidlankd prepare --config CONFIG --counts" in text
    size = sum(path.stat().st_size for path in Path(sections["distill"]["text"]).iterdir())
    assert costs["text_only"].steps == pytest.approx(2 * size / 4.5 / 30 / 4, rel=0.01), "estimated from the size"
    experiment.folder.mkdir(parents=True)
    (experiment.folder / COUNTS_FILE).write_text('{"windows": 100, "blocks": 80}')
    costs, text = estimates(experiment)
    assert costs["teacher"].steps == 50 and costs["text_only"].steps == 40 and "--counts" not in text


def test_number_of_processes_is_that_of_the_launcher(tmp_path):
    (tmp_path / "ddp.yaml").write_text("num_processes: 4\n")
    assert processes_of(None) == processes_of(["accelerate", "launch"]) == 1
    assert processes_of(["torchrun", "--nproc_per_node=8"]) == processes_of(["torchrun", "--nproc-per-node", "8"]) == 8
    file = ["accelerate", "launch", "--config_file", str(tmp_path / "ddp.yaml")]
    assert processes_of(file) == 4 and processes_of([*file, "--num_processes", "2"]) == 2


def test_dry_run_writes_nothing(monkeypatch, tmp_path, own_data, capsys):
    words = ["--config", own_data, "--tables", 8, "--dry_run", "--tflops", 1, "--output_dir", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *map(str, words)])
    example("reproduce").main()
    text = capsys.readouterr().out
    assert "preparation: " in text and "-m vidlankd_hf.examples.prepare --config" in text and "5 runs." in text
    assert not (tmp_path / "out").exists()


# The paper's tables


def test_published_numbers_stand_beside_ours_only_for_tasks_that_were_scored(tmp_path):
    results = {seed: {name: result(name) for name in ("text_only", "crd")} for seed in (1, 2)}
    text = write_tables([1, 2, 4], results, kept_scores(), False, tmp_path).read_text()
    assert "| student | SST2 | MLM loss | steps | TFLOP |" in text
    assert f"| {ROWS['crd'].label} | 87.5 ± 25.0* | 2.00 ± 0.00 | 10 | 1.5 ± 0.0 |" in text
    assert "| *the paper: text only* | 89.3 | | | |" in text and "SWAG" not in text
    assert "No meaning for these data: its tasks were not scored: it needs mnli" in text
    assert "Without a result: text only, equal compute; CRD, teacher: shuffled captions; vokens, K = 3000" in text
    first, second, fourth = json.loads((tmp_path / "tables.json").read_text())
    assert first["published"]["the paper: text only"] == {"sst2": 89.3} and first["reason"] is None
    assert second["rows"] == [] and second["reason"] and fourth["published"] == {}
    lines = [*csv.DictReader((tmp_path / "tables.csv").open())]
    ours = [row for row in lines if row["source"] == "ours" and row["column"] == "sst2" and row["table"] == "1"]
    assert [(row["row"], row["mean"], row["collapsed"], row["runs"]) for row in ours] == [
        ("text only", "50.0", "1", "4"), (ROWS["crd"].label, "87.5", "0", "4")
    ]  # fmt: skip
    assert float(ours[1]["p"]) < 0.05 and ours[0]["p"] == ""
    published = {row["row"]: row["mean"] for row in lines if row["source"] == "published"}
    assert published["the paper: text only"] == "89.3"


def test_published_columns_exist():
    """A published score that no column can show would be lost silently."""
    columns = {column for rows in PUBLISHED.values() for values in rows.values() for column in values}
    for column in columns:
        task, *rest = column.split("/")
        assert task in TASKS and (not rest or rest[0] in TASKS[task].evaluate_on)
    assert {column.split("/")[-1] for column in columns if "/" in column} == {"exact_match"}


def test_diagnostics_are_shown_by_main_category():
    split = {"matthews_correlation": 0.1, "Logic": 0.2, "Logic: Negation": 0.3, "Knowledge": 0.4}
    kept = {1: {"text_only": {"mnli": entry("mnli", [tuned(1, GOOD, **{"GLUE diagnostics": split})])}}}
    table = fill_table(2, {1: {"text_only": result("text_only")}}, kept, False)
    assert [*table["columns"]] == [
        f"mnli/GLUE diagnostics/{name}" for name in ("matthews_correlation", "Logic", "Knowledge")
    ]


def test_tables_without_tasks_say_so():
    results = {1: {"text_only": result("text_only"), "crd": result("crd")}}
    assert "give --tasks or --task_file" in fill_table(8, results, {}, False)["reason"]
    assert "no such questions" in fill_table(3, results, {}, True)["reason"]
    assert fill_table(9, {1: {}}, {}, True)["reason"] == "none of its students has a result"


# Complete runs


def reproduce(*words, expect=0):
    command = [sys.executable, str(ROOT / "examples" / "reproduce.py"), *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, env=environment)
    assert done.returncode == expect, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_grounded_world_fills_the_tables_that_have_a_meaning_there(tiny_world, tmp_path):
    sizes = json.loads((tiny_world / "world.json").read_text())
    sections = {
        "make_world": {name: value for name, value in sizes.items() if name not in ("seed", "counts")},
        "pretrain_teacher": {"max_steps": 4},
        "distill": {"max_steps": 4},
        "evaluate_all": {"seeds": 2, "finetune_options": {"max_steps": 4}},
        "reproduce": {"tables": [2, 6, 8], "seeds": [0], "output_dir": str(tmp_path / "out")},
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(sections))
    (tmp_path / "out" / "seed-0").mkdir(parents=True)
    (tmp_path / "out" / "seed-0" / "world").symlink_to(tiny_world)
    output = reproduce("--config", tmp_path / "c.yaml")
    tables = {table["number"]: table for table in json.loads((tmp_path / "out/tables/tables.json").read_text())}
    assert "no such questions" in tables[2]["reason"] and tables[2]["rows"] == []
    for number in (6, 8):
        rows = tables[number]["rows"]
        assert [row["student"] for row in rows] == [*TABLES[number].rows] and not tables[number]["missing"]
        assert all(row["tasks"]["world"]["runs"] == 2 and row["mean"] and row["mlm_loss"] for row in rows)
        assert [row["tasks"]["world"]["p"] is None for row in rows] == [True] + [False] * (len(rows) - 1)
    assert "## Table 6: Text, images or video" in output and "probe: mean" in output
    stamp = (tmp_path / "out/results/seed-0/crd.json").stat().st_mtime_ns
    again = reproduce("--config", tmp_path / "c.yaml")
    assert (tmp_path / "out/results/seed-0/crd.json").stat().st_mtime_ns == stamp and "## Table 8" in again


@pytest.mark.slow
def test_killed_experiment_on_streamed_own_data_continues_to_its_tables(own_data, tmp_path, own_tasks):
    sections = yaml.safe_load(own_data.read_text())
    sections["pretrain_teacher"] |= {"max_steps": 200, "save_steps": 20, "logging_steps": 20, "save_total_limit": 1}
    for split, count in (("train", 16), ("dev", 12)):
        write_table(tmp_path / f"{split}.tsv", [{"text": f"the dax {i}", "label": "ab"[i % 2]} for i in range(count)])
    files = {"train": "train.tsv", "dev": "dev.tsv"}
    task = write_task(tmp_path / "moods.yaml", kind="classification", files=files, labels=["a", "b"])
    sections["evaluate_all"] = {"task_file": [str(task)], "seeds": 1, "finetune_options": {"max_steps": 2}}
    own_data.write_text(yaml.safe_dump(sections))
    words = ["--config", own_data, "--tables", 8, "--output_dir", tmp_path / "out"]
    command = [sys.executable, str(ROOT / "examples" / "reproduce.py"), *map(str, words)]
    killed = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
    teacher = tmp_path / "out" / "seed-1" / "teacher"
    deadline = time.monotonic() + 1200
    while not any(teacher.glob("checkpoint-*/manifest.json")) and time.monotonic() < deadline:
        assert killed.poll() is None, killed.stdout.read().decode()[-3000:]
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (teacher / "model.safetensors").exists(), "it was killed during the training"
    output = reproduce(*words)
    assert f"Resuming from {teacher}/checkpoint-" in output
    (table,) = json.loads((tmp_path / "out" / "tables" / "tables.json").read_text())
    assert [row["student"] for row in table["rows"]] == ["text_only", "continue", "crd"]
    assert all(row["tasks"]["moods"]["runs"] == 1 and row["mean"] is None for row in table["rows"])
    assert json.loads((tmp_path / "out" / COUNTS_FILE).read_text()).keys() == {"windows", "blocks"}


@pytest.mark.slow
def test_steps_run_through_submitit(tiny_world, tmp_path):
    """With submitit's own executor for one machine, which needs no Slurm."""
    pytest.importorskip("submitit")
    words = [
        "--tables",
        8,
        "--seeds",
        0,
        "--output_dir",
        tmp_path,
        "--slurm",
        '{"cluster": "local", "timeout_min": 30}',
    ]
    sections = {"pretrain_teacher": {"max_steps": 4}, "distill": {"max_steps": 4}}
    sections["evaluate_all"] = {"seeds": 1, "finetune_options": {"max_steps": 4}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(sections))
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "seed-0" / "world").symlink_to(tiny_world)
    assert "## Table 8" in reproduce("--config", tmp_path / "c.yaml", *words)
    assert len([*(tmp_path / "slurm").glob("*_result.pkl")]) == 8
