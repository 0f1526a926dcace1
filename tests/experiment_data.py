"""Scores, results and own data for the tests of experiments."""

import numpy as np
import yaml
from task_files import write_table, write_task

from vidlankd_hf.experiments.ablations.experiment import Experiment
from vidlankd_hf.experiments.ablations.runs import SeedRuns
from vidlankd_hf.experiments.ablations.scores import read_scoring
from vidlankd_hf.experiments.ablations.tables import ROWS, TEACHERS
from vidlankd_hf.experiments.reproduce.paper import students_of
from vidlankd_hf.experiments.script_arguments import ReproductionArguments


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


def experiment_of(tmp_path, config=None, tables=(1,), runs_class=SeedRuns, **options):
    scoring = read_scoring(None if config is None else str(config), options.pop("tasks", None), None, None)
    args = ReproductionArguments(output_dir=str(tmp_path / "out"), **options)
    return Experiment(
        args, students_of(tables, scoring.names), None if config is None else str(config), scoring, runs_class
    )
