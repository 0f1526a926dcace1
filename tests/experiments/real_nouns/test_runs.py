"""Rows are run once, results belong to their settings, and the report needs nothing but the results."""

import json
from pathlib import Path

import pytest
from fruit import FRUIT
from helpers import example, refusal

from vidlankd_hf import VidLanKDStudent, bert_config
from vidlankd_hf.evaluation.zero_shot import CODA_COLORS
from vidlankd_hf.experiments.real_nouns import build, run
from vidlankd_hf.experiments.real_nouns.build import choose
from vidlankd_hf.experiments.real_nouns.figure import RGB, choose_nouns, draw_accuracies, draw_colours
from vidlankd_hf.experiments.real_nouns.pictures import Picture, find_pictures
from vidlankd_hf.experiments.real_nouns.report import LABELS, write_report
from vidlankd_hf.experiments.real_nouns.run import run_seed
from vidlankd_hf.experiments.real_nouns.runs import MINILM, PICTURES, SeedRuns
from vidlankd_hf.experiments.real_nouns.tables import BEST, ROWS
from vidlankd_hf.utils.figures import MARKERS


@pytest.fixture
def runs(tmp_path, benchmarks):
    clips = tmp_path / "data" / "clips"
    clips.mkdir(parents=True)
    lines = [json.dumps({"video": f"{n}.mp4", "noun": n, "package": "noto"}) for n in FRUIT]
    (clips / "pictures.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "data" / "world.json").write_text(json.dumps({"patches": False, "sizes": False}))
    return SeedRuns(0, tmp_path / "data", tmp_path / "seed-0", tmp_path / "results", benchmarks)


@pytest.mark.parametrize("name", ROWS)
def test_students_have_valid_objectives_and_known_teachers(name):
    student = VidLanKDStudent(bert_config("tiny", vocab_size=50))
    student.add_objectives(ROWS[name].objectives, teacher_hidden_size=128)


def scored(level: float, trained: bool) -> dict:
    probe = {
        "memory_colors": {"pictured": {n: level for n in list(FRUIT)[:4]}},
        "coda": {"pictured": {n: level for n in FRUIT}, "not_pictured": {}, "joint": {n: level for n in FRUIT}},
        "vicomte_color": {"pictured": {}},
        "vicomte_material": {"pictured": {}},
    }
    more = {
        "mlm_loss": 3.0, "mlm_accuracy": 0.4, "masked": {name: {"banana": 1} for name in probe},
        "spatial": {"spatial_size": 0.5, "spatial_height": 0.5, "spatial_position": 0.25},
    }  # fmt: skip
    return {"probe": probe, "colours": {n: [1 / 11] * 11 for n in FRUIT}, **(more if trained else {})}


@pytest.fixture
def trained(runs, monkeypatch):
    """Rows that would be trained; their results are made up."""
    made = []

    def make(runs, name):
        made.append(name)
        if name == "nst":
            raise RuntimeError("out of memory")
        level = 0.75 if name.startswith("regression") else 0.25
        result = {**runs.identity(name), **scored(level, name in ROWS)}
        runs.results.mkdir(exist_ok=True)
        (runs.results / f"{name}.json").write_text(json.dumps(result))
        return result

    monkeypatch.setattr(run, "make", make)
    return made


def test_each_row_is_run_once_after_its_teacher_and_a_failure_does_not_stop_the_others(runs, trained):
    results, failed = run_seed(runs, ["text_only", "nst", "regression_headless_10", "shuffled"])
    assert trained == [PICTURES, MINILM, "text_only", "teacher", "nst", "regression_headless_10",
                       "shuffled_teacher", "shuffled"]  # fmt: skip
    assert failed == ["nst: out of memory"] and set(results) == {*trained} - {"nst"}
    trained.clear()
    run_seed(runs, ["text_only", "nst", "regression_headless_10"])
    assert trained == ["nst"]


def test_results_of_other_settings_are_refused(runs, trained, tmp_path, benchmarks):
    run_seed(runs, ["text_only"])
    other = SeedRuns(0, runs.data, runs.folder, runs.results, benchmarks, steps=3)
    with pytest.raises(ValueError, match="text_only.json has base_recipe .* remove the file or give another"):
        other.result("text_only")
    assert runs.identity(PICTURES)["streams"] == runs.teacher_recipe["streams"], "the features that the teacher sees"
    (runs.data / "clips" / "pictures.jsonl").write_text("")
    with pytest.raises(ValueError, match="has clips 10, but this run has 0"):
        runs.result(PICTURES)


def build_with(monkeypatch, tmp_path, *options) -> list[tuple]:
    """Builds data whose stages do nothing; returns the arguments of `make_clips`."""
    made = []
    for stage in ("fetch", "copy_minilm", "make_backbones", "extract", "write_text", "benchmark_nouns"):
        monkeypatch.setattr(build, stage, lambda *args: tmp_path)
    monkeypatch.setattr(build, "find_pictures", lambda *args: [Picture("banana", "noto", tmp_path)])
    monkeypatch.setattr(build, "make_clips", lambda *args: made.append(args))
    words = ["--folder", tmp_path / "built", "--cache", tmp_path, "--benchmarks", tmp_path, "--text", tmp_path]
    monkeypatch.setattr("sys.argv", ["build", *map(str, words), "--seed", "0", *options])
    build.main()
    return made


@pytest.mark.parametrize("options", [(), ("--patches",), ("--sizes",)])
def test_the_options_of_clips_reach_them_and_are_kept(options, monkeypatch, tmp_path):
    ((*_, patches, sizes),) = build_with(monkeypatch, tmp_path, *options)
    assert [patches, sizes] == [name in options for name in ("--patches", "--sizes")]
    world = json.loads((tmp_path / "built" / "world.json").read_text())
    assert [bool(world["patches"]), bool(world["sizes"])] == [patches, sizes]
    for other in {(), ("--patches",), ("--sizes",)} - {options}:
        with pytest.raises(ValueError, match="was started with other settings"):
            build_with(monkeypatch, tmp_path, *other)


def test_a_folder_that_was_begun_before_the_option_of_sizes_is_continued(monkeypatch, tmp_path):
    settings = {"seed": 0, "limit": None, "patches": False, "text": [tmp_path.name]}
    (tmp_path / "built").mkdir()
    (tmp_path / "built" / "settings.json").write_text(json.dumps(settings))
    assert build_with(monkeypatch, tmp_path)


def test_the_command_passes_the_options_of_clips_on(monkeypatch, tmp_path):
    command, passed = example("real_nouns"), []

    def stop(module, *words):
        passed.extend(words)
        raise SystemExit

    monkeypatch.setattr(command, "run_script", stop)
    words = ["--benchmarks", tmp_path, "--text", tmp_path, "--output_dir", tmp_path / "out", "--sizes"]
    monkeypatch.setattr("sys.argv", ["real_nouns.py", *map(str, words)])
    with pytest.raises(SystemExit):
        command.main()
    assert "--sizes" in passed and "--patches" not in passed


def test_results_of_other_clips_are_refused(runs, trained):
    run_seed(runs, ["text_only"])
    (runs.data / "world.json").write_text(json.dumps({"patches": False, "sizes": True}))
    with pytest.raises(ValueError, match=r"has clip_options None, but this run has \['sizes'\]"):
        runs.result(PICTURES)
    (runs.results / f"{PICTURES}.json").unlink()
    with pytest.raises(ValueError, match="clip_options None"):
        run_seed(runs, ["regression_headless_10"])
    for path in runs.results.iterdir():
        path.unlink()
    run_seed(runs, ["text_only"])
    (runs.data / "world.json").write_text(json.dumps({"patches": False, "sizes": False}))
    with pytest.raises(ValueError, match=r"has clip_options \['sizes'\], but this run has None"):
        runs.result("text_only")


def test_commands_train_everything_from_the_base(runs):
    base, teacher, student = (r.arguments for r in (runs.base_run(), runs.teacher_run("shuffled_teacher"),
                                                    runs.student_run("shuffled")))  # fmt: skip

    def value(arguments, name):
        return arguments[arguments.index(f"--{name}") + 1]

    other = SeedRuns(1, runs.data, runs.folder.parent / "seed-1", runs.results, runs.benchmarks)
    assert other.base_run().arguments == base  # one for all seeds
    assert value(base, "objectives") == "{}" and value(base, "student").endswith("minilm")
    assert value(teacher, "text_model").endswith("base") and value(teacher, "shuffle_videos") == "True"
    assert value(student, "student").endswith("base") and value(student, "teacher").endswith("shuffled_teacher")
    text_only = runs.student_run("text_only").arguments
    assert value(text_only, "student").endswith("base") and value(text_only, "max_steps") == value(
        student, "max_steps"
    )


def test_the_report_shows_rows_that_have_results_and_pairs_them_with_text_only(runs, trained, tmp_path):
    results, _ = run_seed(runs, ["text_only", "regression_headless_10"])
    page = write_report({0: results}, tmp_path / "report").read_text()
    assert f"| {LABELS['regression_headless_10']} | 0.75 |" in page and f"| {LABELS['crd']} |" not in page
    assert f"- {LABELS['crd']} (`crd`): seed 0" in page and "(`text_only`)" not in page
    fewer = write_report({0: results, 1: {"text_only": results["text_only"]}}, tmp_path / "fewer").read_text()
    named = f"| {LABELS['regression_headless_10']} (seed 0) |"
    assert named in fewer and f"| {LABELS['regression_headless_10']} |" not in fewer
    assert "| text only | 0.25 ± 0.00 |" in fewer
    found = json.loads((tmp_path / "report" / "report.json").read_text())
    assert {entry["row"] for entry in found} == {"regression_headless_10"}
    assert all(e["difference"] == pytest.approx(0.0 if e["group"] == "masked" else 0.5) for e in found)
    assert {(e["set"], e["part"]) for e in found if e["group"] == "pictured"} == {
        ("memory_colors", "report"), ("coda", "report"), ("coda", "selection")
    }  # fmt: skip
    assert [(e["set"], e["nouns"]) for e in found if e["group"] == "masked"] == [("memory_colors", 1), ("coda", 1)]


def test_the_figure_of_accuracies_has_a_marker_for_each_seed(runs, trained, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *_, **__: drawn.append(figure))
    results, _ = run_seed(runs, ["text_only", "regression_headless_10"])
    without = {row: {**run, "probe": {**run["probe"], "coda": {}}} for row, run in results.items()}  # a quick trial
    draw_accuracies({0: results, 1: without}, tmp_path / "accuracy.png")
    names = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    for axis, seeds in zip(drawn[0].axes, (2, 1)):  # Memory Colors of both seeds, CoDa of the first
        markers = [line for line in axis.lines if line.get_marker() in MARKERS]
        found = [line.get_xdata()[0] for line in markers if names[round(line.get_ydata()[0])] == LABELS[BEST]]
        assert found == [0.75] * seeds


def test_the_figure_chooses_nouns_that_people_agree_on_one_colour_after_another():
    people = {"banana": [0.9, 0.1], "lemon": [0.95, 0.05], "fern": [0.0, 1.0], "cat": [0.5, 0.5]}
    assert choose_nouns(people, people, {*people}) == ["fern", "lemon", "banana", "cat"]


def test_the_figure_shows_the_likeliest_colors_next_to_pictures_that_may_be_published(
    packages, benchmarks, tmp_path, monkeypatch
):
    drawn = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *_, **__: drawn.append(figure))
    nouns = ["banana", "cherry", "fern"]  # no free package shows a fern
    before, after = ({"colours": {n: [c == color for c in CODA_COLORS] for n in nouns}} for color in ("brown", "blue"))
    draw_colours(before, after, find_pictures(packages, nouns), benchmarks, {*nouns}, tmp_path / "colours.png")
    rows = [drawn[0].axes[4 * block : 4 * block + 4] for block in range(2)]
    shown = {row[0].get_ylabel(): [axis.get_facecolor()[:3] for axis in row[1:]] for row in rows}
    assert shown == {noun: [RGB["brown"], RGB["blue"], RGB[FRUIT[noun]]] for noun in ("banana", "cherry")}
    draw_colours(before, after, [], benchmarks, {*nouns}, tmp_path / "none.png")  # a quick trial with other nouns


def test_a_trial_keeps_evenly_spaced_nouns():
    pictures = [Picture(noun, "noto", Path(noun)) for noun in "aabbccddee"]
    assert [picture.noun for picture in choose(pictures, 2)] == ["a", "a", "c", "c"]
    assert choose(pictures, None) == pictures


def test_an_unknown_row_is_refused(monkeypatch, tmp_path):
    words = ("--benchmarks", tmp_path, "--text", tmp_path, "--output_dir", tmp_path / "out")
    assert refusal(monkeypatch, "real_nouns", *words, "--rows", "regresion_1") == "2"
