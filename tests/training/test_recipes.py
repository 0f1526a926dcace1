"""Each recipe runs from the published files to a student, on data and models that are tiny."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import WORDS, make_tokenizer

ROOT = Path(__file__).parents[2]
RECIPES = [ROOT / "examples" / "recipes" / f"{name}.yaml" for name in ("small", "base", "paper_small", "paper_base")]
SECONDS, VIDEOS = 90, 12


def write_downloads(folder):
    rng, captions = np.random.default_rng(0), {}
    for number in range(VIDEOS):
        video = f"video{number:06d}"
        for name, rate in (("2d", 1.0), ("3d", 1.5)):
            (folder / name).mkdir(exist_ok=True)
            features = rng.standard_normal((int(SECONDS * rate), 2048)).astype(np.float16)
            np.save(folder / name / f"{video}.mp4.npy", features)
        starts = list(range(0, SECONDS - 3, 3))
        texts = [" ".join(rng.choice(WORDS, 20)) for _ in starts]
        captions[video] = {"start": starts, "end": [start + 3 for start in starts], "text": texts}
    (folder / "caption.json").write_text(json.dumps(captions))
    (folder / "text.txt").write_text("\n".join(" ".join(rng.choice(WORDS, 40)) for _ in range(200)))
    make_tokenizer().save_pretrained(folder / "tokenizer")


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_prepares_trains_and_distills(tmp_path, path):
    write_downloads(tmp_path)
    recipe = yaml.safe_load(path.read_text())
    small = {"fp16": False, "bf16": False, "use_cpu": True, "max_steps": 2, "per_device_train_batch_size": 4,
             "warmup_steps": 0, "cache_dir": f"{tmp_path}/cache", "report_to": "none"}  # fmt: skip
    places = {"features_2d": "2d", "features_3d": "3d", "captions": "caption.json", "output_dir": "features"}
    recipe["convert_howto100m"] |= {name: f"{tmp_path}/{place}" for name, place in places.items()}
    recipe["pretrain_teacher"] |= {
        **small, "features": f"{tmp_path}/features", "captions": f"{tmp_path}/features/captions.jsonl",
        "tokenizer": f"{tmp_path}/tokenizer", "output_dir": f"{tmp_path}/teacher", "text_model": "tiny",
        "held_out_videos": 3,
    }  # fmt: skip
    recipe["distill"] |= {
        **small, "teacher": f"{tmp_path}/teacher", "text": f"{tmp_path}/text.txt", "student": "tiny",
        "output_dir": f"{tmp_path}/student", "held_out_text": 8,
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for script in ("prepare", "pretrain_teacher", "distill"):
        command = [sys.executable, str(ROOT / "examples" / f"{script}.py"), "--config", str(tmp_path / "recipe.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "student" / "model.safetensors").exists()
