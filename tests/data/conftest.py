"""Fixtures of the tests of windows that are read from disk."""

import pytest
from captioned_videos import write_captioned_shards
from helpers import make_tokenizer

from vidlankd_hf import load_video_text
from vidlankd_hf.data import streaming
from vidlankd_hf.training import sampler as sampler_module


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def captioned_shards(tmp_path_factory):
    return write_captioned_shards(tmp_path_factory.mktemp("data"))


@pytest.fixture
def load_windows(captioned_shards, tokenizer, monkeypatch):
    monkeypatch.setattr(sampler_module, "BLOCK_SAMPLES", 5)
    monkeypatch.setattr(streaming, "MIN_VIDEOS", 2)

    def load_windows(seed=3, streaming=True, **options):
        options = {"max_length": 14, "cache_dir": captioned_shards / "cache", **options}
        return load_video_text(
            captioned_shards / "features",
            captioned_shards / "captions.jsonl",
            tokenizer,
            seed=seed,
            streaming=streaming,
            **options,
        )

    return load_windows
