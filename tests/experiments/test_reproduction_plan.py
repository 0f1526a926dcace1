"""Plans of the paper's experiment: steps, models and costs before anything is trained."""

import json
import sys
from pathlib import Path

import pytest
import yaml
from experiment_data import GOOD, entry, experiment_of, tuned
from helpers import example

from vidlankd_hf.experiments.flops import teacher_step_flops
from vidlankd_hf.experiments.reproduce.cost import COUNTS_FILE, Estimator, processes_of, write_plan
from vidlankd_hf.experiments.reproduce.planned_runs import PlannedRuns
from vidlankd_hf.experiments.world.recipe import STUDENT_RECIPE, TEACHER_RECIPE


def test_steps_hold_teachers_before_students_before_scores_for_every_seed(tmp_path):
    steps = experiment_of(tmp_path, tables=[6], seeds=[1, 2], tasks=["world"]).steps()
    needs = {step.name: step.needs for step in steps}
    assert needs["seed 2, world"] == () and needs["seed 2, image_teacher"] == ("seed 2, world",)
    assert needs["seed 2, by_image_teacher"] == ("seed 2, image_teacher", "seed 2, language_model")
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
        *("world", "teacher", "language_model"),
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
