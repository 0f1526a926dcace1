"""`vidlankd prepare` makes what training with the same settings opens."""

import json
import sys

import numpy as np
import pytest
import yaml
from helpers import WORDS, example, make_tokenizer, make_vision_language_model, refusal

from vidlankd_hf import load_text_blocks, load_video_text
from vidlankd_hf.data import text_blocks
from vidlankd_hf.data.vocabulary import load_tokenizer
from vidlankd_hf.data.window_writer import WindowWriter


@pytest.fixture
def recipe(tmp_path):
    rng, captions = np.random.default_rng(0), {}
    for number in range(4):
        for name, rate, width in (("2d", 1.0, 6), ("3d", 1.5, 4)):
            (tmp_path / name).mkdir(exist_ok=True)
            np.save(tmp_path / name / f"v{number}.npy", rng.normal(size=(int(20 * rate), width)).astype(np.float16))
        spoken = [" ".join(rng.choice(WORDS, 5)) for _ in range(9)]
        starts = [2 * i for i in range(9)]
        captions[f"v{number}"] = {"start": starts, "end": [start + 1 for start in starts], "text": spoken}
    (tmp_path / "caption.json").write_text(json.dumps(captions))
    (tmp_path / "text.txt").write_text("\n".join(" ".join(rng.choice(WORDS, 20)) for _ in range(50)))
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    made = str(tmp_path / "features")
    content = {
        "convert_howto100m": {"features_2d": str(tmp_path / "2d"), "features_3d": str(tmp_path / "3d"),
                              "captions": str(tmp_path / "caption.json"), "output_dir": made, "width_2d": 6,
                              "width_3d": 4},
        "pretrain_teacher": {"features": made, "captions": f"{made}/captions.jsonl", "streaming": True,
                             "tokenizer": str(tmp_path / "tokenizer"), "max_length": 20, "bf16": True,
                             "output_dir": str(tmp_path / "teacher"), "cache_dir": str(tmp_path / "cache")},
        "distill": {"teacher": str(tmp_path / "teacher"), "text": str(tmp_path / "text.txt"), "student": "tiny",
                    "block_tokens": 20, "objectives": {"nst": 1}, "cache_dir": str(tmp_path / "cache"), "bf16": True},
    }  # fmt: skip

    def write(**changes) -> str:
        sections = {name: {**settings, **changes.get(name, {})} for name, settings in content.items()}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(sections))
        return str(tmp_path / "recipe.yaml")

    return write


def prepare(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["vidlankd prepare", *words])
    example("prepare").main()


def test_windows_and_blocks_are_those_that_training_opens(tmp_path, recipe, monkeypatch, capsys):
    prepare(monkeypatch, "--config", recipe(), "--num_proc", "2")
    said = capsys.readouterr().out
    assert "videos 4, captions 36" in said and "blocks of 20 tokens" in said
    monkeypatch.setattr(WindowWriter, "write", None)
    monkeypatch.setattr(text_blocks, "write_blocks", None)
    tokenizer = load_tokenizer(str(tmp_path / "tokenizer"))
    tokenizer.save_pretrained(tmp_path / "teacher")  # as a trained teacher is saved
    made = tmp_path / "features"
    options = {"max_length": 20, "streaming": True, "cache_dir": tmp_path / "cache"}
    assert len(load_video_text(made, made / "captions.jsonl", tokenizer, seed=3, **options))
    teacher = load_tokenizer(str(tmp_path / "teacher"))
    assert len(load_text_blocks(tmp_path / "text.txt", teacher, tmp_path / "cache", block_tokens=20)) == 50
    prepare(monkeypatch, "--config", recipe())  # nothing is left to do


def test_text_is_aligned_for_a_teacher_with_another_tokenizer(tmp_path, recipe, monkeypatch, capsys):
    tokenizer = make_tokenizer(WORDS[::-1])
    make_vision_language_model("align", tokenizer).save_pretrained(tmp_path / "clip")
    tokenizer.save_pretrained(tmp_path / "clip")
    student = {"teacher": str(tmp_path / "clip"), "tokenizer": str(tmp_path / "tokenizer")}
    prepare(monkeypatch, "--config", recipe(distill=student))
    (folder,) = (tmp_path / "cache").glob("blocks-*")
    assert (folder / "teacher_ids.npy").exists()


def test_what_cannot_be_prepared_is_refused_or_said(tmp_path, recipe, monkeypatch, capsys):
    assert "give --config" in refusal(monkeypatch, "prepare")
    (tmp_path / "other.yaml").write_text("finetune: {model: x}")
    assert "none of the sections convert_howto100m" in refusal(
        monkeypatch, "prepare", "--config", str(tmp_path / "other.yaml")
    )
    path = recipe(convert_howto100m={"width": 3})
    assert "has no setting 'width'" in refusal(monkeypatch, "prepare", "--config", path)
    path = recipe(distill={"text": None})
    assert "lacks text or teacher" in refusal(monkeypatch, "prepare", "--config", path)
    capsys.readouterr()
    prepare(monkeypatch, "--config", recipe(pretrain_teacher={"streaming": False}))
    assert "nothing to prepare, because streaming is false" in capsys.readouterr().out
