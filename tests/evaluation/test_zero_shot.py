"""Visual commonsense without fine-tuning: masked scores and probes of models that know the answers or do not."""

import json

import numpy as np
import pytest
import torch
from downstream_data import VOCABULARY, make_pair_tokenizer
from helpers import WORDS, make_config
from transformers import AutoTokenizer, BertForMaskedLM, BertModel, RobertaConfig, RobertaForMaskedLM

from vidlankd_hf.evaluation import TASKS
from vidlankd_hf.evaluation.checkpoints import load_for_scoring
from vidlankd_hf.evaluation.probing import masked_scores, probe_pairs, probe_sentences
from vidlankd_hf.evaluation.zero_shot import CODA_COLORS, COLORS, ZERO_SHOT, evaluate_zero_shot


@pytest.fixture(scope="module")
def tokenizer():
    return make_pair_tokenizer(VOCABULARY)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    return BertForMaskedLM(make_config(tokenizer)).eval()


class Knowing(BertForMaskedLM):
    """Predicts at every position the answer in `knows` for a word of the sentence."""

    knows: dict[int, int]

    def forward(self, input_ids, attention_mask=None, **kwargs):
        outputs = super().forward(input_ids, attention_mask=attention_mask, **kwargs)
        outputs.logits[:] = 0
        for row, ids in enumerate(input_ids.tolist()):
            for word, answer in self.knows.items():
                if word in ids:
                    outputs.logits[row, :, answer] = 9.0
        return outputs


def knowing(tokenizer, pairs) -> Knowing:
    model = Knowing(make_config(tokenizer)).eval()
    model.knows = dict(tokenizer.convert_tokens_to_ids(pair) for pair in pairs)
    return model


@pytest.mark.parametrize("name", ZERO_SHOT)
def test_every_set_is_scored_next_to_chance_and_majority(name, data, model, tokenizer):
    task = TASKS[name]
    result = evaluate_zero_shot(task, model, tokenizer, data, model)
    items = task.items(data)
    labels = [item["label"] for item in items]
    assert result["size"] == len(items) == len(result["probe"]["right"]) == len(result["masked"]["right"])
    assert result["chance"] == 1 / len(task.candidates)
    assert result["majority"] == max(map(labels.count, labels)) / len(labels)
    assert len(result["masked"]["by_template"]) == len(task.templates) >= 3
    assert all(0 <= value <= 1 for value in (*result["masked"]["by_template"], result["probe"]["accuracy"]))
    assert ("contrast" in result["masked"]) == name.startswith("vicomte")
    assert ("spearman" in result["masked"]) == (name == "coda")
    assert evaluate_zero_shot(task, model, tokenizer, data)["masked"] is None
    json.dumps(result)


def test_a_model_that_knows_every_color_scores_1_and_one_that_knows_half_scores_half(data, tokenizer):
    task = TASKS["memory_colors"]
    items = task.items(data)
    pairs = [(item["object"], COLORS[item["label"]]) for item in items]
    model = knowing(tokenizer, pairs)
    result = evaluate_zero_shot(task, model, tokenizer, data, model)["masked"]
    assert result["accuracy"] == 1.0 and result["by_template"] == [1.0] * len(task.templates)
    wrong = [(thing, "white") for thing, _ in pairs[12:]]
    model = knowing(tokenizer, [*pairs[:12], *wrong])
    assert evaluate_zero_shot(task, model, tokenizer, data, model)["masked"]["accuracy"] == 0.5


def test_coda_takes_every_color_that_most_people_name_and_correlates_with_their_answers(data, tokenizer):
    task = TASKS["coda"]
    items = task.items(data)
    assert all(sum(item["distribution"]) == pytest.approx(1) for item in items)
    assert [CODA_COLORS[item["label"]] for item in items[:3]] == ["black", "blue", "brown"]
    model = knowing(tokenizer, [(item["object"], CODA_COLORS[item["label"]]) for item in items])
    result = evaluate_zero_shot(task, model, tokenizer, data, model)["masked"]
    assert result["accuracy"] == 1.0 and result["spearman"] > 0.4
    tied = [{**items[0], "distribution": [0.5, 0.5, *[0.0] * 9], "label": 0}]
    second = masked_scores(
        knowing(tokenizer, [(items[0]["object"], "blue")]), tokenizer, tied, CODA_COLORS, ("{object} {word}",)
    )
    from vidlankd_hf.evaluation.zero_shot import _masked_result

    assert _masked_result(second, tied)["accuracy"] == 1.0


def test_a_comparison_is_right_if_its_word_is_and_both_orders_are_asked(data, tokenizer):
    task = TASKS["spatial_size"]
    items = task.items(data)
    assert {(item["object"], item["other"]) for item in items} == {(i["other"], i["object"]) for i in items}
    always = knowing(tokenizer, [("than", "larger")])
    assert evaluate_zero_shot(task, always, tokenizer, data, always)["masked"]["accuracy"] == 0.5


def test_masked_scores_are_mean_log_probabilities_of_the_hidden_tokens(model, tokenizer):
    """Compared with one sequence at a time; both tokens of a two-token candidate are masked."""
    items = [{"object": WORDS[0]}, {"object": f"{WORDS[1]} {WORDS[2]}"}]
    candidates, templates = ("red", f"red {WORDS[3]}", "blue"), ("the {object} is {word} .", "{word} is the {object}")
    scores = masked_scores(model, tokenizer, items, candidates, templates)
    assert scores.shape == (2, 2, 3)
    for t, template in enumerate(templates):
        for i, item in enumerate(items):
            for c, word in enumerate(candidates):
                answer = tokenizer(word, add_special_tokens=False)["input_ids"]
                text = template.format(**item, word=" ".join(["[MASK]"] * len(answer)))
                ids = torch.tensor([tokenizer(text)["input_ids"]])
                places = (ids[0] == tokenizer.mask_token_id).nonzero()[:, 0]
                with torch.no_grad():
                    logits = model(ids).logits[0, places].log_softmax(-1)
                expected = np.mean([logits[j, token].item() for j, token in enumerate(answer)])
                assert scores[t, i, c] == pytest.approx(expected, abs=1e-4)


def test_a_word_that_occurs_twice_is_masked_twice(model, tokenizer):
    template = ("is {object} {word} than it ? yes , {object} is much {word} .",)
    seen = []
    handle = model.register_forward_pre_hook(lambda m, a, kw: seen.append(kw["input_ids"]), with_kwargs=True)
    masked_scores(model, tokenizer, [{"object": WORDS[0]}], ("larger", "smaller"), template)
    handle.remove()
    assert len(seen) == 1 and len(seen[0]) == 1 and (seen[0] == tokenizer.mask_token_id).sum() == 2


def test_byte_level_tokenizers_mask_the_word_with_its_space(tmp_path):
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizerFast

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(["the thing is red", "the thing is blue"] * 50, vocab_size=300, special_tokens=[
        "<s>", "<pad>", "</s>", "<unk>", "<mask>"])  # fmt: skip
    trained.save_model(str(tmp_path))
    tokenizer = RobertaTokenizerFast(vocab=str(tmp_path / "vocab.json"), merges=str(tmp_path / "merges.txt"))
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = RobertaConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **shape)
    model = RobertaForMaskedLM(config)
    seen = []
    model.register_forward_pre_hook(lambda m, a, kw: seen.append(kw["input_ids"]), with_kwargs=True)
    scores = masked_scores(model, tokenizer, [{"object": "thing"}], ("red", "blue"), ("the {object} is {word}.",))
    assert np.isfinite(scores).all()
    text = tokenizer.decode(seen[0][0])
    assert text.count("<mask>") == 1 and "red" not in text and text.endswith(".</s>")


def test_a_candidate_the_tokenizer_does_not_know_is_an_error(model):
    poor = make_pair_tokenizer(WORDS)
    with pytest.raises(ValueError, match="no tokens for the candidate 'red'"):
        masked_scores(model, poor, [{"object": WORDS[0]}], ("red",), ("{object} {word}",))


def with_states(monkeypatch, vectors):
    monkeypatch.setattr(
        "vidlankd_hf.evaluation.probing.noun_states", lambda m, t, nouns: np.stack([vectors[noun] for noun in nouns])
    )


def test_comparisons_are_probed_on_pairs_of_two_unseen_objects(monkeypatch):
    """One-hot states of objects say nothing about other objects; states that encode the size do."""
    names = [f"n{i}" for i in range(8)]
    items = [
        {"object": a, "other": b, "label": int(a < b)} for a in names for b in names if a != b
    ]  # fmt: skip
    with_states(monkeypatch, {name: np.array([i + 0.0, (i * 5) % 7]) for i, name in enumerate(names)})
    labels = [item["label"] for item in items]
    assert (probe_pairs(None, None, items) == labels).mean() == 1.0
    with_states(monkeypatch, dict(zip(names, np.eye(8))))
    assert (probe_pairs(None, None, items) == labels).mean() <= 0.5


def test_a_fitted_probe_never_saw_the_objects_it_is_scored_on(monkeypatch, data, tokenizer):
    task = TASKS["vicomte_color"]
    items, train = task.items(data), task.items(data, "train")
    every = sorted({item["object"] for item in [*items, *train]})
    with_states(monkeypatch, dict(zip(every, np.eye(len(every)))))
    leaked = [*train, *items]  # test objects in the training set
    predictions = task.probe(None, None, items, leaked)
    assert (predictions == task.probe(None, None, items, train)).all()


def test_sentences_are_probed_on_unseen_objects(model, tokenizer, monkeypatch):
    items = [
        {
            "sentence": f"{WORDS[i % 9]} {WORDS[20 + i % 7]}",
            "object": "",
            "other": WORDS[20 + i % 7],
            "label": i % 7 % 2,
        }
        for i in range(63)
    ]
    states = {item["sentence"]: np.eye(7)[i % 7] for i, item in enumerate(items)}
    monkeypatch.setattr(
        "vidlankd_hf.evaluation.probing._sentence_states", lambda m, t, texts: np.stack([states[x] for x in texts])
    )
    labels = np.array([item["label"] for item in items])
    assert (probe_sentences(None, None, items) == labels).mean() <= 0.6, "an object's own direction is of no use"


def test_a_checkpoint_without_language_model_head_has_no_masked_scores(tmp_path, tokenizer, model):
    tokenizer.save_pretrained(tmp_path / "encoder")
    BertModel(make_config(tokenizer)).save_pretrained(tmp_path / "encoder")
    model.save_pretrained(tmp_path / "whole")
    encoder, masked_lm = load_for_scoring(str(tmp_path / "encoder"))
    assert masked_lm is None and isinstance(encoder, BertModel)
    encoder, masked_lm = load_for_scoring(str(tmp_path / "whole"))
    assert masked_lm is encoder and isinstance(masked_lm, BertForMaskedLM)
    assert AutoTokenizer.from_pretrained(tmp_path / "encoder").mask_token == "[MASK]"


def test_scoring_leaves_the_model_in_its_mode(model, tokenizer, data):
    model.train()
    evaluate_zero_shot(TASKS["spatial_position"], model, tokenizer, data, model)
    assert model.training
    model.eval()


def test_an_answer_that_is_no_candidate_is_an_error(tmp_path):
    (tmp_path / "memory_colors.jsonl").write_text('{"descriptor": "a", "item": "x", "label": "mauve"}\n')
    with pytest.raises(ValueError, match="label 'mauve', but only black, .* are allowed"):
        TASKS["memory_colors"].items(tmp_path)
    with pytest.raises(FileNotFoundError, match="ViComTe colour's train split is in train.jsonl"):
        TASKS["vicomte_color"].items(tmp_path, "train")
