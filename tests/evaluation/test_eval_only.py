"""Fine-tuned models are scored without training, if their head and labels fit the task."""

import json
from pathlib import Path

import pytest
from downstream_data import arguments, make_pair_tokenizer, sentence
from helpers import example, refusal
from task_files import write_table, write_task
from transformers import AutoConfig, AutoModelForSequenceClassification

from vidlankd_hf.evaluation import TASKS
from vidlankd_hf.evaluation.eval_only import score_finetuned
from vidlankd_hf.evaluation.finetune import finetune
from vidlankd_hf.evaluation.task_files import add_task_file
from vidlankd_hf.evaluation.trainer import FinetuningTrainer


@pytest.fixture(scope="module")
def moods(tmp_path_factory, model):
    """A task file that has been learned, and the fine-tuned model."""
    folder = tmp_path_factory.mktemp("moods")
    for split, count in (("train", 12), ("dev", 9)):
        rows = [{"text": sentence(i, i), "label": ("sad", "glad")[i % 2]} for i in range(count)]
        write_table(folder / f"{split}.tsv", rows)
    path = write_task(folder / "moods.yaml", kind="classification", files={"train": "train.tsv", "test": "dev.tsv"},
                      labels=["sad", "glad"])  # fmt: skip
    add_task_file(path)
    result = finetune(
        model, "moods", arguments(folder / "run", num_train_epochs=15, learning_rate=3e-3), keep_model=True
    )
    assert result["score"] == 1.0
    yield folder
    for name in ("moods", "other"):
        TASKS.pop(name, None)


def other(folder, **content) -> str:
    content = {"kind": "classification", "files": {"dev": "dev.tsv"}, "labels": ["sad", "glad"], **content}
    return add_task_file(write_task(folder / "other.yaml", **content))[0]


def test_a_fine_tuned_model_scores_as_at_the_end_of_its_training(moods, tmp_path, monkeypatch):
    monkeypatch.setattr(FinetuningTrainer, "train", lambda *a, **k: pytest.fail("it was trained"))
    result = score_finetuned(str(moods / "run"), "moods", arguments(tmp_path / "run"))
    trained = json.loads((moods / "run" / "result.json").read_text())
    same = ("scores", "examples", "score", "collapsed", "eval_size")
    assert {key: result[key] for key in same} == {key: trained[key] for key in same}
    assert (result["learning_rate"], result["seed"], result["train_size"]) == (None, None, 0)
    again = score_finetuned(str(moods / "run"), "moods", arguments(tmp_path / "run"))
    assert again == json.loads(json.dumps(result))


def test_scores_do_not_go_into_the_folder_of_the_fine_tuning(moods, tmp_path, monkeypatch, capsys):
    """So the next command of the documentation works: fine-tune, then score, without naming a folder."""
    monkeypatch.chdir(tmp_path)
    fine_tuned = Path("outputs/finetuned/config.yaml")
    fine_tuned.parent.mkdir(parents=True)
    fine_tuned.write_text("seeds: 3\n")
    words = ["--model", moods / "run", "--task_file", moods / "moods.yaml", "--eval_only", "true", "--no_card", "true"]
    monkeypatch.setattr("sys.argv", ["finetune", *map(str, words), "--use_cpu", "true"])
    example("finetune").main()
    assert capsys.readouterr().out.startswith("Fine-tuning: 1 process, cpu, fp32.\n")
    (scored,) = Path("outputs/scored").iterdir()
    assert scored.name == f"moods-{moods.name}-run"
    assert json.loads((scored / "result.json").read_text())["score"] == 1.0
    assert (scored / "config.yaml").exists() and fine_tuned.read_text() == "seeds: 3\n"


def test_labels_are_matched_by_name_not_by_order(moods, tmp_path):
    result = score_finetuned(str(moods / "run"), other(moods, labels=["glad", "sad"]), arguments(tmp_path / "a"))
    assert result["score"] == 1.0
    content = {"labels": {"sad": "bad", "glad": "good"}}
    with pytest.raises(ValueError, match="predicts sad, glad, but the labels of other are bad, good: in .*other.yaml"):
        score_finetuned(str(moods / "run"), other(moods, **content), arguments(tmp_path / "b"))
    name = other(moods, **content, model_labels={"sad": "bad", "glad": "good"})
    assert score_finetuned(str(moods / "run"), name, arguments(tmp_path / "b"))["score"] == 1.0


def test_several_labels_of_the_model_may_be_one_of_the_task(moods, tmp_path):
    """As of a model of three classes on a robustness set of two."""
    config = AutoConfig.from_pretrained(moods / "run", id2label={0: "sad", 1: "glad", 2: "angry"},
                                        label2id={"sad": 0, "glad": 1, "angry": 2})  # fmt: skip
    network = AutoModelForSequenceClassification.from_pretrained(
        moods / "run", config=config, ignore_mismatched_sizes=True
    )
    network.classifier.bias.data[2] = 1e6  # always angry
    network.save_pretrained(tmp_path / "model")
    make_pair_tokenizer().save_pretrained(tmp_path / "model")
    name = other(moods, model_labels={"angry": "sad"})
    result = score_finetuned(str(tmp_path / "model"), name, arguments(tmp_path / "run"))
    assert set(result["examples"]["predictions"]) == {0} and result["collapsed"] == "constant"


def test_models_without_a_fitting_head_are_refused(moods, model, tmp_path, data):
    add_task_file(moods / "moods.yaml")
    with pytest.raises(ValueError, match="was saved as BertForMaskedLM, but .* ends with ForSequenceClassification"):
        score_finetuned(model, "moods", arguments(tmp_path / "a"))
    with pytest.raises(ValueError, match="SWAG needs a class that ends with ForMultipleChoice: give a model"):
        score_finetuned(str(moods / "run"), "swag", arguments(tmp_path / "b"), str(data))
    with pytest.raises(ValueError, match="predicts 2 classes, but STS-B needs one number"):
        score_finetuned(str(moods / "run"), "stsb", arguments(tmp_path / "c"), str(data))
    with pytest.raises(ValueError, match="predicts sad, glad, but the labels of SST-2 are 0, 1: in a task file"):
        score_finetuned(str(moods / "run"), "sst2", arguments(tmp_path / "d"), str(data))


def test_a_task_without_training_data_is_not_fine_tuned(moods, model, tmp_path):
    with pytest.raises(ValueError, match="other has no train split.* score a fine-tuned model with --eval_only true"):
        finetune(model, other(moods), arguments(tmp_path / "run"))


def test_the_command_refuses_options_without_effect_and_unclear_tasks(moods, tmp_path, monkeypatch):
    task = [
        "--model",
        moods / "run",
        "--task_file",
        moods / "moods.yaml",
        "--output_dir",
        tmp_path,
        "--use_cpu",
        "true",
    ]
    for option in (["--learning_rate", "1e-3"], ["--seeds", 2], ["--keep_model", "true"], ["--train_rows", 5]):
        message = refusal(monkeypatch, "finetune", *task, "--eval_only", "true", *option)
        assert f"{option[0]} has no effect with --eval_only" in message
    assert "give exactly one of them" in refusal(monkeypatch, "finetune", *task, "--task", "rte")
    assert "--task is None and --task_file is None: give" in refusal(monkeypatch, "finetune", *task[:2])


def test_evaluate_scores_fine_tuned_models_as_they_are_if_a_task_has_no_training_data(moods, tmp_path, monkeypatch):
    """The commands themselves, in this process."""

    def run(script, *words, **_):
        with monkeypatch.context() as patched:
            patched.setattr("sys.argv", [script.name, *map(str, words)])
            example(script.stem).main()

    monkeypatch.setattr("vidlankd_hf.evaluation.comparison.run_script", run)
    monkeypatch.setattr("transformers.utils.logging.set_verbosity_error", lambda: None)
    content = {"labels": {"sad": "bad", "glad": "good"}, "model_labels": {"sad": "bad", "glad": "good"}}
    other(moods, **content, files={"dev": "dev.tsv", "same": "train.tsv"})
    words = ["--models", moods / "run", "--names", "tuned", "--task_file", moods / "other.yaml", "--use_cpu", "true"]
    run(Path("evaluate_all.py"), *words, "--output_dir", tmp_path)
    report = (tmp_path / "report.md").read_text()
    assert "| other | tuned | accuracy | 100.0 | 100.0 - 100.0 |" in report and "| none |  | 0 / 9 |" in report
    assert "| other | same | tuned | accuracy | 100.0 |" in report and "scored as it is, without training" in report
    assert "accuracy, scored without training on it" in (moods / "run" / "README.md").read_text()
    with pytest.raises(SystemExit):
        run(Path("evaluate_all.py"), *words, "--output_dir", tmp_path, "--learning_rates", "1e-4")
