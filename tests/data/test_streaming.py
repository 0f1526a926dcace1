"""Windows on disk equal the windows in memory, in every epoch; held-out windows are of other videos."""

import numpy as np
import pytest
import torch
from streamed_windows import ids, make_sampler

from vidlankd_hf.data.fingerprint import data_fingerprint
from vidlankd_hf.data.video_text import split_by_video
from vidlankd_hf.training.sampler import EpochDataset


def test_stream_has_the_windows_of_the_data_in_memory_in_every_epoch(load_windows):
    stream, in_memory = load_windows(), load_windows(streaming=False)
    assert len(stream.shard_sizes) > 3 and len(stream) == len(in_memory) > 60
    for epoch in (0, 1, 5):
        expected = EpochDataset(in_memory).__getitems__(range(epoch * len(stream), (epoch + 1) * len(stream)))
        expected = {row["id"]: row for row in expected}
        rows = EpochDataset(stream).__getitems__(list(make_sampler(stream, epoch=epoch)))
        assert sorted(row["id"] for row in rows) == sorted(expected), "nothing is dropped or doubled"
        for row in rows:
            other = expected[row["id"]]
            assert set(row) == set(other) and row["epoch"] == epoch
            assert [row[name] for name in ("video", "text", "start", "end")] == [
                other[name] for name in ("video", "text", "start", "end")
            ]
            assert torch.equal(row["video_features"], other["video_features"])
            assert torch.equal(row["times"], other["times"])


@pytest.mark.parametrize("streaming", [True, False])
def test_candidates_are_the_texts_of_the_nearest_windows_of_the_video_in_the_same_epoch(load_windows, streaming):
    plain, dataset = load_windows(streaming=streaming), load_windows(streaming=streaming, mil_candidates=5)
    changed = 0
    for epoch in (0, 1, 5):
        keys = range(epoch * len(plain), (epoch + 1) * len(plain))
        expected = {row["id"]: row for row in EpochDataset(plain).__getitems__(keys)}
        assert all("candidates" not in row for row in expected.values())
        for row in EpochDataset(dataset).__getitems__(keys):
            video, number = row["id"].split("#")
            around = [expected.get(f"{video}#{int(number) + k}") for k in (-2, -1, 1, 2)]
            assert row.pop("candidates") == [other["text"] for other in around if other]
            assert row["text"] == expected[row["id"]]["text"] and set(row) == set(expected[row["id"]])
            assert torch.equal(row["video_features"], expected[row["id"]]["video_features"])
            changed += None in around
    assert 0 < changed < 3 * len(plain), "some windows are at an edge of their video, some are not"
    assert data_fingerprint(plain) != data_fingerprint(dataset) != data_fingerprint(load_windows(mil_candidates=3))
    assert data_fingerprint(plain) == data_fingerprint(load_windows(streaming=streaming))


def test_candidates_are_texts_of_held_out_videos_too(load_windows):
    for part in split_by_video(load_windows(mil_candidates=3), 0.3):
        texts = {row["text"] for row in part}
        assert all(set(row["candidates"]) <= texts for row in part)


def test_an_even_number_of_candidates_is_refused(load_windows):
    with pytest.raises(ValueError, match="mil_candidates is 4.*odd number such as 5"):
        load_windows(mil_candidates=4)


def test_stream_is_a_map_style_data_set(load_windows):
    stream = load_windows()
    rows = list(stream)
    keyed = EpochDataset(stream)
    assert [(row["id"], 0, i) for i, row in enumerate(rows)] == ids(map(keyed.__getitem__, range(len(stream))))
    assert [row["video"] for row in rows] == stream.videos()
    with pytest.raises(IndexError, match=f"no window {len(stream)}: give 0 to {len(stream) - 1}"):
        stream[len(stream)]


def test_stream_of_features_that_does_not_exist_is_refused(load_windows):
    with pytest.raises(ValueError, match="has no stream 'sound'"):
        load_windows(streams=["sound"])


def test_windows_stay_without_a_seed(load_windows):
    def texts(stream, epoch):
        return [row["text"] for row in stream.read(range(len(stream)), [epoch] * len(stream))]

    assert texts(load_windows(seed=None), 3) == texts(load_windows(seed=None), 0)
    assert texts(load_windows(), 3) != texts(load_windows(), 0)


def test_held_out_windows_are_of_other_videos_and_none_is_lost(load_windows):
    stream = load_windows()
    train, held_out = split_by_video(stream, 0.3)
    assert not set(train.videos()) & set(held_out.videos()) and set(held_out.videos())
    assert len(train) + len(held_out) == len(stream)
    assert sorted(s["id"] for part in (train, held_out) for s in part) == sorted(s["id"] for s in stream)
    assert train.videos()[7] == train[7]["video"]
    with pytest.raises(ValueError, match="cannot hold out 12 of 12 videos"):
        split_by_video(stream, 0.9999)


@pytest.mark.parametrize("share", [None, 1e-9])
def test_share_is_at_least_two_videos_so_that_evaluation_has_negatives(load_windows, share):
    _, held_out = load_windows().split_by_video(share)
    assert len(set(held_out.videos())) >= 2


def test_number_of_videos_is_held_out_or_by_default_a_share_of_limited_size(load_windows, monkeypatch):
    stream = load_windows()
    assert len(set(split_by_video(stream, 4)[1].videos())) == 4
    with pytest.raises(ValueError, match="cannot hold out 12 of 12 videos"):
        split_by_video(stream, 12)
    for method in (stream.split_by_video, lambda wrong: split_by_video(stream, wrong)):
        with pytest.raises(ValueError, match="--held_out_videos is -1: give a share below 1"):
            method(-1)
    monkeypatch.setattr("vidlankd_hf.data.streaming.HELD_OUT_SHARE", 0.7)
    many = split_by_video(stream)[1]
    monkeypatch.setattr("vidlankd_hf.data.streaming.MOST_HELD_OUT", len(stream) // 4)
    few = split_by_video(stream)[1]
    assert len(many) > len(stream) / 2 > len(few)


@pytest.mark.parametrize("shuffle", [None, 5])
def test_drawn_windows_are_those_of_the_stream(load_windows, shuffle):
    stream = load_windows(shuffle_videos_seed=shuffle)
    drawn = stream.draw(9, seed=1)
    assert len(drawn) == 9 and drawn.with_format(None)["id"] == stream.draw(9, seed=1).with_format(None)["id"]
    assert drawn.with_format(None)["id"] != stream.draw(9, seed=2).with_format(None)["id"]
    everything = {row["id"]: row for row in stream.read(range(len(stream)), [0] * len(stream))}
    for row, described in zip(drawn, drawn.with_format(None)):
        expected = everything[row["id"]]
        assert {name: row[name] for name in ("video", "text", "start", "end")} == {
            name: expected[name] for name in ("video", "text", "start", "end")
        }
        assert np.array_equal(row["video_features"], expected["video_features"])
        assert described["video"] == expected["video"] and "video_features" not in described
    places = [list(everything).index(row["id"]) for row in drawn]
    assert places == sorted(places), "so that each shard is read once"
    with pytest.raises(ValueError, match="cannot draw 10000 of .* windows"):
        stream.draw(10_000, seed=1)
