"""Captions get the right span of the right video, all captions are used, and faulty ones are refused."""

import json
import pickle
import re

import numpy as np
import pytest
import torch
from captioned_videos import caption, write_captions, write_features
from datasets import Dataset
from helpers import WORDS, make_config, make_tokenizer

from vidlankd_hf import (
    TeacherConfig,
    TeacherTrainer,
    VideoTextCollator,
    VidLanKDTeacher,
    VidLanKDTeacherConfig,
    load_video_text,
)
from vidlankd_hf.data.captions import read_captions
from vidlankd_hf.data.features import FeatureStore
from vidlankd_hf.data.pairing import VideoNames, pair_captions
from vidlankd_hf.data.video_text import split_by_video
from vidlankd_hf.data.windows import tile
from vidlankd_hf.models.configuration import video_config_like
from vidlankd_hf.training.sampler import EpochDataset


@pytest.fixture
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def features(tmp_path):
    return write_features(tmp_path / "features", {"a.mp4": 20.0, "b.mp4": 10.0, "c.mp4": 5.0})


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


def test_captions_that_overlap_or_are_within_others_make_a_window_that_spans_them_all(tmp_path, tokenizer, features):
    lines = [caption("a.mp4", 4, 9, "word3"), caption("a.mp4", 2, 12, "word1"), caption("a.mp4", 2, 3, "word2")]
    row = load_video_text(features, write_captions(tmp_path / "c.jsonl", lines + REST), tokenizer)[0]
    assert (row["text"], row["start"], row["end"]) == ("word2 word1 word3", 2.0, 12.0), "in the order of their times"
    assert row["times"].tolist() == [t + 0.5 for t in range(2, 12)]


def test_captions_given_twice_are_both_read(tmp_path, tokenizer, features):
    """Lines of jsonl have no id, so a repetition may have been spoken."""
    path = write_captions(tmp_path / "c.jsonl", [caption("a.mp4", 2, 4), caption("a.mp4", 2, 4), *REST])
    assert load_video_text(features, path, tokenizer)[0]["text"] == "word1 word2 word1 word2"


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


def test_two_videos_are_held_out_so_that_evaluation_has_negatives_or_none_at_all(tmp_path, tokenizer, features):
    path = write_captions(tmp_path / "c.jsonl", [caption("a.mp4", 2, 4), *REST])
    dataset = load_video_text(features, path, tokenizer)
    _, held_out = split_by_video(dataset, 0.05)
    assert len(set(held_out.with_format(None)["video"])) == 2
    assert split_by_video(dataset, 0) == (dataset, None)


def test_number_of_videos_is_held_out_or_by_default_a_share_of_limited_size(monkeypatch):
    dataset = Dataset.from_dict({"video": [f"v{i // 5}" for i in range(500)]})
    sizes = {held_out: len(split_by_video(dataset, held_out)[1]) for held_out in (None, 0.05, 7, 0.5)}
    assert sizes == {None: 25, 0.05: 25, 7: 35, 0.5: 250}
    monkeypatch.setattr("vidlankd_hf.data.video_text.MOST_HELD_OUT", 17)
    train, held_out = split_by_video(dataset)
    assert (len(train), len(held_out)) == (485, 15) and not set(train["video"]) & set(held_out["video"])
    assert len(split_by_video(dataset, 0.05)[1]) == 25, "a share that is asked for is kept"
    for wrong in (-0.1, 1.5, 100):
        with pytest.raises(ValueError, match="--held_out_videos"):
            split_by_video(dataset, wrong)


# ---- windows of every epoch ----


@pytest.fixture
def long_features(tmp_path):
    return write_features(tmp_path / "long", {"a.mp4": 200.0, "b.mp4": 100.0})


def long_captions(tmp_path):
    lengths = np.random.default_rng(0).integers(2, 12, 100)
    lines = [
        caption(video, 2 * t, 2 * t + 2, " ".join(WORDS[(t + i) % 60] for i in range(lengths[t])))
        for video, count in (("a.mp4", 100), ("b.mp4", 50))
        for t in range(count)
    ]
    return write_captions(tmp_path / "long.jsonl", lines), lines


def test_windows_of_every_epoch_tile_all_lines_and_start_at_other_ones(tmp_path, tokenizer, long_features):
    path, lines = long_captions(tmp_path)
    dataset = load_video_text(long_features, path, tokenizer, max_length=64, seed=3)
    by_epoch = EpochDataset(dataset)
    starts = []
    for epoch in range(4):
        rows = by_epoch.__getitems__([epoch * len(dataset) + i for i in range(len(dataset))])
        assert [row["id"] for row in rows] == dataset.with_format(None)["id"][:], "as many windows in every epoch"
        assert " ".join(row["text"] for row in rows) == " ".join(line["text"] for line in lines)
        assert all(0 < len(row["text"].split()) <= 62 for row in rows)
        for row, following in zip(rows, rows[1:]):
            assert row["end"] == following["start"] or row["video"] != following["video"]
            assert row["times"][0] == row["start"] + 0.5 and row["times"][-1] == row["end"] - 0.5
        starts.append({(row["video"], row["start"]) for row in rows if row["start"] > 0})
    for i in range(4):
        for j in range(i):
            assert len(starts[i] & starts[j]) < 0.6 * len(starts[i]), "nearly the same windows in two epochs"
    plain = EpochDataset(load_video_text(long_features, path, tokenizer, max_length=64))
    assert plain[5]["text"] == by_epoch[5]["text"] == plain[3 * len(dataset) + 5]["text"], "without a seed none moves"


def test_window_is_a_pure_function_of_seed_epoch_and_index(tmp_path, tokenizer, long_features):
    """So a resumed run, another worker and another order get the same windows."""
    path, _ = long_captions(tmp_path)

    def rows(seed, keys, copy=False):
        dataset = EpochDataset(load_video_text(long_features, path, tokenizer, max_length=64, seed=seed))
        dataset = pickle.loads(pickle.dumps(dataset)) if copy else dataset
        return [
            (row["sample_id"], row["epoch"], row["text"], row["times"].tolist())
            for row in map(dataset.__getitem__, keys)
        ]

    size = len(load_video_text(long_features, path, tokenizer, max_length=64))
    keys = [2 * size + 7, 5, size + 1, 2 * size + 8]
    expected = rows(3, keys)
    assert rows(3, keys[::-1], copy=True) == expected[::-1]
    assert rows(4, keys) != expected


def test_windows_move_for_part_of_the_data_and_for_shuffled_videos(tmp_path, tokenizer, long_features):
    path, lines = long_captions(tmp_path)
    dataset = load_video_text(long_features, path, tokenizer, max_length=64, seed=3)
    train, _ = split_by_video(dataset, 0.5)
    part = EpochDataset(train)
    expected = {
        row["id"]: row["text"] for row in EpochDataset(dataset).__getitems__(range(len(dataset), 2 * len(dataset)))
    }
    rows = part.__getitems__(range(len(train), 2 * len(train)))
    assert [row["text"] for row in rows] == [expected[row["id"]] for row in rows]
    shuffled = load_video_text(long_features, path, tokenizer, max_length=64, seed=3, shuffle_videos_seed=0)
    rows = EpochDataset(shuffled).__getitems__(range(len(dataset), 2 * len(dataset)))
    assert [row["text"] for row in rows] == list(expected.values())
    assert all(len(row["times"]) == {"a.mp4": 200, "b.mp4": 100}[row["video"]] for row in rows)
    assert all(row["id"].split("#")[0] != row["video"] for row in rows)


def test_tilings_have_the_fewest_windows_and_fit_whatever_the_shift():
    rng = np.random.default_rng(0)
    for _ in range(500):
        limit = int(rng.integers(3, 20))
        tokens = rng.integers(1, limit + 1, rng.integers(1, 30))
        fewest = 0
        room = 0
        for count in tokens:
            fewest, room = (fewest, room - count) if room >= count else (fewest + 1, limit - count)
        for shift in (0.0, rng.random(), 1.0):
            bounds = tile(tokens, limit, shift)
            assert len(bounds) == fewest + 1 and bounds[0] == 0 and bounds[-1] == len(tokens)
            assert all(0 < tokens[a:b].sum() <= limit for a, b in zip(bounds, bounds[1:]))


# ---- captions and videos without a counterpart ----


def test_captions_are_matched_to_videos_by_name_with_or_without_suffix_and_language():
    ids = ["a.mp4", "b.webm", "c", "d.x.mkv", "both.mp4", "both.avi"]
    names = {"a": "a.mp4", "b.webm": "b.webm", "c.mp4": "c", "d.x.pt-BR": "d.x.mkv", "both.avi": "both.avi"}
    found = VideoNames(ids)
    assert {name: found.find(name) for name in names} == names
    assert [found.find(name) for name in ("a.mp3", "z", "b.mp4")] == [None] * 3
    with pytest.raises(ValueError, match="'both' in the captions fits both 'both.avi' and 'both.mp4'"):
        found.find("both")
    with pytest.raises(ValueError, match="'a' and 'a.en' in the captions both refer to 'a.mp4': keep one"):
        found.find("a.en")


def test_subtitle_folder_is_paired_with_its_videos(tmp_path, tokenizer, features):
    folder = tmp_path / "subtitles"
    folder.mkdir()
    (folder / "a.en.srt").write_text("1\n00:00:02,000 --> 00:00:04,000\nword1 word2\n")
    (folder / "b.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:03.000\nword3\n")
    (folder / "c.csv").write_text("start,end,text\n0,2,word4\n")
    rows = list(load_video_text(features, folder, tokenizer).with_format(None))
    assert [(r["video"], r["start"], r["end"], r["text"]) for r in rows] == [
        ("a.mp4", 2, 4, "word1 word2"),
        ("b.mp4", 1, 3, "word3"),
        ("c.mp4", 0, 2, "word4"),
    ]


UNPAIRED = [
    *(caption("a.mp4", t, t + 1) for t in range(7)),
    caption("x.mp4", 0, 1),
    caption("a.mp4", 19, 22),
    caption("b.mp4", 10, 11),
]


def test_unpaired_up_to_the_share_are_left_out_counted_and_listed(tmp_path, tokenizer, features, caplog):
    path = write_captions(tmp_path / "c.jsonl", UNPAIRED)
    with pytest.raises(ValueError, match=r"max_unpaired is 0.5, but 0.67 is needed"):
        load_video_text(features, path, tokenizer, max_unpaired=0.5)
    dataset = load_video_text(features, path, tokenizer, max_unpaired=0.67)
    assert dataset.with_format(None)["text"][:] == [" ".join(["word1 word2"] * 7)]
    for part in ("1 caption of 1 video not in", "2 captions outside", "2 videos without caption"):
        assert re.search(part, caplog.text)
    pairs = pair_captions(FeatureStore(features), read_captions(path))
    pairs.unpaired.write(tmp_path / "unpaired.jsonl")
    listed = [json.loads(line) for line in (tmp_path / "unpaired.jsonl").read_text().splitlines()]
    assert [(row["what"], row["video"]) for row in listed] == [
        ("caption without video", "x.mp4"),
        ("caption outside video", "a.mp4"),
        ("caption outside video", "b.mp4"),
        ("video without captions", "b.mp4"),
        ("video without captions", "c.mp4"),
    ]


def test_captions_of_other_videos_only_are_an_error_at_any_share(tmp_path, tokenizer, features):
    path = write_captions(tmp_path / "c.jsonl", [caption("x.mp4", 0, 1)])
    with pytest.raises(ValueError, match="not in .*'x.mp4'"):
        load_video_text(features, path, tokenizer, max_unpaired=1.0)
    with pytest.raises(ValueError, match="max_unpaired is 5"):
        load_video_text(features, path, tokenizer, max_unpaired=5)


@pytest.mark.parametrize(
    "rows, message",
    [
        ([caption("a.mp4", 2, 4), caption("x.mp4", 0, 1), *REST], "1 caption of 1 video not in .*'x.mp4'"),
        ([caption("a.mp4", 2, 4), REST[0]], "1 video without caption .*'c.mp4'"),
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


@pytest.mark.slow
def test_resumed_training_sees_the_windows_of_its_epoch(tmp_path, tokenizer, long_features):
    """A run resumed inside the second epoch gets the same weights bit for bit; fixed windows give other weights."""
    path, _ = long_captions(tmp_path)

    def run(name, seed=3, resume=None):
        torch.manual_seed(0)
        text = make_config(tokenizer, 0.0)
        teacher = VidLanKDTeacher(VidLanKDTeacherConfig(text_config=text, video_config=video_config_like(text, 2)))
        args = TeacherConfig(
            output_dir=str(tmp_path / name), max_steps=8, save_steps=6, per_device_train_batch_size=4, seed=5,
            learning_rate=1e-3, max_length=64, use_cpu=True, report_to="none", disable_tqdm=True,
        )  # fmt: skip
        dataset = load_video_text(long_features, path, tokenizer, max_length=64, seed=seed)
        assert len(dataset) // 4 < 6 < 2 * (len(dataset) // 4), "step 6 must be inside the second epoch"
        trainer = TeacherTrainer(model=teacher, args=args, train_dataset=dataset, processing_class=tokenizer)
        trainer.train(resume_from_checkpoint=resume)
        return torch.cat([p.flatten() for p in teacher.parameters()])

    uninterrupted = run("whole")
    resumed = run("resumed", resume=str(tmp_path / "whole" / "checkpoint-6"))
    assert torch.equal(uninterrupted, resumed)
    assert not torch.equal(uninterrupted, run("fixed", seed=None))


@pytest.mark.parametrize(
    "tag", ["en", "en-US", "es-419", "fil", "zh-Hans", "zh-Hans-en", "en-nP7-2PuUl7o", "en-orig", "pt_BR", "eng"]
)
def test_language_tags_of_subtitle_files_are_no_part_of_the_name(tag):
    assert VideoNames(["talk.mp4", "other.mp4"]).find(f"talk.{tag}") == "talk.mp4"
    assert VideoNames(["a-b_C9x.webm"]).find(f"a-b_C9x.{tag}") == "a-b_C9x.webm"


def test_the_suffix_of_a_video_is_no_language():
    assert VideoNames(["talk.mp4"]).find("talk.mkv") is None
