from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory) -> Path:
    """A complete but small grounded world, whose backbones are barely trained."""
    from vidlankd_hf.experiments.world import build_world

    return build_world(
        tmp_path_factory.mktemp("tiny") / "world",
        num_nouns=48,
        num_videos=48,
        num_sentences=960,
        vocab_size=384,
        num_pretrain_scenes=64,
        frame_pretrain_steps=5,
        clip_pretrain_steps=5,
    )
