"""The paper's experiment: its tables, and complete small runs."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from experiment_data import GOOD, entry, kept_scores, result, tuned
from task_files import write_table, write_task

from vidlankd_hf.evaluation import TASKS
from vidlankd_hf.experiments.ablations.tables import ROWS, TEACHERS
from vidlankd_hf.experiments.reproduce.cost import COUNTS_FILE
from vidlankd_hf.experiments.reproduce.paper import PUBLISHED, TABLES, students_of
from vidlankd_hf.experiments.reproduce.tables import fill_table, write_tables

ROOT = Path(__file__).parents[2]


def test_tables_of_the_paper_hold_known_students_and_start_with_the_text_only_one():
    assert list(TABLES) == [*range(1, 10)]
    for table in TABLES.values():
        assert table.rows[0] == "text_only" and set(table.rows) <= set(ROWS)
    assert not set(ROWS) & set(TEACHERS), "both are names of steps"


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


def test_students_are_those_of_tables_that_the_tasks_can_fill():
    assert students_of([2, 8], ["world", "sst2"]) == [*TABLES[8].rows]
    assert students_of([2], ["mnli"]) == students_of([3], ["tracie_uniform"]) == [*TABLES[2].rows]
    assert students_of([1, 8], []) == [*TABLES[1].rows, "continue"], "each once"


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
    students = {path.stem for path in (tmp_path / "out" / "results" / "seed-0").glob("*.json")}
    assert students == {*TABLES[6].rows, *TABLES[8].rows}, "students of table 2 alone would be trained for nothing"
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
    for split, count in (("train", 40), ("dev", 12)):
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
    words = ["--tables", 8, "--seeds", 0, "--output_dir", tmp_path]
    words += ["--slurm", '{"cluster": "local", "timeout_min": 30}']
    sections = {"pretrain_teacher": {"max_steps": 4}, "distill": {"max_steps": 4}}
    sections["evaluate_all"] = {"seeds": 1, "finetune_options": {"max_steps": 4}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(sections))
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "seed-0" / "world").symlink_to(tiny_world)
    assert "## Table 8" in reproduce("--config", tmp_path / "c.yaml", *words)
    jobs = [*(tmp_path / "slurm").glob("*_result.pkl")]
    assert len(jobs) == 9, "world, teacher, language model, three students and their scores"
