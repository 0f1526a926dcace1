"""Every task's data in miniature, and a model to fine-tune, for the tests of evaluation."""

import pytest
import torch
from downstream_data import make_data, make_pair_tokenizer
from helpers import make_config
from transformers import BertForMaskedLM


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A model without dropout, so that runs can be compared."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = make_pair_tokenizer()
    torch.manual_seed(0)
    BertForMaskedLM(make_config(tokenizer, dropout=0.0)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
