"""The recipe with CLIP and VideoMAE extracts the features that the models give, and a teacher trains on them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import WORDS, make_tokenizer
from transformers import AutoConfig, AutoModel
from vision_families import VIT, save_family

from vidlankd_hf.data.features import FeatureStore
from vidlankd_hf.extraction.backbones import Backbone, normalized
from vidlankd_hf.extraction.decode import VideoReader
from vidlankd_hf.extraction.pixels import resized
from vidlankd_hf.extraction.streams import Stream

ROOT = Path(__file__).parents[2]
FRAMES = 16


def save_videomae(folder):
    """A tiny VideoMAE that sees 16 frames, as the one of the recipe."""
    save_family(folder, "videomae")
    torch.manual_seed(0)
    config = AutoConfig.for_model("videomae", **VIT, num_frames=FRAMES, tubelet_size=2)
    AutoModel.from_config(config).eval().save_pretrained(folder)
    return folder


def run(script, *arguments):
    command = [sys.executable, str(ROOT / "examples" / f"{script}.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_the_recipe_with_clip_and_a_3d_encoder_of_16_frames(tmp_path, videos):
    clip, videomae = save_family(tmp_path / "clip", "clip"), save_videomae(tmp_path / "videomae")
    recipe = yaml.safe_load((ROOT / "examples" / "recipes" / "clip_base.yaml").read_text())
    models = dict(zip(("frame", "clip"), (clip, videomae)))
    streams = []
    for stream in recipe["extract_features"]["streams"]:
        name, _, asked = stream.partition("=")
        streams.append(f"{name}={models[name]}@{asked.rpartition('@')[2]}")
    assert [stream.rpartition("@")[2] for stream in streams] == ["1", f"24x{FRAMES}"]
    recipe["extract_features"] |= {"videos": str(videos), "output_dir": f"{tmp_path}/features", "streams": streams,
                                   "precision": "fp32"}  # fmt: skip
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    store_path = tmp_path / "features"
    config = tmp_path / "recipe.yaml"
    config.write_text(yaml.safe_dump(recipe))
    run("extract_features", "--config", config)
    store = FeatureStore(store_path)
    assert [settings["width"] for settings in store.streams.values()] == [16, 32]
    assert [settings["rate"] for settings in store.streams.values()] == [1.0, 1.5]

    video = store.video_ids[0]
    frames = {0: [], 1: []}
    for i, _, image in VideoReader(videos / video).sample([1, 24]):
        frames[i].append(image)
    images, network = Backbone(Stream("frame", clip, 1.0), "cpu"), AutoModel.from_pretrained(clip).eval()
    pixels = normalized(torch.from_numpy(np.stack([resized(f, images.pixels) for f in frames[0]])), images.pixels)
    with torch.no_grad():
        expected = network.get_image_features(pixels.reshape(-1, 3, 32, 32)).pooler_output
    found = FeatureStore(store_path, ["frame"]).read(video)[0]
    torch.testing.assert_close(found.float(), expected, atol=2e-3, rtol=2e-3)

    clips, network = (
        Backbone(Stream("clip", videomae, 24.0, FRAMES), "cpu"),
        AutoModel.from_pretrained(videomae).eval(),
    )
    first = np.stack([resized(f, clips.pixels) for f in frames[1][:FRAMES]])
    with torch.no_grad():
        states = network(normalized(torch.from_numpy(first)[None], clips.pixels)).last_hidden_state
    found, times = FeatureStore(store_path, ["clip"]).read(video)
    torch.testing.assert_close(found[0].float(), states[0].mean(0), atol=2e-3, rtol=2e-3)
    assert float(times[0]) == pytest.approx(FRAMES / 24 / 2, abs=0.05)

    rng, lines = np.random.default_rng(0), []
    for name in store.video_ids:
        for start in np.arange(0, store.duration(name), 0.25).tolist():
            text = " ".join(rng.choice(WORDS, 12))
            end = min(start + 0.25, store.duration(name))
            lines.append({"video": name, "start": start, "end": end, "text": text})
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe["pretrain_teacher"] |= {
        "features": str(store_path), "captions": f"{tmp_path}/captions.jsonl", "tokenizer": f"{tmp_path}/tokenizer",
        "output_dir": f"{tmp_path}/teacher", "cache_dir": f"{tmp_path}/cache", "text_model": "tiny", "max_length": 16,
        "max_steps": 2, "per_device_train_batch_size": 8, "held_out_videos": 0, "bf16": False, "use_cpu": True,
        "warmup_steps": 0, "report_to": "none", "dataloader_num_workers": 2,
    }  # fmt: skip
    config.write_text(yaml.safe_dump(recipe))
    run("pretrain_teacher", "--config", config)
    taught = json.loads((tmp_path / "teacher" / "config.json").read_text())
    assert taught["video_config"]["feature_size"] == 16 + 32
