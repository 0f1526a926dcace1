"""Fine-tuning: finished and resumed runs, checkpoints it can start from, collapse, and the recipes."""

import json

import pytest
import torch
from downstream_data import arguments, make_pair_tokenizer
from helpers import make_config
from transformers import BertForMaskedLM, BertForSequenceClassification

from vidlankd_hf.evaluation import TASKS
from vidlankd_hf.evaluation.finetune import _load, collapse, finetune, recipe_options
from vidlankd_hf.evaluation.spans import Span
from vidlankd_hf.evaluation.trainer import FinetuningTrainer


def test_a_finished_seed_is_not_run_again_and_another_recipe_is_refused(data, model, tmp_path, monkeypatch):
    first = finetune(model, "rte", arguments(tmp_path / "run"), str(data))
    stamp = (tmp_path / "run" / "result.json").stat().st_mtime_ns
    monkeypatch.setattr(FinetuningTrainer, "train", lambda *a, **k: pytest.fail("it was trained again"))
    again = finetune(model, "rte", arguments(tmp_path / "run"), str(data))
    assert again == json.loads(json.dumps(first))
    assert (tmp_path / "run" / "result.json").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="holds a run with other settings .learning_rate was 0.001 and is now 0.5"):
        finetune(model, "rte", arguments(tmp_path / "run", learning_rate=0.5), str(data))
    with pytest.raises(ValueError, match="task was 'rte' and is now 'qnli'"):
        finetune(model, "qnli", arguments(tmp_path / "run"), str(data))
    monkeypatch.setattr("vidlankd_hf.evaluation.finetune.fingerprint", lambda model: "other weights")
    with pytest.raises(ValueError, match="weights was [0-9a-f]{12} and is now other weight"):
        finetune(model, "rte", arguments(tmp_path / "run"), str(data))


def test_seeds_give_other_heads_and_orders_and_the_same_seed_the_same_run(data, model, tmp_path):
    scores = []
    for i, seed in enumerate((1, 1, 2)):
        finetune(model, "stsb", arguments(tmp_path / str(i), seed=seed), str(data))
        scores.append(json.loads((tmp_path / str(i) / "result.json").read_text())["examples"]["predictions"])
    assert scores[0] == scores[1] != scores[2]


def test_a_task_that_can_be_learned_is_learned(data, model, tmp_path):
    args = arguments(tmp_path, num_train_epochs=15, learning_rate=3e-3)
    result = finetune(model, "sst2", args, str(data))
    assert result["score"] == 1.0 and result["collapsed"] is None


def test_texts_are_truncated_to_the_models_positions(data, tmp_path, capsys):
    tokenizer = make_pair_tokenizer()
    BertForMaskedLM(make_config(tokenizer, max_position_embeddings=10)).save_pretrained(tmp_path / "short")
    tokenizer.save_pretrained(tmp_path / "short")
    finetune(str(tmp_path / "short"), "rte", arguments(tmp_path / "run"), str(data))
    assert "Texts are truncated to 10 tokens" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["rte", "stsb", "swag", "squad"])
@pytest.mark.parametrize("labels", [1, 2, 3])
def test_a_checkpoint_of_another_task_gets_a_new_head(name, labels, model, tmp_path):
    other = BertForSequenceClassification.from_pretrained(model, num_labels=labels)
    torch.nn.init.constant_(other.classifier.weight, 7.0)
    other.save_pretrained(tmp_path)
    loaded = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        loaded.append(_load(str(tmp_path), TASKS[name]))
    head, again, differs = ((net.qa_outputs if name == "squad" else net.classifier).weight for net in loaded)
    assert head.abs().max() < 0.5 and torch.equal(head, again) and not torch.equal(head, differs)
    for key, value in other.bert.state_dict().items():
        if "pooler" not in key:
            assert torch.equal(loaded[0].bert.state_dict()[key], value)


@pytest.mark.parametrize("name", ["rte", "squad"])
def test_a_checkpoint_that_outputs_all_hidden_states_gets_the_same_scores(name, data, model, tmp_path):
    generous = BertForMaskedLM.from_pretrained(model)
    generous.config.output_hidden_states = True
    generous.save_pretrained(tmp_path / "generous")
    make_pair_tokenizer().save_pretrained(tmp_path / "generous")
    results = [
        finetune(folder, name, arguments(tmp_path / str(i)), str(data))
        for i, folder in enumerate((model, str(tmp_path / "generous")))
    ]
    assert results[0]["scores"] == results[1]["scores"]


def test_a_checkpoint_without_its_encoders_weights_is_refused(data, model, tmp_path):
    whole = BertForMaskedLM.from_pretrained(model)
    weights = {name: value for name, value in whole.state_dict().items() if "attention.self" not in name}
    whole.save_pretrained(tmp_path / "broken", state_dict=weights)
    make_pair_tokenizer().save_pretrained(tmp_path / "broken")
    with pytest.raises(ValueError, match="lacks 6 weights of its encoder, such as bert.encoder"):
        finetune(str(tmp_path / "broken"), "rte", arguments(tmp_path / "run"), str(data))


def test_a_stopped_run_resumes_from_its_checkpoint_and_gives_the_same_result(data, model, tmp_path):
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 4:
                raise KeyboardInterrupt

    kept = {"save_strategy": "steps", "save_steps": 2, "num_train_epochs": 2}
    whole = finetune(model, "stsb", arguments(tmp_path / "whole", **kept), str(data))
    original = FinetuningTrainer.__init__

    def stopping(self, *more, **options):
        original(self, *more, **options)
        self.add_callback(Stop())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FinetuningTrainer, "__init__", stopping)
        with pytest.raises(KeyboardInterrupt):
            finetune(model, "stsb", arguments(tmp_path / "two", **kept), str(data))
    resumed = finetune(model, "stsb", arguments(tmp_path / "two", **kept), str(data))
    assert resumed["steps"] == whole["steps"] == 6
    assert resumed["examples"]["predictions"] == whole["examples"]["predictions"]


LABELS = [0] * 60 + [1] * 40


@pytest.mark.parametrize(
    "task, labels, predictions, expected",
    [
        ("sst2", LABELS, [0] * 100, ("constant", 0.6)),
        ("sst2", LABELS, [0] * 99 + [1], ("chance", 0.6)),
        ("sst2", LABELS, [1] * 99 + [0], ("chance", 0.6)),
        ("sst2", LABELS, [0] * 80 + [1] * 20, (None, 0.6)),
        ("cola", LABELS, [0] * 100, ("constant", 0.0)),
        ("cola", LABELS, [0, 1] * 50, ("chance", 0.0)),
        ("cola", LABELS, [0] * 80 + [1] * 20, (None, 0.0)),
        ("stsb", list(range(100)), [2.5] * 100, ("constant", 0.0)),
        ("stsb", list(range(100)), list(range(100)), (None, 0.0)),
    ],
)
def test_collapse_is_a_constant_answer_or_hardly_better_than_the_best_one(task, labels, predictions, expected):
    rows = [{"label": label} for label in labels]
    score = TASKS[task].score(rows, predictions)[TASKS[task].main]
    found = collapse(TASKS[task], rows, predictions, score)
    assert (found["collapsed"], found["constant_score"]) == (expected[0], pytest.approx(expected[1]))


def test_a_model_that_answers_nothing_has_collapsed():
    rows = [
        {"id": "a", "answers": {"text": ["x"], "answer_start": [0]}},
        {"id": "b", "answers": {"text": [], "answer_start": []}},
    ]
    spans = [Span("", 1.0, "x", []), Span("", 1.0, "y", [])]
    found = collapse(TASKS["squad_v2"], rows, spans, TASKS["squad_v2"].score(rows, spans)["f1"])
    assert found == {"collapsed": "constant", "constant_score": 50.0}


def test_recipes_are_the_papers():
    for name in ("sst2", "qnli", "qqp", "mnli"):
        recipe = TASKS[name].recipe
        values = (recipe["learning_rate"], recipe["num_train_epochs"], recipe["per_device_train_batch_size"])
        assert (*values, recipe["max_length"], recipe["warmup_steps"]) == (1e-4, 3, 32, 126, 0.1)
    for name, rate in (("squad", 3e-5), ("squad_v2", 5e-5)):
        recipe, options = TASKS[name].recipe, recipe_options(TASKS[name])
        assert (recipe["learning_rate"], recipe["num_train_epochs"]) == (rate, 2)
        assert (options.max_length, options.doc_stride) == (384, 128)
    recipe = TASKS["swag"].recipe
    assert (recipe["learning_rate"], recipe["num_train_epochs"], recipe["max_length"]) == (5e-5, 3, 80)
