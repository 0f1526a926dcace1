"""The error about a model or tokenizer that cannot be loaded names it."""

import pytest

from vidlankd_hf.data.vocabulary import load_tokenizer


def test_mistyped_name_is_named_without_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="bert-bse does not exist .* or its cache: give its folder, or a Hub id"):
        load_tokenizer("bert-bse")


def test_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path} cannot be loaded: "):
        load_tokenizer(str(tmp_path))
