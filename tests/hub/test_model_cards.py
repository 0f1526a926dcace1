"""Cards: what the Hub reads in them, what a reader does with them, and what they must not reveal."""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest
import torch
from downstream_data import arguments, make_data, make_pair_tokenizer, result_of
from helpers import make_config, make_teacher, make_tokenizer, train
from huggingface_hub import ModelCard
from PIL import Image
from transformers import BertForMaskedLM

from vidlankd_hf import VidLanKDTeacher
from vidlankd_hf.evaluation.card import update_card, zero_shot_results
from vidlankd_hf.evaluation.finetune import finetune
from vidlankd_hf.hub.curves import draw_losses
from vidlankd_hf.hub.model_cards import four_digits
from vidlankd_hf.hub.run_metadata import is_hub_id, public_command, public_name

PROBE = [{"attribute": "motion", "accuracy": 0.5, "chance": 0.25, "low": 0.4, "high": 0.6, "num_nouns": 48}]


def settings(folder: Path, **values) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"finished": False, "settings": values}))


def rows_of(card: ModelCard) -> dict[str, str]:
    return dict(re.findall(r"^\| ([^|]+) \| (.+) \|$", card.text, flags=re.MULTILINE))


def run_snippet(card: ModelCard, folder: Path, monkeypatch) -> str:
    """What the card's code prints where the model's folder is."""
    monkeypatch.chdir(folder.parent)
    (code,) = re.findall(r"```python\n(.+?)```", card.text, flags=re.DOTALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})  # noqa: S102
    return printed.getvalue()


@pytest.mark.parametrize(
    "value, shown", [(0.87654321, "0.8765"), (61.23456, "61.23"), (12345.6, "12350"), (1e-5, "1e-05"), (-0.5, "-0.5")]
)
def test_results_have_four_digits(value, shown):
    assert f"{four_digits(value):g}" == shown


def test_students_card_says_which_states_taught_and_what_the_teacher_read(tmp_path):
    runs = {
        "own": ({}, "last layer", "the student's masked tokens"),
        "clean": ({"teacher_input": "clean", "teacher_layer": -2}, "layer -2", "the text without masks"),
        "other": (
            {"aligned": True, "teacher_layer": [0, -1]},
            "mean of the layers 0, -1; mean over a segment's tokens",
            "the text without masks, tokenized by its own tokenizer",
        ),
    }
    for name, (options, states, read) in runs.items():
        trainer = train("student", tmp_path / name, {"nst": 1.0}, max_steps=1, **options)
        trainer.save_model()
        card = ModelCard.load(tmp_path / name / "README.md")
        rows = rows_of(card)
        assert rows["Teacher's states"] == states and rows["The teacher read"] == read
        assert ("compared by segments" in card.text) == (name == "other")


def test_students_card_says_what_it_is_and_how_it_was_trained(tmp_path, monkeypatch):
    folder, teacher = tmp_path / "student", make_teacher(make_tokenizer())
    (tmp_path / "home" / "my-teacher").mkdir(parents=True)
    settings(folder, teacher=str(tmp_path / "home" / "my-teacher"), student="small", text="acme/sights:clean")
    objectives = {"nst": 10.0, "crd": {"weight": 0.5, "temperature": 0.2}}
    trainer = train("student", folder, objectives, teacher=teacher, eval_strategy="steps", eval_steps=2)
    (folder / "probe.json").write_text(json.dumps(PROBE))
    trainer.save_model()
    card = ModelCard.load(folder / "README.md")
    rows = rows_of(card)
    assert card.data.library_name == "transformers" and card.data.pipeline_tag == "fill-mask"
    assert {"vidlankd", "knowledge-distillation", "crd", "nst"} <= set(card.data.tags)
    assert card.data.datasets == ["acme/sights"] and card.data.base_model is None
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.metric_args["chance"]) == ("accuracy", 0.5, 0.25)
    assert card.data.model_name == "student"

    assert rows["Objectives"] == "MLM + 0.5 x crd + 10 x nst" and '"temperature": 0.2' in rows["Options of crd"]
    assert rows["Teacher"] == "`my-teacher` (VidLanKDTeacher)" and rows["Started from"] == "random weights"
    assert (rows["Steps"], rows["Sequences per step"], rows["Seed"]) == ("3", "4", "5")
    lengths = [len(trainer.train_dataset[i]["input_ids"]) + 2 for i in range(50)]
    assert rows["Tokens"].startswith(f"about {12 * sum(lengths) / len(lengths):,.0f} ")
    assert rows["Fingerprint of the training data"] == f"`{trainer._record['data']['train']}`"
    assert "cpu" in rows["Hardware"] and "min" in rows["Time"] and f"torch {torch.__version__[:3]}" in rows["Versions"]
    last = [entry for entry in trainer.state.log_history if "nst_loss" in entry][-1]
    assert rows["Last nst_loss"] == f"{four_digits(last['nst_loss']):g}" and "mlm_loss, held out" in rows
    assert "motion" in card.text and "0.5 (chance 0.25)" in card.text and "tang2021vidlankd" in card.text
    assert "![Losses over the steps](losses.png)" in card.text and Image.open(folder / "losses.png").size[0] > 300
    assert "biases" in card.text and str(tmp_path) not in (folder / "README.md").read_text()
    assert run_snippet(card, folder, monkeypatch).count("'") == 10, "five tokens"


def test_teachers_card_says_what_it_is_and_how_it_was_trained(tmp_path, monkeypatch):
    folder = tmp_path / "teacher"
    settings(folder, captions=str(tmp_path / "world" / "captions.jsonl"), world=str(tmp_path / "world"),
             features=str(tmp_path / "features"), text_model="google-bert/bert-base-uncased")  # fmt: skip
    trainer = train("teacher", folder, design={"contrast": "hinge", "margin": 0.5})
    trainer.evaluate()
    trainer.save_model()
    card = ModelCard.load(folder / "README.md")
    rows = rows_of(card)
    assert card.data.base_model == "google-bert/bert-base-uncased" and card.data.datasets is None
    assert rows["Captions"] == "`captions.jsonl` of the grounded world" and rows["Video features"] == "`features`"
    assert rows["Losses"] == "`contrast+mlm`, contrast `hinge`" and "margin 0.5" in card.text
    assert {"text_to_video_r@1, held out", "contrast_loss, held out"} <= set(rows)
    assert str(tmp_path) not in (folder / "README.md").read_text()
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    run_snippet(card, folder, monkeypatch)


def test_teacher_that_started_from_a_folder_reveals_only_its_name(tmp_path):
    BertForMaskedLM(make_config(make_tokenizer())).save_pretrained(tmp_path / "home" / "old-bert")
    teacher = VidLanKDTeacher.from_text_pretrained(tmp_path / "home" / "old-bert", feature_size=6, losses="mlm")
    teacher.save_pretrained(tmp_path / "teacher")
    config = (tmp_path / "teacher" / "config.json").read_text()
    assert "./old-bert" in config and str(tmp_path) not in config


@pytest.mark.parametrize("task", ["rte", "sst2", "swag", "squad"])
def test_card_of_a_fine_tuned_model_says_what_it_is_and_its_snippet_runs(tmp_path, monkeypatch, task):
    tokenizer = make_pair_tokenizer()
    BertForMaskedLM(make_config(tokenizer)).save_pretrained(tmp_path / "home" / "my-student")
    tokenizer.save_pretrained(tmp_path / "home" / "my-student")
    args, model, data = arguments(tmp_path / "tuned"), str(tmp_path / "home" / "my-student"), str(make_data(tmp_path))
    result = finetune(model, task, args, data, keep_model=True)
    card = ModelCard.load(tmp_path / "tuned" / "README.md")
    first = next(iter(result["scores"].values()))
    assert {r.metric_type: r.metric_value for r in card.data.eval_results if r.dataset_split == "validation"} == {
        name: float(f"{value:.4g}") for name, value in first.items() if not name.endswith("threshold")
    }
    own = {(r.dataset_type, r.dataset_config) for r in card.data.eval_results}
    assert own == {(Path(data).name, task)} and rows_of(card)["Data"] == f"`{Path(data).name}`"
    assert card.data.datasets is None, "rows of the user's own are not those on the Hub"
    assert card.data.pipeline_tag in card.data.tags and card.data.base_model is None
    assert "`my-student`" in card.text and str(tmp_path) not in (tmp_path / "tuned" / "README.md").read_text()
    assert not list((tmp_path / "tuned").glob("*.bin")), "no pickle"
    run_snippet(card, tmp_path / "tuned", monkeypatch)
    with pytest.raises(ValueError, match="did not keep its model"):
        for file in (tmp_path / "tuned").glob("*.safetensors"):
            file.unlink()
        finetune(model, task, args, data, keep_model=True)


def test_results_that_come_later_are_added_to_the_card_of_the_run(tmp_path):
    from vidlankd_hf.evaluation import TASKS

    folder = tmp_path / "student"
    settings(folder)
    (folder / "probe.json").write_text(json.dumps(PROBE))
    train("student", folder).save_model()
    update_card(folder, zero_shot_results(TASKS["coda"], "coda", result_of(0.5, head=False)))
    card = ModelCard.load(folder / "README.md")
    assert len(card.data.eval_results) == 2 and "## Training" in card.text


def test_commands_and_names_reveal_nothing_about_the_machine(tmp_path):
    line = (
        "accelerate launch /home/bob/code/examples/distill.py --teacher '/mnt/my disk/teachers/t1' "
        "--text=/data/wiki.txt --output_dir outputs/s --config ../../bob/x.yaml --cache_dir ~/cache "
        """--objectives '{"nst": 1000}' --student google-bert/bert-base-uncased --hub https://hub.example/a/b"""
    )
    told = public_command(line)
    assert not re.search(r"bob|/mnt|my disk|/data|~", told), told
    for kept in ("examples/distill.py"[9:], "t1", "--text=wiki.txt", "outputs/s", "x.yaml", "--cache_dir cache",
                 """'{"nst": 1000}'""", "google-bert/bert-base-uncased", "https://hub.example/a/b"):  # fmt: skip
        assert kept in told
    assert public_name(tmp_path) == tmp_path.name and public_name("acme/model") == "acme/model"
    assert is_hub_id("acme/sights:clean") and not is_hub_id(tmp_path) and not is_hub_id("a/b/c")


def test_figure_is_drawn_only_from_what_was_logged(tmp_path):
    assert not draw_losses("student", [{"train_runtime": 3.0, "train_loss": 1.0, "step": 3}], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    history = [{"loss": 3.0, "mlm_loss": 2.0, "step": 1}, {"eval_mlm_loss": 2.5, "step": 1}]
    assert draw_losses("student", history, tmp_path / "some.png") and Image.open(tmp_path / "some.png").format == "PNG"


def test_published_command_reveals_no_folder_and_no_password():
    line = "distill.py --text file:///home/alice/x.txt --teacher https://alice:pw@host/x --config=/home/alice/c.yaml"
    assert public_command(line) == "distill.py --text x.txt --teacher https://host/x --config=c.yaml"
