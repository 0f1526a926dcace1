"""In the shuffled control on disk, the captions of every video go with the clips of another one, each of them once."""

import numpy as np
import pytest

from vidlankd_hf.data import streaming
from vidlankd_hf.data.features import FeatureStore
from vidlankd_hf.data.other_videos import OtherVideos
from vidlankd_hf.data.video_text import split_by_video


def own_and_other(stream) -> dict[str, str]:
    """The video of the captions of each window -> the video of its clip."""
    rows = [stream[i] for i in range(len(stream))]
    pairs = {(row["id"].rpartition("#")[0], row["video"]) for row in rows}
    assert len(pairs) == len(dict(pairs)), "all windows of a video go with the same video"
    assert stream.videos() == [row["video"] for row in rows]
    return dict(pairs)


def test_captions_of_each_video_go_with_the_complete_clip_of_another(load_windows, captioned_shards, monkeypatch):
    monkeypatch.setattr(streaming, "MIN_VIDEOS", 6)  # with two there is only one way to pair them
    plain, shuffled = load_windows(), load_windows(shuffle_videos_seed=1)
    pairs = own_and_other(shuffled)
    assert sorted(pairs) == sorted(pairs.values()) and all(own != other for own, other in pairs.items())
    store = FeatureStore(captioned_shards / "features")
    for index in (0, 7, len(plain) - 1):
        for epoch in (0, 2):
            (row,), (own,) = shuffled.read([index], [epoch]), plain.read([index], [epoch])
            assert (row["id"], row["text"]) == (own["id"], own["text"])
            assert (row["start"], row["end"]) == (0.0, store.duration(row["video"]))
            features, times = store.read(row["video"])
            assert np.array_equal(row["video_features"], features) and np.array_equal(row["times"], times)
    assert own_and_other(load_windows(shuffle_videos_seed=1)) == pairs
    assert own_and_other(load_windows(shuffle_videos_seed=2)) != pairs
    prints = {stream.content_fingerprint for stream in (plain, shuffled, load_windows(shuffle_videos_seed=2))}
    assert len(prints) == 3


@pytest.mark.parametrize("held_out", [None, 0.3, 5])
def test_training_and_held_out_data_have_no_video_in_common(load_windows, held_out):
    parts = [own_and_other(part) for part in split_by_video(load_windows(shuffle_videos_seed=1), held_out)]
    for pairs in parts:
        assert sorted(pairs) == sorted(pairs.values()) and all(own != other for own, other in pairs.items())
    assert not set(parts[0]) & set(parts[1]) and len(parts[0]) + len(parts[1]) == 12


def test_one_held_out_video_cannot_be_paired_with_another(load_windows):
    with pytest.raises(ValueError, match="needs at least 2 videos .* one has 1: add videos, hold out more"):
        split_by_video(load_windows(shuffle_videos_seed=1), 1)


def test_pairs_stay_in_the_shard_and_shards_with_one_video_are_joined():
    rng = np.random.default_rng(0)
    for seed in range(50):
        begins = rng.integers(0, 4, 9)
        counts = rng.integers(0, 4, 9)
        firsts = np.array([0, 2, 3, 6, 9])
        videos = [(file, int(begins[file]) + i) for file in range(9) for i in range(counts[file])]
        if len(videos) < 2:
            continue
        others = OtherVideos(begins, begins + counts, firsts, seed)
        paired = [others.of(*video) for video in videos]
        assert sorted(paired) == videos and all(a != b for a, b in zip(videos, paired))
        sizes = np.add.reduceat(counts, firsts[:-1])
        if (sizes >= 2).all():
            shard = np.searchsorted(firsts, [v[0] for v in videos], side="right")
            assert (shard == np.searchsorted(firsts, [v[0] for v in paired], side="right")).all()
