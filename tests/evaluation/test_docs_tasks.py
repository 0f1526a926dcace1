"""The tasks that docs/downstream.md describes, with the rows it shows, are trained and scored."""

import re

import pytest
import torch
from docs_pages import BLOCKS
from downstream_data import arguments, make_pair_tokenizer
from helpers import make_config
from transformers import AutoTokenizer, BertForMaskedLM

from vidlankd_hf.evaluation import TASKS
from vidlankd_hf.evaluation.eval_only import score_finetuned
from vidlankd_hf.evaluation.finetune import finetune
from vidlankd_hf.evaluation.task_files import add_task_file
from vidlankd_hf.evaluation.zero_shot import _is_right, evaluate_zero_shot

# The tables that the page does not show.
MORE = {
    "reviews/train.csv": "review,stars\na dull film,1\na fine film,5\ndull and bad,2\nfine and good,4\nso so,3\n",
    "reviews/typos.csv": "review,stars\na dlul film,1\nwarm and funyn,5\n",
    "materials/train.csv": "thing,material\nhammer,metal\nshirt,cotton\ntable,wood\nspoon,metal\n",
    "materials/clothes.csv": "thing,material\nshirt,cotton\nclog,wood\nhelmet,metal\n",
}


@pytest.fixture
def workplace(tmp_path):
    """The files of the page, and a model whose tokenizer knows their words."""
    shown = [block.code for block in BLOCKS["docs/downstream.md"] if block.language in ("yaml", "text")]
    files = {re.match(r"# (\S+)\n", code)[1]: code.partition("\n")[2] for code in shown if code.startswith("# ")}
    assert len(files) == 8 and not set(files) & set(MORE)
    for name, content in {**files, **MORE}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    words = sorted({*re.findall(r"[a-z]+|[.,]", " ".join([*files.values(), *MORE.values()]).lower())})
    tokenizer = make_pair_tokenizer(words)
    torch.manual_seed(0)
    BertForMaskedLM(make_config(tokenizer, dropout=0.0)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    before = set(TASKS)
    yield tmp_path
    for name in set(TASKS) - before:
        del TASKS[name]


def scored(folder, name) -> dict:
    model = BertForMaskedLM.from_pretrained(folder / "model").eval()
    return evaluate_zero_shot(TASKS[name], model, AutoTokenizer.from_pretrained(folder / "model"), None, model)


@pytest.mark.slow
def test_the_robustness_set_scores_a_model_on_every_test_file_and_again_without_training(workplace):
    assert add_task_file(workplace / "reviews.yaml") == ["reviews"]
    result = finetune(str(workplace / "model"), "reviews", arguments(workplace / "run"), keep_model=True)
    assert list(result["scores"]) == ["test", "typos"] and set(result["scores"]["typos"]) == {"macro_f1", "accuracy"}
    assert (result["train_size"], result["eval_size"]) == (4, 3)
    assert result["left_out"] == [
        "train: 1 of 5 rows, which have the label '3' (row 5)",
        "test: 1 of 4 rows, which have the label '3' (row 3)",
    ]
    assert add_task_file(workplace / "shouting.yaml") == ["shouting"]
    again = score_finetuned(str(workplace / "run"), "shouting", arguments(workplace / "again"))
    assert list(again["scores"]) == ["shouting"] and again["examples"]["labels"] == [1, 0]


def test_the_attribute_set_is_scored_split_by_split(workplace):
    assert add_task_file(workplace / "materials.yaml") == ["materials_tools", "materials_clothes"]
    for name in ("materials_tools", "materials_clothes"):
        result = scored(workplace, name)
        assert result["size"] == 3 and len(result["masked"]["by_template"]) == 2
        assert "the same objects" in TASKS[name].own.left_out[0]


def test_the_set_with_several_right_answers_accepts_each_of_them(workplace):
    assert add_task_file(workplace / "apples.yaml") == ["apples"]
    items = TASKS["apples"].items(None)
    assert [item["answers"] for item in items[:4]] == [[0, 1], [0], [1], [2, 1]]
    assert [_is_right(item, 1) for item in items] == [True, False, True, True, False, False], "those that may be green"
    result = scored(workplace, "apples")
    assert result["size"] == 6 and result["majority"] == 0.5
