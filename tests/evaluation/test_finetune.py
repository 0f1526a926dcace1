"""Fine-tuning: exact means, the order of samples, finished and resumed runs, and collapse."""

import json

import numpy as np
import pytest
import torch
from downstream_data import arguments, make_data, make_pair_tokenizer
from helpers import WORDS, make_config
from transformers import BertForMaskedLM, BertForSequenceClassification

import vidlankd_hf.experiments.world  # noqa: F401  (adds its task to TASKS)
from vidlankd_hf.evaluation import TASKS
from vidlankd_hf.evaluation.finetune import _load, collapse, finetune, recipe_options
from vidlankd_hf.evaluation.heads import Collator, Options, Spans, length_of
from vidlankd_hf.evaluation.reading import read_rows
from vidlankd_hf.evaluation.spans import Span, best_spans, encode_spans
from vidlankd_hf.evaluation.trainer import FinetuningTrainer, GroupedSampler
from vidlankd_hf.training.exact_means import ITEMS


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model without dropout, so that runs can be compared."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = make_pair_tokenizer()
    torch.manual_seed(0)
    BertForMaskedLM(make_config(tokenizer, dropout=0.0)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def trained(name, data, model, folder, **more) -> FinetuningTrainer:
    """A trainer after training on a task, without dropout."""
    task, tokenizer = TASKS[name], make_pair_tokenizer()
    torch.manual_seed(3)
    network = task.head.auto.from_pretrained(model, **task.head.model_options(task.labels))
    options = Options(max_length=24, doc_stride=8) if isinstance(task.head, Spans) else Options(max_length=24)
    features = task.head.encode(read_rows(task, str(data), "train"), tokenizer, options)
    trainer = FinetuningTrainer(network, arguments(folder, **more), task.head, tokenizer, features)
    trainer.train()
    return trainer


def steps(trainer) -> list[dict]:
    return [{k: e[k] for k in ("loss", "grad_norm")} for e in trainer.state.log_history if "loss" in e]


@pytest.mark.parametrize("name", ["sst2", "stsb", "swag", "squad_v2"])
def test_accumulation_changes_no_loss_gradient_or_weight(name, data, model, tmp_path):
    # SGD, because Adam turns rounding errors into steps where a gradient is zero, such as that of a choice's bias.
    options = {"num_train_epochs": 2, "optim": "sgd", "learning_rate": 0.1}
    runs = [
        trained(name, data, model, tmp_path / str(size), per_device_train_batch_size=size,
                gradient_accumulation_steps=6 // size, **options)
        for size in (6, 2)
    ]  # fmt: skip
    first = steps(runs[0])
    assert len(first) >= 4
    for run in runs[1:]:
        for a, b in zip(first, steps(run), strict=True):
            assert a == pytest.approx(b, rel=2e-5)
        for a, b in zip(runs[0].model.parameters(), run.model.parameters()):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_step_of_uneven_micro_batches_is_the_mean_over_its_samples(data, model, tmp_path):
    trainer = trained("sst2", data, model, tmp_path, max_steps=1)
    features = list(trainer.train_dataset)
    batches = [trainer.data_collator(features[a:b]) for a, b in ((0, 5), (5, 6))]
    batches, count = trainer.get_batch_samples(iter(batches), 2, torch.device("cpu"))
    assert count[ITEMS.index("sequences")] == 6
    trainer.model.train()  # it has no dropout; an evaluation batch would count as a separate step
    with torch.no_grad():
        parts = sum(trainer.compute_loss(trainer.model, batch, num_items_in_batch=count) for batch in batches)
        whole = trainer.data_collator(features[:6])
        expected = trainer.model(**whole).loss
    assert float(parts) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("name", ["sst2", "stsb", "swag", "squad"])
def test_losses_equal_those_of_the_models(name, data, model, tmp_path):
    trainer = trained(name, data, model, tmp_path, max_steps=1)
    batch = trainer.data_collator(list(trainer.train_dataset)[:5])
    if name == "stsb":
        trainer.model.config.problem_type = "regression"
    trainer.model.eval()
    with torch.no_grad():
        outputs = trainer.model(**batch)
        ours = trainer.head.losses(outputs, batch)
    assert ours.shape == (5,)
    assert float(ours.mean()) == pytest.approx(float(outputs.loss), rel=1e-6)


def test_steps_hold_sequences_of_similar_length_in_random_order():
    lengths = np.random.default_rng(0).integers(1, 100, 2000).tolist()
    sampler = GroupedSampler(lengths, 16, seed=3)
    epochs = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert len(order) == len(sampler) == 2000 and sorted(order) == list(range(2000))
        assert order == list(GroupedSampler(lengths, 16, seed=3)) or epoch == 1
        inside = np.mean([np.ptp(np.array(lengths)[order[i : i + 16]]) for i in range(0, 2000, 16)])
        assert inside < 10, "a step's lengths are alike"
        first_tokens = [max(lengths[i] for i in order[j : j + 16]) for j in range(0, 2000, 16)]
        assert abs(np.corrcoef(first_tokens, range(125))[0, 1]) < 0.3, "long steps are anywhere"
        epochs.append(order)
    assert epochs[0] != epochs[1] and epochs[0] != list(GroupedSampler(lengths, 16, seed=4))


def test_batches_are_padded_to_their_longest_sequence_only(data):
    tokenizer, task = make_pair_tokenizer(), TASKS["swag"]
    rows = read_rows(task, str(data), "train")
    features = task.head.encode(rows, tokenizer, Options(max_length=80))
    for some in (features[:2], features[3:6]):
        batch = Collator(tokenizer)(some)
        assert batch["input_ids"].shape == (len(some), 4, max(map(length_of, some)))
        real = batch["attention_mask"].sum(-1)
        assert real.tolist() == [[len(ids) for ids in feature["input_ids"]] for feature in some]
        assert batch["labels"].tolist() == [feature["labels"] for feature in some]


def test_predictions_come_in_the_order_of_the_features(data, model, tmp_path):
    trainer = trained("sst2", data, model, tmp_path, max_steps=1, per_device_eval_batch_size=3)
    features = list(trainer.train_dataset)
    assert len({length_of(feature) for feature in features}) > 3
    together = trainer.predict_features(features)
    trainer.model.eval()
    with torch.no_grad():
        alone = [trainer.model(**trainer.data_collator([feature])).logits[0].numpy() for feature in features]
    np.testing.assert_allclose(together, alone, atol=1e-5)


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
    with pytest.raises(ValueError, match="weights was '[0-9a-f]{16}' and is now 'other weights'"):
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


def qa_rows(words=60, unanswerable=False):
    context = " ".join(WORDS[i % 50] for i in range(words))
    answer = " ".join(WORDS[33:36])
    answers = {"text": [answer], "answer_start": [context.index(answer)]}
    none = {"text": [], "answer_start": []}
    return [{"id": "q", "question": WORDS[55], "context": context, "answers": none if unanswerable else answers}]


def test_windows_cover_the_context_and_the_target_is_the_answer_if_it_is_complete():
    tokenizer, rows = make_pair_tokenizer(), qa_rows()
    features = encode_spans(rows, tokenizer, Options(max_length=20, doc_stride=5))
    covered, found = set(), 0
    for feature in features:
        inside = [tuple(pair) for pair in feature["offsets"].tolist() if pair[0] >= 0]
        covered |= set(inside)
        start, end = feature["start_positions"], feature["end_positions"]
        assert len(feature["input_ids"]) <= 20
        if (start, end) == (0, 0):
            continue
        found += 1
        text = rows[0]["context"][feature["offsets"][start][0] : feature["offsets"][end][1]]
        assert text == rows[0]["answers"]["text"][0]
    assert len(covered) == 60 and 1 <= found < len(features)
    assert {f["start_positions"] for f in encode_spans(qa_rows(unanswerable=True), tokenizer, Options(20, 5))} == {0}


def test_the_best_span_over_all_windows_wins_unless_no_answer_scores_higher():
    tokenizer, rows, options = (
        make_pair_tokenizer(),
        qa_rows(),
        Options(max_length=20, doc_stride=5, max_answer_length=3),
    )
    features = encode_spans(rows, tokenizer, options)
    start, end = np.zeros((2, len(features), 20))
    start[:, 0] = end[:, 0] = 1.0  # "no answer" scores 2 in every window but one
    chosen = next(i for i, feature in enumerate(features) if feature["start_positions"])
    a, b = features[chosen]["start_positions"], features[chosen]["end_positions"]
    start[chosen, a] = end[chosen, b] = 4.0
    start[chosen, 1] = end[chosen, 0] = 9.0  # neither the question nor a span that ends before it starts is an answer
    start[0, 0] = 0.0
    (span,) = best_spans(start, end, features, rows, options, may_be_unanswerable=True)
    assert span.text == span.best == rows[0]["answers"]["text"][0] and span.null_odds == 1.0 - 8.0
    (span,) = best_spans(start, end, features, rows, Options(20, 5, 2), may_be_unanswerable=True)
    assert span.best != rows[0]["answers"]["text"][0], "it is too long now"
    (span,) = best_spans(start, end, features, rows, Options(20, 5, 3, null_threshold=-8.0), may_be_unanswerable=True)
    assert span.text == "" and span.best == rows[0]["answers"]["text"][0]
    (span,) = best_spans(start, end, features, rows, Options(20, 5, 3, null_threshold=-8.0), may_be_unanswerable=False)
    assert span.text == rows[0]["answers"]["text"][0]


def test_a_question_without_room_for_its_context_is_an_error():
    rows = [{**qa_rows()[0], "question": " ".join(WORDS[:20])}]
    with pytest.raises(ValueError, match="20 tokens, which leaves no room for its context in 22"):
        encode_spans(rows, make_pair_tokenizer(), Options(max_length=22))


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


def test_the_worlds_questions_are_scored_on_nouns_that_were_not_trained_on(tiny_world, tmp_path):
    from transformers import AutoTokenizer

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
    questions = {text.format(noun="") for row in ("colour", "shape", "motion") for text in _questions()[row]}
    encoded = {tuple(tokenizer(question)["input_ids"]) for question in questions}
    assert len(encoded) == 6, "the world's tokenizer tells the questions apart"


def _questions():
    from vidlankd_hf.experiments.world.task import QUESTIONS

    return QUESTIONS
