"""The task in docs/extending.md, which the package does not contain, is trained and scored."""

import re
from pathlib import Path

from downstream_data import WORDS, arguments, make_pair_tokenizer, write
from helpers import make_config
from transformers import BertForMaskedLM

from vidlankd_hf.evaluation import TASKS
from vidlankd_hf.evaluation.finetune import finetune

DOCS = Path(__file__).parents[2] / "docs" / "extending.md"


def test_the_task_of_the_docs_is_trained_and_scored(tmp_path, monkeypatch):
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.S) if "TASKS[" in b]
    monkeypatch.setattr("vidlankd_hf.evaluation.TASKS", TASKS)
    names = set(TASKS)
    exec(compile(block, str(DOCS), "exec"), {})
    (name,) = set(TASKS) - names
    try:
        for split in ("train", "dev"):
            write(
                tmp_path / f"{split}.tsv", [("text", "mood"), *((WORDS[i], ("sad", "glad")[i % 2]) for i in range(9))]
            )
        tokenizer = make_pair_tokenizer()
        BertForMaskedLM(make_config(tokenizer)).save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
        result = finetune(str(tmp_path / "model"), name, arguments(tmp_path / "run"), str(tmp_path))
        assert result["eval_size"] == 9 and set(result["scores"]["validation"]) == {"accuracy"}
    finally:
        del TASKS[name]
