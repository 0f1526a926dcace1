"""HowTo100M's files become shards with the same values at the same times; unusable files are listed."""

import json
import os
import pickle

import numpy as np
import pytest
import torch
from helpers import make_tokenizer

from vidlankd_hf import load_video_text
from vidlankd_hf.data.features import FeatureStore
from vidlankd_hf.data.howto100m import convert_howto100m

WIDTHS = (6, 4)
SECONDS = {"aaaaaaaaaaa": 20, "b_-bbbbbbbb": 7, "ccccccccccc": 31}


def write(folder, captions=None):
    """Features under each naming scheme, and captions as json."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, rate, width in (("2d", 1.0, WIDTHS[0]), ("3d", 1.5, WIDTHS[1])):
        for i, (video, seconds) in enumerate(SECONDS.items()):
            path = folder / name / ("part" if i == 2 else "") / f"{video}{['', '.mp4', '.webm'][i]}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            array = rng.normal(size=(int(seconds * rate), width)).astype([np.float32, np.float16, np.float32][i])
            np.save(path, array)
            arrays[video, name] = array.astype(np.float16)
    if captions is None:
        lines = {video: [(t, min(t + 3, seconds)) for t in range(0, seconds, 2)] for video, seconds in SECONDS.items()}
        captions = {
            video: {
                "start": [start for start, _ in spans],
                "end": [end for _, end in spans],
                "text": [f"word{i} word{i + 1} word{i + 2}" for i in range(len(spans))],
            }
            for video, spans in lines.items()
        }
    (folder / "caption.json").write_text(json.dumps(captions))
    return arrays


def convert(folder, **options):
    return convert_howto100m(
        folder / "2d", folder / "3d", folder / options.pop("captions", "caption.json"), folder / "out",
        **{"widths": WIDTHS, **options},
    )  # fmt: skip


def misses(folder):
    return [json.loads(line) for line in (folder / "out" / "misses.jsonl").read_text().splitlines()]


def test_features_and_captions_round_trip_and_are_read_at_the_right_time(tmp_path):
    arrays = write(tmp_path)
    counts = convert(tmp_path, shard_bytes=300)
    assert counts == {"videos": 3, "captions": 30} and misses(tmp_path) == []
    store = FeatureStore(tmp_path / "out")
    store.verify()
    assert set(store.video_ids) == set(SECONDS) and len(list((tmp_path / "out").glob("shard-*"))) > 1
    for video, seconds in SECONDS.items():
        assert store.duration(video) == seconds
        features, times = store.read(video)
        assert times.tolist() == [i + 0.5 for i in range(seconds)]
        assert np.array_equal(features[:, :6].numpy(), arrays[video, "2d"])
        centers = (np.arange(len(arrays[video, "3d"])) + 0.5) / 1.5
        nearest = [int(np.argmin(np.abs(centers - time))) for time in times.numpy()]
        assert np.array_equal(features[:, 6:].numpy(), arrays[video, "3d"][nearest])
    for streaming in (False, True):
        dataset = load_video_text(
            tmp_path / "out", tmp_path / "out" / "captions.jsonl", make_tokenizer(),
            streaming=streaming, cache_dir=tmp_path / "cache",
        )  # fmt: skip
        row = next(row for row in dataset if row["video"] == "b_-bbbbbbbb")
        assert row["times"].tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5]
        assert row["text"] == "word0 word1 word2 word3 word4 word5", "what lines repeat is read once"


def test_csv_captions_are_read_too(tmp_path):
    write(tmp_path)
    (tmp_path / "csv").mkdir()
    for video in SECONDS:
        (tmp_path / "csv" / f"{video}.csv").write_text("start,end,text\n0.5,2.5,word1\n3,5,word2\n")
    assert convert(tmp_path, captions="csv")["captions"] == 6


class Bomb:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def bomb(path):
    np.save(path, np.array([Bomb(path.parent / "it-ran")], dtype=object), allow_pickle=True)


def raw_pickle(path):
    path.write_bytes(pickle.dumps(Bomb(path.parent / "it-ran")))


def archive(path):
    with open(path, "wb") as file:
        np.savez(file, a=np.ones((3, 6), np.float32))


def with_value(value):
    return lambda path: np.save(path, np.full((20, 6), value, np.float32))


@pytest.mark.parametrize(
    "damage, detail",
    [
        (bomb, "is not an array of features"),
        (raw_pickle, "is not an array of features"),
        (archive, "is an archive, but must be"),
        (lambda path: np.save(path, np.ones((20, 5), np.float32)), "has width 5, but must have 6"),
        (lambda path: np.save(path, np.ones((20, 6), np.int64)), "is int64 .20, 6., but must be floating"),
        (lambda path: np.save(path, np.ones(20, np.float32)), "is float32 .20., but must be"),
        (lambda path: np.save(path, np.ones((0, 6), np.float32)), "N >= 1|not an array"),
        (with_value(np.nan), "not finite"),
        (with_value(1e6), "not finite in float16"),
        (lambda path: path.write_bytes(b""), "not an array"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "not an array"),
    ],
    ids=["bomb", "pickle", "npz", "width", "integers", "one dimension", "no rows", "nan", "overflow", "empty", "cut"],
)
def test_file_that_cannot_be_used_is_listed_and_nothing_runs(tmp_path, damage, detail):
    write(tmp_path)
    damage(tmp_path / "2d" / "aaaaaaaaaaa.npy")
    with pytest.raises(ValueError, match=f"1 of 3 videos cannot be converted.*'aaaaaaaaaaa'.*({detail})"):
        convert(tmp_path)
    assert not (tmp_path / "out" / "manifest.json").exists()
    counts = convert(tmp_path, max_missing=0.34)
    assert counts == {"videos": 2, "captions": 20, "features that cannot be used": 1}
    assert [(miss["video"], miss["reason"]) for miss in misses(tmp_path)] == [
        ("aaaaaaaaaaa", "features that cannot be used")
    ]
    assert set(FeatureStore(tmp_path / "out").video_ids) == {"b_-bbbbbbbb", "ccccccccccc"}
    assert not (tmp_path / "2d" / "it-ran").exists()


def test_videos_without_one_of_the_three_and_captions_outside_are_listed(tmp_path):
    write(tmp_path)
    captions = json.loads((tmp_path / "caption.json").read_text())
    captions["ddddddddddd"] = {"start": [0], "end": [1], "text": ["word1"]}
    captions["b_-bbbbbbbb"]["start"][-1], captions["b_-bbbbbbbb"]["end"][-1] = 8, 9
    (tmp_path / "caption.json").write_text(json.dumps(captions))
    for name, video in (("2d", "only2d"), ("3d", "only3d"), ("2d", "silent"), ("3d", "silent"), ("2d", "twice"),
                        ("2d", "twice.mp4"), ("3d", "twice")):  # fmt: skip
        np.save(tmp_path / name / f"{video}.npy", np.ones((9, WIDTHS[name == "3d"]), np.float32))
    with pytest.raises(ValueError, match="3 of 7 videos .*max_missing .0.3."):
        convert(tmp_path, max_missing=0.3)
    counts = convert(tmp_path, max_missing=0.7)
    assert counts == {
        "videos": 3, "captions": 29, "two files": 1, "no 3D features": 1, "no 2D features": 1,
        "caption outside the video": 1, "captions without features": 1, "features without captions": 1,
    }  # fmt: skip
    assert sorted(miss["video"] for miss in misses(tmp_path)) == [
        "b_-bbbbbbbb", "ddddddddddd", "only2d", "only3d", "silent", "twice",
    ]  # fmt: skip
    load_video_text(tmp_path / "out", tmp_path / "out" / "captions.jsonl", make_tokenizer())  # all of it fits


def test_other_folders_and_finished_folders_are_refused(tmp_path):
    write(tmp_path)
    with pytest.raises(ValueError, match="max_missing is 3"):
        convert(tmp_path, max_missing=3)
    (tmp_path / "empty").mkdir()
    for name in ("empty", "none"):
        with pytest.raises(ValueError, match=f"{name} is not a folder with a .npy file for each video"):
            convert_howto100m(tmp_path / name, tmp_path / "3d", tmp_path / "caption.json", tmp_path / "out")
    convert(tmp_path)
    before = (tmp_path / "out" / "captions.jsonl").read_bytes()
    with pytest.raises(ValueError, match="already holds finished features"):
        convert(tmp_path)
    assert (tmp_path / "out" / "captions.jsonl").read_bytes() == before
    lines = [
        {"video": v, "start": 0, "end": 1, "text": "word1"} for v in ("aaaaaaaaaaa", "ccccccccccc", "aaaaaaaaaaa")
    ]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match="'aaaaaaaaaaa' are not consecutive"):
        convert_howto100m(
            tmp_path / "2d", tmp_path / "3d", tmp_path / "c.jsonl", tmp_path / "other", 1.0, WIDTHS
        )  # fmt: skip
    assert torch.equal(*(FeatureStore(tmp_path / "out").read("ccccccccccc")[0] for _ in range(2)))
