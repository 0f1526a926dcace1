import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Metaspace, Punctuation, Sequence
from transformers import AutoTokenizer, BertForMaskedLM, BertModel, BertTokenizerFast, PreTrainedTokenizerFast

from vidlankd_hf import bert_config
from vidlankd_hf.evaluation.probing import PROBE_TEMPLATES, noun_states
from vidlankd_hf.experiments.world import probe_model
from vidlankd_hf.experiments.world.language import invent_nouns
from vidlankd_hf.experiments.world.probe import probe_states
from vidlankd_hf.experiments.world.render import ATTRIBUTES

SMALL = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture(scope="module")
def tokenizer(tiny_world):
    return AutoTokenizer.from_pretrained(tiny_world / "tokenizer")


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    return BertForMaskedLM(bert_config("tiny", tokenizer, **SMALL))


class Teacher(torch.nn.Module):
    """Knows `vectors` of the nouns: the state of every piece of a noun is the noun's vector, plus noise."""

    def __init__(self, tokenizer, vectors, noise=0.1):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(14))
        self.noise = noise
        pieces = tokenizer(list(vectors), add_special_tokens=False)["input_ids"]
        self.vectors = dict(zip(map(tuple, pieces), vectors.values()))

    def encode_text(self, input_ids, attention_mask):
        assert attention_mask.shape == input_ids.shape
        generator = torch.Generator().manual_seed(0)
        states = self.bias + self.noise * torch.randn(*input_ids.shape, 14, generator=generator)
        for row, ids in enumerate(input_ids.tolist()):
            for pieces, vector in self.vectors.items():
                for start in range(len(ids) - len(pieces) + 1):
                    if tuple(ids[start : start + len(pieces)]) == pieces:
                        states[row, start : start + len(pieces)] += vector
        return states


def knowing(nouns, attributes):
    """{noun: one-hot of the attributes that are known, zeros for the others}"""
    return {
        entry["noun"]: torch.tensor(
            [float(name in attributes and entry[name] == v) for name, values in ATTRIBUTES.items() for v in values]
        )
        for entry in nouns
    }


@pytest.fixture(scope="module")
def nouns(tiny_world):
    return json.loads((tiny_world / "nouns.json").read_text())


def test_what_a_model_knows_is_found_and_what_it_does_not_know_is_not(tiny_world, tokenizer, nouns):
    scores = probe_model(Teacher(tokenizer, knowing(nouns, ["colour", "motion"])), tokenizer, tiny_world)
    assert [score["attribute"] for score in scores] == ["colour", "shape", "motion"]
    colour, shape, motion = scores
    assert colour["accuracy"] > 0.95 and motion["accuracy"] > 0.95
    assert shape["low"] < shape["chance"] < shape["high"] + 0.1 and shape["accuracy"] < 0.5
    assert [score["chance"] for score in scores] == [1 / 6, 1 / 4, 1 / 4]
    assert all(score["num_nouns"] == 48 and 0 <= score["low"] < score["accuracy"] <= score["high"] for score in scores)


def test_every_noun_is_scored_by_a_probe_that_never_saw_it():
    # Each noun has its own direction: only a probe that saw a noun can know it.
    values = ["a", "b", "c", "d"] * 12
    assert probe_states(np.eye(48), values)["accuracy"] <= 0.25


def test_the_interval_is_wilsons():
    states = np.concatenate([np.tile(np.eye(2), (20, 1)), [[1, 0]] * 5 + [[0, 1]] * 5])
    values = ["a", "b"] * 20 + ["b"] * 5 + ["a"] * 5
    score = probe_states(states, values)
    assert score["accuracy"] == 0.8
    p, n, z = 0.8, 50, 1.959964
    middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (score["low"], score["high"]) == pytest.approx(
        ((middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)), abs=1e-5
    )


def test_a_noun_state_is_the_mean_over_its_pieces_and_sentences(tokenizer, model, nouns):
    words = [entry["noun"] for entry in nouns]
    assert {len(tokenizer.tokenize(word)) for word in words} > {1}
    states = noun_states(model, tokenizer, words)
    encoder = model.bert.eval()
    for i in (0, 1, 2, 17):
        means = []
        for template in PROBE_TEMPLATES:
            before = template.split("{noun}")[0]
            first = 1 + len(tokenizer.tokenize(before))
            ids = torch.tensor([tokenizer(template.format(noun=words[i]))["input_ids"]])
            with torch.no_grad():
                hidden = encoder(input_ids=ids).last_hidden_state[0]
            means.append(hidden[first : first + len(tokenizer.tokenize(words[i]))].mean(0))
        torch.testing.assert_close(torch.from_numpy(states[i]), torch.stack(means).mean(0), atol=1e-5, rtol=1e-4)


def test_pieces_that_begin_with_the_space_before_a_word_are_the_words(model):
    """As in DeBERTa, whose offsets of a first piece include the space."""
    words = ["\u2581" + w for w in " ".join(PROBE_TEMPLATES).replace("{noun}", "dax").replace(".", "").split()]
    vocabulary = {w: i for i, w in enumerate(dict.fromkeys(["[PAD]", "[UNK]", *words, "."]))}
    backend = Tokenizer(WordLevel(vocabulary, "[UNK]"))
    backend.pre_tokenizer = Sequence([Metaspace(), Punctuation()])
    spaced = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    template = next(t for t in PROBE_TEMPLATES if not t.startswith("{noun}"))
    sentence, start = template.format(noun="dax"), template.index("{noun}")
    batch = spaced(sentence, return_offsets_mapping=True)
    assert (start - 1, start + 3) in batch["offset_mapping"], "else this tests nothing"
    encoder, means = model.bert.eval(), []
    for template in PROBE_TEMPLATES:
        ids = spaced(template.format(noun="dax"))["input_ids"]
        with torch.no_grad():
            hidden = encoder(input_ids=torch.tensor([ids])).last_hidden_state[0]
        means.append(hidden[ids.index(vocabulary["\u2581dax"])])
    states = torch.from_numpy(noun_states(model, spaced, ["dax"])[0])
    torch.testing.assert_close(states, torch.stack(means).mean(0), atol=1e-5, rtol=1e-4)


def test_a_model_with_a_head_its_encoder_and_a_second_run_score_the_same(tiny_world, tokenizer, model):
    model.train()
    scores = probe_model(model, tokenizer, tiny_world)
    assert model.training
    assert probe_model(model.bert, tokenizer, tiny_world) == scores
    assert probe_model(model, tokenizer, tiny_world) == scores


def test_a_tokenizer_without_the_nouns_is_refused(tiny_world, model):
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "the"]
    other = BertTokenizerFast(vocab={word: i for i, word in enumerate(vocabulary)})
    with pytest.raises(ValueError, match="no pieces for the noun"):
        probe_model(model, other, tiny_world)


def test_a_folder_without_nouns_is_named(tmp_path, tokenizer, model):
    with pytest.raises(FileNotFoundError, match="nouns.json does not exist"):
        probe_model(model, tokenizer, tmp_path)


def test_an_untrained_model_is_near_chance_whatever_its_pieces_say(tokenizer):
    # Spelling says nothing about looks: over several worlds, a bag of word pieces does no better than chance.
    accuracies = []
    for seed in range(6):
        nouns = invent_nouns(48, seed)
        pieces = np.zeros((48, len(tokenizer)))
        for i, noun in enumerate(nouns):
            pieces[i, tokenizer(noun, add_special_tokens=False)["input_ids"]] = 1
        accuracies.append(probe_states(pieces, [look.shape for look in nouns.values()])["accuracy"])
    assert abs(np.mean(accuracies) - 0.25) < 0.08


def test_the_encoder_alone_can_be_probed(tiny_world, tokenizer):
    encoder = BertModel(bert_config("tiny", tokenizer, **SMALL))
    assert len(probe_model(encoder, tokenizer, tiny_world)) == 3
