"""What is said about a model or tokenizer that cannot be loaded."""

import pytest
from helpers import make_tokenizer

from vidlankd_hf.data.vocabulary import load_tokenizer


def test_mistyped_name_is_named_without_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="bert-bse does not exist .* or its cache: give its folder, or a Hub id"):
        load_tokenizer("bert-bse")


def test_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path} cannot be loaded: "):
        load_tokenizer(str(tmp_path))


def test_tokenizer_of_a_folder_with_a_processor_loads(tmp_path):
    make_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    (tmp_path / "processor_config.json").write_text('{"processor_class": "CLIPProcessor"}')
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "CLIPImageProcessor"}')
    assert load_tokenizer(str(tmp_path)).get_vocab() == make_tokenizer().get_vocab()


def test_a_package_that_a_tokenizer_needs_is_named(tmp_path, monkeypatch):
    def missing(*args, **kwargs):
        raise ImportError("T5Tokenizer requires the SentencePiece library")

    monkeypatch.setattr("vidlankd_hf.data.vocabulary.AutoTokenizer.from_pretrained", missing)
    with pytest.raises(ValueError, match="a package that is not installed: T5Tokenizer requires"):
        load_tokenizer(str(tmp_path))
