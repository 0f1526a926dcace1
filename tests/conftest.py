from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


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


@pytest.fixture
def workplace(monkeypatch, tmp_path):
    """An empty folder in which the repository's own folders are found."""
    for name in ("examples", "accelerate_configs", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path
