"""The grounded world as a task: questions about nouns, scored on nouns that were not trained on."""

import json

from downstream_data import arguments
from helpers import make_config
from transformers import AutoTokenizer, BertForMaskedLM

import vidlankd_hf.experiments.world  # noqa: F401  (adds its task to TASKS)
from vidlankd_hf.evaluation import TASKS
from vidlankd_hf.evaluation.finetune import finetune
from vidlankd_hf.evaluation.reading import read_rows
from vidlankd_hf.experiments.world.task import QUESTIONS


def test_the_worlds_questions_are_scored_on_nouns_that_were_not_trained_on(tiny_world, tmp_path):
    task = TASKS["world"]
    nouns = {entry["noun"]: entry for entry in json.loads((tiny_world / "nouns.json").read_text())}

    def asked(split):
        rows = read_rows(task, str(tiny_world), split)
        for row in rows:
            (noun,) = [
                noun for noun in nouns if row["texts"][0].split()[-1] == noun or f"the {noun}" in row["texts"][0]
            ]
            assert task.labels[row["label"]] == f"{row['group']}: {nouns[noun][row['group']]}"
        return {row["texts"][0].split()[-1] for row in rows}, len(rows)

    (trained_on, many), (held_out, few) = asked("train"), asked("validation")
    assert not trained_on & held_out and trained_on | held_out == set(nouns)
    assert (len(held_out), few, many) == (16, 16 * 6, 32 * 6)
    tokenizer = AutoTokenizer.from_pretrained(tiny_world / "tokenizer")
    BertForMaskedLM(make_config(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    result = finetune(str(tmp_path / "model"), "world", arguments(tmp_path / "run"), str(tiny_world))
    assert set(result["scores"]["validation"]) == {"accuracy", "colour", "shape", "motion"}
    questions = {text.format(noun="") for row in ("colour", "shape", "motion") for text in QUESTIONS[row]}
    encoded = {tuple(tokenizer(question)["input_ids"]) for question in questions}
    assert len(encoded) == 6, "the world's tokenizer tells the questions apart"
