"""Clips move, are real videos, and their files belong together."""

import json

import av
import numpy as np
from PIL import Image

from vidlankd_hf.experiments.real_nouns import clips
from vidlankd_hf.experiments.real_nouns.clips import FRAMES, SIDE, make_clips, scale_of, slide
from vidlankd_hf.experiments.real_nouns.nouns import has_attribute
from vidlankd_hf.experiments.real_nouns.pictures import find_pictures
from vidlankd_hf.experiments.real_nouns.sizes import CENTIMETERS


def test_a_picture_moves_over_a_background_that_does_not():
    frames = slide(Image.new("RGBA", (60, 90), (250, 0, 0, 255)), np.random.default_rng(3))
    assert frames.shape == (FRAMES, SIDE, SIDE, 3) and frames.dtype == np.uint8
    centers = [np.argwhere((frame == (250, 0, 0)).all(-1)).mean(0) for frame in (frames[0], frames[-1])]
    assert np.linalg.norm(centers[0] - centers[1]) > 3


def test_the_scale_of_an_object_grows_with_its_size_whatever_the_size_of_its_picture():
    nouns = sorted(CENTIMETERS, key=CENTIMETERS.get)
    scales = [scale_of(noun) for noun in nouns]
    assert scales == sorted(scales) and (scales[0], scales[-1]) == clips.SIZE_SCALES
    assert scale_of("ant") < scale_of("banana") < scale_of("dog") < scale_of("truck")
    for size in ((40, 10), (128, 32), (32, 128)):
        frames = slide(Image.new("RGBA", size, (250, 0, 0, 255)), np.random.default_rng(0), scale=0.5)
        shown = (frames == (250, 0, 0)).all(-1)
        assert (shown.sum((1, 2)) == SIDE // 2 * SIDE // 8).all()


def test_objects_of_unknown_size_have_random_scales(packages, tmp_path, monkeypatch):
    used = []
    monkeypatch.setattr(clips, "slide", lambda image, rng, scale: used.append(scale) or slide(image, rng, scale))
    pictures = find_pictures(packages, ["banana"])
    make_clips(pictures, tmp_path / "known", seed=0, keep_sizes=True)
    assert used == [scale_of("banana")] * len(pictures)
    monkeypatch.delitem(CENTIMETERS, "banana")
    make_clips(pictures, tmp_path / "unknown", seed=0, keep_sizes=True)
    assert used[len(pictures) :] == [None] * len(pictures)


def test_without_the_option_every_object_has_a_random_scale(packages, tmp_path, monkeypatch):
    used = []
    monkeypatch.setattr(clips, "slide", lambda image, rng, scale: used.append(scale) or slide(image, rng, scale))
    pictures = find_pictures(packages, ["banana"])
    make_clips(pictures, tmp_path / "clips", seed=0)
    assert used == [None] * len(pictures)


def test_clips_captions_and_nouns_belong_together(packages, tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "PATCHES_PER_COLOUR", 1)
    pictures = find_pictures(packages, ["banana"])
    assert make_clips(pictures, tmp_path / "clips", seed=0, with_patches=True) == len(pictures) + 11
    captions = [json.loads(line) for line in (tmp_path / "clips" / "captions.jsonl").read_text().splitlines()]
    shown = [json.loads(line) for line in (tmp_path / "clips" / "pictures.jsonl").read_text().splitlines()]
    videos = {path.name for path in (tmp_path / "clips" / "videos").iterdir()}
    assert {row["video"] for row in captions} == videos
    for caption, row, picture in zip(captions, shown, pictures):
        assert caption["video"] == row["video"] and row["noun"] == picture.noun
        assert picture.noun in caption["text"] and not has_attribute(caption["text"])
    with av.open(str(tmp_path / "clips" / "videos" / captions[0]["video"])) as video:
        assert sum(1 for _ in video.decode(video=0)) == FRAMES
