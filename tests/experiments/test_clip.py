"""The CLIP teacher of the ablations: what it reads, how it is stored, and that it can teach."""

import json
import sys
from collections import defaultdict

import numpy as np
import pytest
from helpers import make_student
from transformers import CLIPTextModel

from vidlankd_hf import load_teacher
from vidlankd_hf.data.vocabulary import load_tokenizer
from vidlankd_hf.experiments.ablations import clip
from vidlankd_hf.experiments.ablations.runs import SeedRuns
from vidlankd_hf.experiments.world import probe_model
from vidlankd_hf.experiments.world.build import num_frames, render_video
from vidlankd_hf.experiments.world.language import cast_videos
from vidlankd_hf.experiments.world.recipe import CLIP_RECIPE
from vidlankd_hf.experiments.world.render import FPS, Look
from vidlankd_hf.models.attention import is_causal

SMALL = {"max_steps": 2, "pretrain_steps": 2, "num_pretrain_scenes": 32, "per_device_train_batch_size": 8}


def test_every_caption_has_the_frame_in_the_middle_of_its_time(tiny_world):
    looks = {entry.pop("noun"): Look(**entry) for entry in json.loads((tiny_world / "nouns.json").read_text())}
    cast = cast_videos(list(looks), 48, seed=0)
    captions = [json.loads(line) for line in (tiny_world / "captions.jsonl").read_text().splitlines()]
    texts, frames = clip.read_pairs(tiny_world, shuffle_videos=False)
    assert [text for several in texts for text in several] == [caption["text"] for caption in captions]
    for i in (0, 1, 2, 47):
        rendered = render_video(looks, cast[i], 0, i)
        own = [caption for caption in captions if caption["video"] == f"video-{i:05d}.mp4"]
        assert len(rendered) == num_frames(0, i) and len(frames[i]) == len(own)
        for caption, frame in zip(own, frames[i]):
            middle = (caption["start"] + caption["end"]) / 2 * FPS
            around = rendered[max(0, round(middle) - 1) : round(middle) + 2]
            assert min(np.abs(frame.astype(float) - other).mean() for other in around) < 8
            other = (i + 1) % 48
            assert np.abs(frame.astype(float) - render_video(looks, cast[other], 0, other)[0]).mean() > 8


@pytest.mark.slow
def test_the_control_gives_every_video_the_captions_of_another_one(tiny_world):
    own = defaultdict(list)
    for line in (tiny_world / "captions.jsonl").read_text().splitlines():
        caption = json.loads(line)
        own[caption["video"]].append(caption["text"])
    texts, frames = clip.read_pairs(tiny_world, shuffle_videos=True)
    assert sorted(texts) == sorted(own.values()) and len(frames) == len(own)
    assert all(several != others for several, others in zip(own.values(), texts))


@pytest.fixture
def runs(tiny_world, tmp_path, monkeypatch):
    for name, value in SMALL.items():
        monkeypatch.setitem(CLIP_RECIPE, name, value)
    runs = SeedRuns(1, tmp_path / "models", tmp_path / "results")
    runs.world = tiny_world
    return runs


@pytest.mark.parametrize("name", ["clip_model", pytest.param("shuffled_clip_model", marks=pytest.mark.slow)])
def test_the_clip_of_a_row_is_trained_once_and_its_text_tower_teaches_students_with_the_worlds_tokenizer(
    runs, monkeypatch, name
):
    run = runs.teacher_run(name)
    monkeypatch.setattr(sys, "argv", ["clip.py", *run.arguments])
    clip.main()
    monkeypatch.setattr("vidlankd_hf.experiments.grid.run_script", None)
    run.make(quiet=True)  # finds the finished run
    with pytest.raises(SystemExit):
        clip.main()

    teacher, tokenizer = load_teacher(run.folder), load_tokenizer(run.folder)
    assert type(teacher) is CLIPTextModel and is_causal(teacher)
    assert tokenizer("The DAX,")["input_ids"] == tokenizer("the dax,")["input_ids"]
    assert [score["num_nouns"] for score in probe_model(teacher, tokenizer, runs.world)] == [48, 48, 48]
    row = "clip_crd" if name == "clip_model" else "clip_shuffled"
    start = runs.starts_from(row)
    make_student(load_tokenizer(str(runs.world / "tokenizer"))).save_pretrained(start)
    words = runs.student_run(row).arguments
    assert words[words.index("--student") + 1] == str(start) and start == runs.starts_from("text_only")
    assert runs._sequence_flops(row) > 0 and runs.identity(row)["teacher_recipe"] == CLIP_RECIPE

    monkeypatch.setitem(CLIP_RECIPE, "max_steps", 3)
    with pytest.raises(ValueError, match="max_steps.*remove it"):
        runs.teacher_run(name).make(quiet=True)
