"""A caption meets the right stretch of the right video, whole videos are used, and misfits are refused."""

import json

import pytest
import torch
from helpers import WORDS, make_tokenizer

from vidlankd_hf import VideoTextCollator, load_video_text
from vidlankd_hf.data.captions import read_captions
from vidlankd_hf.data.epochs import EpochDataset
from vidlankd_hf.data.pairing import split_by_video
from vidlankd_hf.data.shards import ShardWriter


def write_features(folder, durations):
    """One feature a second: its first value is the second, its second the video's number."""
    writer = ShardWriter(folder, {"frame": {"model": "none", "rate": 1.0, "clip_length": 1}})
    for number, (video, duration) in enumerate(durations.items()):
        times = torch.arange(int(duration)) + 0.5
        features = torch.stack([torch.arange(int(duration)).float(), torch.full((int(duration),), float(number))], 1)
        writer.add(video, duration, {"frame": (features.half(), times)})
    writer.close()
    return folder


def write_captions(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def features(tmp_path):
    return write_features(tmp_path / "features", {"a.mp4": 20.0, "b.mp4": 10.0, "c.mp4": 5.0})


def caption(video, start, end, text="word1 word2"):
    return {"video": video, "start": start, "end": end, "text": text}


REST = [caption("b.mp4", 0, None), caption("c.mp4", 1, 4)]


def test_window_holds_the_features_of_its_time_span(tmp_path, tokenizer, features):
    path = write_captions(tmp_path / "c.jsonl", [caption("a.mp4", 2, 4), caption("a.mp4", 4, 7.2), *REST])
    dataset = load_video_text(features, path, tokenizer)
    assert dataset.with_format(None)["id"][:] == ["a.mp4#0", "b.mp4#0", "c.mp4#0"]
    row = dataset[0]
    assert row["text"] == "word1 word2 word1 word2" and row["video"] == "a.mp4"
    assert row["video_features"][:, 0].tolist() == [2, 3, 4, 5, 6]
    assert row["times"].tolist() == [2.5, 3.5, 4.5, 5.5, 6.5]
    assert len(dataset[1]["times"]) == 10, "no end means to the end of the video"
    batch = VideoTextCollator(tokenizer)(EpochDataset(dataset).__getitems__([0, 1, 2]))
    assert batch["video_mask"].sum(1).tolist() == [5, 10, 3]


def test_windows_cover_all_captions_of_a_video(tmp_path, tokenizer, features):
    """The released code used the first ~126 words only."""
    lines = [caption("a.mp4", t / 4, t / 4 + 0.25, " ".join(WORDS[(t + i) % 60] for i in range(7))) for t in range(60)]
    path = write_captions(tmp_path / "c.jsonl", lines + REST)
    dataset = load_video_text(features, path, tokenizer, max_length=32)
    rows = [row for row in dataset.with_format(None) if row["video"] == "a.mp4"]
    assert " ".join(r["text"] for r in rows) == " ".join(line["text"] for line in lines)
    assert all(len(r["text"].split()) <= 30 for r in rows)
    assert rows[0]["start"] == 0 and rows[-1]["end"] == 15
    assert all(a["end"] == b["start"] for a, b in zip(rows, rows[1:]))


def test_caption_longer_than_a_window_is_divided_and_nothing_lost(tmp_path, tokenizer, features):
    text = " ".join(WORDS[i % 60] for i in range(100))
    path = write_captions(tmp_path / "c.jsonl", [caption("a.mp4", 0, 20, text), *REST])
    rows = [
        r for r in load_video_text(features, path, tokenizer, max_length=32).with_format(None) if r["video"] == "a.mp4"
    ]
    assert " ".join(r["text"] for r in rows) == text
    assert [len(r["text"].split()) for r in rows] == [30, 30, 30, 10]
    assert [(round(r["start"], 6), round(r["end"], 6)) for r in rows] == [(0, 6), (6, 12), (12, 18), (18, 20)]


def test_shuffled_videos_pair_every_caption_with_another_video(tmp_path, tokenizer, features):
    path = write_captions(tmp_path / "c.jsonl", [caption("a.mp4", 2, 4), *REST])
    dataset = load_video_text(features, path, tokenizer, shuffle_videos_seed=0)
    seen = [int(row["video_features"][0, 1]) for row in dataset]
    assert sorted(seen) == [0, 1, 2] and all(s != i for i, s in enumerate(seen))


def test_held_out_windows_are_of_other_videos(tmp_path, tokenizer, features):
    path = write_captions(tmp_path / "c.jsonl", [caption("a.mp4", t, t + 1) for t in range(19)] + REST)
    train, held_out = split_by_video(load_video_text(features, path, tokenizer, max_length=8), 0.34)
    assert not set(train.with_format(None)["video"]) & set(held_out.with_format(None)["video"])
    assert len(train) + len(held_out) == len(load_video_text(features, path, tokenizer, max_length=8))


@pytest.mark.parametrize(
    "rows, message",
    [
        ([caption("a.mp4", 2, 4), caption("x.mp4", 0, 1), *REST], "1 videos that are not in .*'x.mp4'"),
        ([caption("a.mp4", 2, 4), REST[0]], "1 videos in .* no caption .*'c.mp4'"),
        ([caption("a.mp4", 2, 40), *REST], "from 2.0 s to 40.0 s, but the video ends at 20.00 s"),
        ([caption("a.mp4", 25, None), *REST], "from 25.0 s"),
        ([caption("a.mp4", 5, 5), *REST], "line 1: start 5 and end 5"),
        ([caption("a.mp4", -1, 5), *REST], "line 1: start -1"),
        ([*REST, caption("a.mp4", 0, 5, "  ")], "line 3: .*non-empty"),
        ([*REST, {"video": "a.mp4"}], "line 3: not a JSON object"),
        ([*REST, caption("a.mp4", "soon", 5)], "line 3: start 'soon'"),
        ([], "holds no caption"),
    ],
)
def test_misfits_are_errors_that_name_the_caption(tmp_path, tokenizer, features, rows, message):
    path = write_captions(tmp_path / "c.jsonl", rows)
    with pytest.raises(ValueError, match=message):
        load_video_text(features, path, tokenizer)


def test_captions_that_are_not_there_or_not_utf8_are_errors(tmp_path):
    with pytest.raises(ValueError, match="not found"):
        read_captions(tmp_path / "none.jsonl")
    (tmp_path / "latin.jsonl").write_bytes('{"video": "a", "text": "caf\u00e9"}'.encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8"):
        read_captions(tmp_path / "latin.jsonl")
