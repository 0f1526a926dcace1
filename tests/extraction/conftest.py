"""Backbones with random weights, and videos, for the tests of extraction."""

import numpy as np
import pytest
import torch
from backbone_files import save_backbone
from transformers import ResNetConfig, ResNetModel, VideoMAEConfig, VideoMAEModel

from vidlankd_hf.experiments.world.render import Look, render_scene, write_video
from vidlankd_hf.extraction.streams import paper_streams


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    """The paper's streams, of random ones: (pictures, clips)."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("backbones")
    frame = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic"))
    clip = VideoMAEModel(
        VideoMAEConfig(
            image_size=32,
            patch_size=16,
            num_frames=16,
            tubelet_size=4,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
    )
    return paper_streams(
        save_backbone(folder / "frame", frame),
        save_backbone(folder / "clip", clip, image_processor_type="VideoMAEImageProcessor"),
    )


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Three videos of 25, 12 and 5 frames at 12 a second."""
    folder = tmp_path_factory.mktemp("videos")
    for i, num_frames in enumerate([25, 12, 5]):
        looks = [Look("green", "cross", "slides")]
        write_video(folder / f"{i}.mp4", render_scene(looks, num_frames, np.random.default_rng(i))[0])
    (folder / "captions.jsonl").write_text("{}\n")
    return folder
