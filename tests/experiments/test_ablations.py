"""Ablations: each run is made once, its cost is counted, and tables are made from stored results alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import refusal

from vidlankd_hf import VidLanKDStudent, bert_config
from vidlankd_hf.data.vocabulary import load_tokenizer
from vidlankd_hf.experiments import grid
from vidlankd_hf.experiments.ablations.report import write_table
from vidlankd_hf.experiments.ablations.run_seed import steps_of_seed
from vidlankd_hf.experiments.ablations.runs import SeedRuns
from vidlankd_hf.experiments.ablations.scores import Scoring
from vidlankd_hf.experiments.ablations.tables import ROWS, TABLES, TEACHERS, WORLD_TABLES
from vidlankd_hf.experiments.ablations.tradeoff import points
from vidlankd_hf.experiments.grid import ExperimentRun
from vidlankd_hf.experiments.world.tradeoff import draw_tradeoff

ROOT = Path(__file__).parents[2]


def test_tables_hold_known_students_of_known_teachers_and_leave_none_out():
    named = {name for _, names in TABLES.values() for name in names}
    assert named == set(ROWS)
    assert {student.teacher for student in ROWS.values()} == set(TEACHERS)
    assert len({student.label for student in ROWS.values()}) == len(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_objectives_of_every_student_are_valid(name):
    student = VidLanKDStudent(bert_config("tiny", vocab_size=50))
    student.add_objectives(ROWS[name].objectives, teacher_hidden_size=128)


def kept(name, colour, teacher=0.9, **more):
    scores = [
        {"attribute": a, "accuracy": v, "chance": 0.25}
        for a, v in (("colour", colour), ("shape", 0.4), ("motion", 0.5))
    ]
    taught = [{"attribute": a, "accuracy": teacher, "chance": 0.25} for a in ("colour", "shape", "motion")]
    cost = {"mlm_loss": 2.0, "steps": 10, "tflop": 1.5, "sequences_per_step": 32}
    return {"teacher": TEACHERS[ROWS[name].teacher], "probe": scores, "teacher_probe": taught, **cost, **more}


def test_students_without_a_teacher_show_none(tmp_path):
    results = {1: {name: kept(name, 0.5) for name in ("text_only", "roberta_text_only", "roberta_crd", "roberta_nst")}}
    lines = write_table("tokenizer", results, tmp_path).read_text().splitlines()
    teachers = {line.split("|")[1].strip(): line.split("|")[7].strip() for line in lines if "RoBERTa" in line}
    assert teachers[ROWS["roberta_text_only"].label] == "" and teachers[ROWS["roberta_crd"].label] == "0.90"


def test_table_holds_means_and_deviations_over_seeds_and_the_gap_of_each_seed(tmp_path):
    results = {
        1: {"text_only": kept("text_only", 0.0), "crd": kept("crd", 0.6)},
        2: {"text_only": kept("text_only", 0.3), "crd": kept("crd", 0.9), "continue": kept("continue", 0.3)},
    }
    text = write_table("continue", results, tmp_path).read_text()
    rows = {row["student"]: row for row in json.loads((tmp_path / "table.json").read_text())["rows"]}
    assert list(rows) == ["text_only", "continue", "crd"] and rows["continue"]["seeds"] == [2]
    assert rows["crd"]["colour"] == {"mean": pytest.approx(0.75), "std": pytest.approx(0.2121, abs=1e-4)}
    assert rows["crd"]["mean"]["mean"] == pytest.approx(0.55)
    # Seed 1: (.5 - .3) / (.9 - .3); seed 2: (.6 - .4) / (.9 - .4).
    assert rows["crd"]["gap_closed"]["mean"] == pytest.approx((1 / 3 + 0.4) / 2)
    assert "| CRD (weight 1.5) | 0.75 ± 0.21 |" in text and "37 %" in text and "0.30" in text
    assert f"| {ROWS['continue'].label} (seed 2) |" in text
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_point_of_a_student_is_its_loss_and_share_of_the_gap_over_seeds():
    controls = {name: kept("crd", 0.3) for name in ("by_shuffled_teacher", "clip_shuffled", "continue")}
    results = {
        1: {"text_only": kept("text_only", 0.0), "crd": kept("crd", 0.6, mlm_loss=3.0), **controls},
        2: {"text_only": kept("text_only", 0.3), "crd": kept("crd", 0.9), "nst": kept("nst", 0.9), **controls},
    }
    found = {point["student"]: point for point in points(results)}
    assert {name: point["kind"] for name, point in found.items()} == {
        "text_only": "text_only", "crd": "crd", "by_shuffled_teacher": "control", "clip_shuffled": "control",
        "continue": "continue",
    }, "NST, of one seed alone, cannot be compared"  # fmt: skip
    assert found["crd"]["mlm_loss"] == 2.5 and found["crd"]["gap_closed"] == pytest.approx((1 / 3 + 0.4) / 2)
    assert found["text_only"]["gap_closed"] == 0
    for results_of_seed in results.values():
        results_of_seed |= {name: kept(name, 0.9, mlm_loss=1.0) for name in ("text_only_twice", "crd_twice")}
    assert {p["student"]: p["steps_factor"] for p in points(results) if "twice" in p["student"]} == {
        "text_only_twice": 2, "crd_twice": 2
    }  # fmt: skip


def test_figure_has_a_marker_for_each_student_and_lines_for_text_only(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *_, **__: drawn.append(figure))
    students = [("text_only", 2.0, 0.0, 1), ("crd", 2.2, 0.9, 1), ("text_only", 1.5, 0.0, 2), ("crd", 1.6, 0.95, 2)]
    keys = ("kind", "mlm_loss", "gap_closed", "steps_factor")
    draw_tradeoff([dict(zip(keys, student)) for student in students], tmp_path / "tradeoff.png")
    axis, legend = drawn[0].axes[0], [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert [tuple(marker.get_offsets()[0]) for marker in axis.collections] == [(2.2, 0.9), (1.6, 0.95)]
    assert [len(marker.get_facecolor()) for marker in axis.collections] == [1, 0], "hollow: twice the steps"
    lines = {line.get_label(): line.get_xdata()[0] for line in axis.lines if line.get_label() in legend}
    assert lines["text only"] == 2.0 and lines["text only, twice the steps"] == 1.5
    assert {"teacher", "CRD", "CRD, twice the steps"} <= {*legend}


def test_rows_with_different_batch_sizes_are_not_put_into_one_table(tmp_path):
    results = {1: {"text_only": kept("text_only", 0.1), "crd": kept("crd", 0.6, sequences_per_step=64)}}
    with pytest.raises(ValueError, match="32 and 64 sequences per step"):
        write_table("continue", results, tmp_path)


def seed_runs(folder, config=None):
    return SeedRuns(1, folder / "models", folder / "results", config)


def test_students_of_the_world_continue_one_language_model_for_each_model_type_and_tokenizer(tmp_path):
    runs = seed_runs(tmp_path)
    starts = {name: runs.starts_from(name) for name in ROWS}
    assert starts["continue"] is None and len({*starts.values()} - {None}) == 5
    assert starts["text_only"] == starts["crd"] == starts["by_image_teacher"] == starts["clip_crd"]
    assert starts["roberta_crd"] == starts["roberta_text_only"] != starts["roberta_bpe_crd"]
    run = runs.language_model_run("roberta_bpe_crd")
    assert run.folder == starts["roberta_bpe_crd"] and run.settings["student_model_type"] == "roberta"
    assert run.settings["objectives"] == {} and run.settings["max_steps"] > runs.student_recipe["max_steps"]
    assert run.settings["tokenizer"] == str(runs.byte_level_tokenizer)


def test_byte_level_tokenizer_cuts_the_text_into_hardly_more_tokens_than_the_teachers(tmp_path, tiny_world):
    runs = seed_runs(tmp_path)
    runs.world = Path(tiny_world)
    runs.make_byte_level_tokenizer()
    texts = (runs.world / "text" / "train.txt").read_text().splitlines()
    tokenizers = [load_tokenizer(str(path)) for path in (runs.byte_level_tokenizer, runs.world / "tokenizer")]
    own, teachers = (sum(map(len, t(texts, add_special_tokens=False)["input_ids"])) for t in tokenizers)
    assert own <= 1.05 * teachers


def test_language_model_is_trained_once_before_its_students(tmp_path):
    steps = {step.name: step for step in steps_of_seed(seed_runs(tmp_path), ["crd", "nst"], Scoring(), None)}
    assert steps["seed 1, language_model"].needs == ("seed 1, teacher",)
    assert all("seed 1, language_model" in steps[f"seed 1, {name}"].needs for name in ("crd", "nst"))
    assert len(steps) == 5  # with the world and the teacher


def test_longer_training_doubles_the_steps_of_the_recipe_and_is_part_of_what_a_result_must_share(tmp_path):
    runs = seed_runs(tmp_path)
    runs.student_recipe = {**runs.student_recipe, "max_steps": 30}
    twice, once = (runs._student_options(name) for name in ("crd_twice", "crd"))
    assert twice == {**once, "max_steps": 60}, "both continue the same language model"
    assert runs.identity("crd_twice") == {**runs.identity("crd"), "steps_factor": 2}
    runs.student_recipe = {"num_train_epochs": 1.5}
    assert runs._length("crd_twice") == {"num_train_epochs": 3.0} and runs._length("crd") == {}


def test_students_on_own_data_start_as_the_settings_say(config, tmp_path):
    assert not any(map(seed_runs(tmp_path, config).starts_from, ROWS))


def test_results_with_other_settings_are_refused(tmp_path):
    runs = seed_runs(tmp_path)
    (tmp_path / "results").mkdir()
    path = tmp_path / "results" / "crd.json"
    path.write_text(json.dumps({**runs.identity("crd"), "steps": 3}))
    assert runs.result("crd")["steps"] == 3 and runs.result("nst") is None
    path.write_text(json.dumps({**runs.identity("crd"), "seed": 2}))
    with pytest.raises(ValueError, match="has seed 2, but this run has 1.*--results"):
        runs.result("crd")


def test_committed_results_suffice_for_their_tables(tmp_path):
    folders = sorted((ROOT / "docs" / "evidence" / "ablations").glob("seed-*"))
    if not folders:
        pytest.skip("no rows are committed")
    for folder in folders:
        runs = SeedRuns(int(folder.name.removeprefix("seed-")), tmp_path, folder)
        stored = {path.stem for path in folder.iterdir()}
        assert stored and all(runs.result(name) is not None for name in stored), folder


def test_another_text_or_learning_rate_is_refused_but_not_another_logging_interval(tmp_path, config):
    (tmp_path / "results").mkdir()
    path = tmp_path / "results" / "crd.json"
    path.write_text(json.dumps(seed_runs(tmp_path, config).identity("crd")))
    sections = yaml.safe_load(config.read_text())
    for change, refused in ({"text": "b.txt"}, True), ({"learning_rate": "3e-4"}, True), ({"logging_steps": 7}, False):
        config.write_text(yaml.safe_dump({**sections, "distill": {**sections["distill"], **change}}))
        if refused:
            with pytest.raises(ValueError, match="student_recipe"):
                seed_runs(tmp_path, config).result("crd")
        else:
            assert seed_runs(tmp_path, config).result("crd") is not None


def test_student_is_refused_if_its_teacher_was_trained_again(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    held = {"learning_rate": 2e-4, "fingerprints": {"teacher": "a"}, "logging_steps": 5}
    (folder / "run.json").write_text(json.dumps({"finished": True, "settings": held}))
    ExperimentRun(
        folder, "none", [], {"learning_rate": "2e-4", "fingerprints": {"teacher": "a"}, "logging_steps": 9}
    ).make(quiet=True)
    with pytest.raises(ValueError, match="fingerprints.*remove it"):
        ExperimentRun(folder, "none", [], {"fingerprints": {"teacher": "b"}}).make(quiet=True)


def test_config_without_data_is_refused(tmp_path, config):
    sections = yaml.safe_load(config.read_text())
    del sections["distill"]["text"]
    config.write_text(yaml.safe_dump(sections))
    with pytest.raises(ValueError, match="section distill.*lacks text"):
        seed_runs(tmp_path, config)


def ablate(*arguments, expect=0):
    command = [sys.executable, str(ROOT / "examples" / "ablate.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == expect, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture
def config(tiny_world, tmp_path):
    """Own data and recipe, as a user gives them."""
    common = {"max_steps": 4, "warmup_steps": 0, "use_cpu": True}
    sections = {
        "pretrain_teacher": {
            "features": f"{tiny_world}/features", "captions": f"{tiny_world}/captions.jsonl",
            "tokenizer": f"{tiny_world}/tokenizer", "text_model": "tiny", "max_length": 32, **common,
        },
        "distill": {
            "text": f"{tiny_world}/text", "student": "tiny", "block_tokens": 30, "cache_dir": f"{tmp_path}/cache",
            "gradient_accumulation_steps": 2, "learning_rate": "2e-4", "output_dir": "unused", **common,
        },
    }  # fmt: skip
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path


@pytest.mark.slow
def test_runs_on_own_data_are_made_once_and_their_results_suffice_for_the_table(config, tmp_path):
    options = ["--table", "continue", "--config", config, "--output_dir", tmp_path / "a", "--seeds", 3]
    output = ablate(*options, "--results", tmp_path / "kept")
    assert (
        "teacher's text encoder, trained on text" in output
        and f"| {ROWS['crd'].label} |" in output
        and "probe" not in output
    )
    results = {p.stem: json.loads(p.read_text()) for p in (tmp_path / "kept" / "seed-3").iterdir()}
    assert results["crd"]["sequences_per_step"] == 16, "8 sequences, accumulated twice"
    runs = SeedRuns(3, tmp_path / "a" / "seed-3", tmp_path / "kept" / "seed-3", str(config))
    assert results["crd"]["tflop"] == pytest.approx(4 * 16 * runs._sequence_flops("crd") / 1e12)
    assert (
        set(results) == {"text_only", "continue", "crd"}
        and results["crd"]["tflop"] > results["text_only"]["tflop"] > 0
    )
    teacher = tmp_path / "a" / "seed-3" / "teacher"
    assert (teacher / "model.safetensors").exists()
    (tmp_path / "kept" / "seed-3" / "crd.json").unlink()
    ablate(*options, "--results", tmp_path / "kept")  # finds the finished run
    assert json.loads((tmp_path / "kept" / "seed-3" / "crd.json").read_text()) == results["crd"]
    options[5] = tmp_path / "b"
    again = ablate(*options, "--results", tmp_path / "kept")
    assert not (tmp_path / "b" / "seed-3").exists() and f"| {ROWS['crd'].label} |" in again


def test_vokens_are_made_from_the_captions_that_the_teachers_read(config, tmp_path):
    sections = yaml.safe_load(config.read_text())
    given = {"caption_format": "jsonl", "remove_overlap": True, "max_unpaired": 0.25}
    sections["pretrain_teacher"] |= given
    config.write_text(yaml.safe_dump(sections))
    run = SeedRuns(3, tmp_path, tmp_path / "kept", str(config)).vokens_run("voken_30")
    values = dict(zip(run.arguments[::2], run.arguments[1::2]))
    assert {name: values[f"--{name}"] for name in given} == {name: str(value) for name, value in given.items()}
    assert values["--captions"] == sections["pretrain_teacher"]["captions"]


def test_a_table_of_the_grounded_world_is_refused_for_own_data(monkeypatch, tmp_path, config):
    message = refusal(monkeypatch, "ablate", "--table", "clip", "--config", config, "--output_dir", tmp_path / "out")
    assert "table clip is of the grounded world alone: leave it out" in message


def test_unknown_table_and_config_without_sections_are_errors(tmp_path, monkeypatch, capsys):
    assert refusal(monkeypatch, "ablate", "--table", "speed") == "2"
    assert "there is no table 'speed'" in capsys.readouterr().err
    (tmp_path / "flat.yaml").write_text("learning_rate: 0.1\n")
    message = refusal(monkeypatch, "ablate", "--config", tmp_path / "flat.yaml")
    assert "'learning_rate', which ablate.py lacks" in message


@pytest.mark.slow
def test_every_table_is_filled_on_own_data_except_for_rows_that_cannot_be_run(config, tmp_path):
    """The tiny world has fewer than 300 clips. Tables of the grounded world are left out."""
    output = ablate("--config", config, "--output_dir", tmp_path / "all", "--jobs", 2, expect=1)
    failed = {"voken_300", "voken_3000", "voken_hinge"}
    assert all(f"seed 1, {name}: " in output for name in failed) and "num_vokens is 300" in output
    kept = {p.stem: json.loads(p.read_text()) for p in (tmp_path / "all" / "results" / "seed-1").iterdir()}
    tables = {name: table for name, table in TABLES.items() if name not in WORLD_TABLES}
    assert set(kept) == {name for _, names in tables.values() for name in names} - failed
    for title, names in tables.values():
        assert title in output and all(ROWS[name].label in output for name in set(names) - failed)
    assert kept["text_only_equal_compute"]["steps"] > 4
    assert kept["text_only_equal_compute"]["tflop"] == pytest.approx(kept["crd"]["tflop"], rel=0.2)


def test_scores_of_earlier_weights_are_not_kept_even_if_the_clock_went_back(monkeypatch, tmp_path):
    folder, probed = tmp_path / "student", []
    folder.mkdir()
    (folder / "probe.json").write_text("[1]")  # of an earlier training, later by the clock

    def run_script(script, *words, **options):
        if script.stem == "distill":
            (folder / "model.safetensors").write_bytes(b"new")
            os.utime(folder / "model.safetensors", (0, 0))
        else:
            probed.append(words)
            (folder / "probe.json").write_text("[2]")

    monkeypatch.setattr(grid, "run_script", run_script)
    ExperimentRun(folder, "distill", [], {}).make(quiet=False)
    assert [grid.probe(folder, tmp_path) for _ in range(2)] == [[2], [2]] and len(probed) == 1
