import json
import pickle

import numpy as np
import pytest
import torch
from captioned_videos import forge
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, Dataset

from vidlankd_hf.data import features
from vidlankd_hf.data.features import FeatureStore, ShardWriter

STREAMS = {
    "frame": {"model": "a", "rate": 1.0, "clip_length": 1},
    "clip": {"model": "b", "rate": 1.5, "clip_length": 16},
}


def make_features(num_videos=7, seed=0):
    """{video: (duration, {stream: (features, times)})} with irregular time stamps."""
    rng = np.random.default_rng(seed)
    videos = {}
    for i in range(num_videos):
        duration = float(rng.uniform(2, 9))
        streams = {}
        for name, width in {"frame": 3, "clip": 2}.items():
            times = np.sort(rng.choice(np.arange(0, duration, 0.05), rng.integers(2, 12), replace=False))
            streams[name] = (torch.randn(len(times), width), torch.tensor(times, dtype=torch.float32))
        videos[f"video{i}.mp4"] = (duration, streams)
    return videos


@pytest.fixture
def videos():
    torch.manual_seed(0)
    return make_features()


@pytest.fixture
def folder(tmp_path, videos):
    writer = ShardWriter(tmp_path / "features", STREAMS, shard_bytes=200)
    for video, (duration, streams) in videos.items():
        writer.add(video, duration, streams)
    writer.close()
    return tmp_path / "features"


def naive_read(duration, streams, start, end):
    end = duration if end is None else min(end, duration)
    (values, times), (clip_values, clip_times) = streams["frame"], streams["clip"]
    steps = [i for i, time in enumerate(times) if start <= time <= end]
    if not steps:
        steps = [int(np.argmin([abs(float(time) - (start + end) / 2) for time in times]))]
    rows = []
    for i in steps:
        nearest = int(np.argmin([abs(float(time) - float(times[i])) for time in clip_times]))
        rows.append(torch.cat([values[i].half(), clip_values[nearest].half()]))
    return torch.stack(rows), times[steps]


def test_any_span_reads_as_naive_loops_do(folder, videos):
    store = FeatureStore(folder)
    assert len(list(folder.glob("shard-*.safetensors"))) > 2
    assert store.video_ids == list(videos) and store.feature_size == 5
    rng = np.random.default_rng(1)
    for video, (duration, streams) in videos.items():
        assert store.duration(video) == duration
        spans = [(0.0, None), *((a, a + rng.uniform(0.01, 3)) for a in rng.uniform(0, duration * 0.99, 20))]
        for start, end in spans:
            features, times = store.read(video, start, end)
            expected, expected_times = naive_read(duration, streams, start, end)
            assert features.dtype == torch.float16 and times.dtype == torch.float32
            assert torch.equal(features, expected) and torch.equal(times, expected_times)


class Reads(Dataset):
    def __init__(self, store):
        self.store = store

    def __len__(self):
        return len(self.store)

    def __getitem__(self, index):
        return self.store.read(self.store.video_ids[index])[0].float().sum()


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_read_the_same_after_the_parent_has_read(folder, method):
    data = Reads(FeatureStore(folder))
    expected = [data[i] for i in range(len(data))]
    loaded = [batch[0] for batch in DataLoader(data, num_workers=1, multiprocessing_context=method)]
    assert loaded == expected


def test_a_pickled_store_reads_the_same(folder):
    store = FeatureStore(folder)
    features, _ = store.read("video0.mp4")
    assert torch.equal(pickle.loads(pickle.dumps(store)).read("video0.mp4")[0], features)


def test_an_unfinished_folder_is_not_read_and_is_written_anew(tmp_path, videos):
    writer = ShardWriter(tmp_path, STREAMS, shard_bytes=1)
    for video, (duration, streams) in videos.items():
        writer.add(video, duration, streams)
    with pytest.raises(FileNotFoundError, match="manifest.json"):
        FeatureStore(tmp_path)
    again = ShardWriter(tmp_path, STREAMS)
    again.add("only.mp4", *videos["video0.mp4"])
    again.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "index.jsonl",
        "manifest.json",
        "shard-00000.safetensors",
        "shard-00000.safetensors.xxh3",
    ]
    assert FeatureStore(tmp_path).video_ids == ["only.mp4"]


def test_a_finished_folder_is_not_written_to(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match="already holds finished features"):
        ShardWriter(folder, STREAMS)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_damaged_or_missing_shard_is_named(folder):
    FeatureStore(folder).verify()
    shard = folder / "shard-00001.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match="shard-00001.safetensors is damaged"):
        FeatureStore(folder).verify()
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="lacks shard-00001.safetensors"):
        FeatureStore(folder)


def test_shard_of_another_precision_is_named(folder):
    name = FeatureStore(folder).entry("video0.mp4")["shard"]
    save_file({n: t.double() for n, t in load_file(folder / name).items()}, folder / name)
    forge(folder)
    with pytest.raises(ValueError, match=f"{name}: .* is F64, but shards hold F16, F32"):
        FeatureStore(folder).read("video0.mp4")


def test_few_shards_are_open_at_a_time(folder, videos, monkeypatch):
    monkeypatch.setattr(features, "MAX_OPEN", 2)
    store = FeatureStore(folder)
    assert len({store.entry(video)["shard"] for video in videos}) > 2
    for _ in range(2):
        for video, (_, streams) in videos.items():
            torch.testing.assert_close(store.read(video)[0][:, :3], streams["frame"][0].half())
            assert len(store._open_shards) <= 2


def test_missing_folders_other_versions_and_unknown_videos_are_named(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        FeatureStore(tmp_path / "nowhere")
    with pytest.raises(KeyError, match="has no features of video 'other.mp4'"):
        FeatureStore(folder).read("other.mp4")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format_version": 99}))
    with pytest.raises(ValueError, match="format_version is 99"):
        FeatureStore(folder)


def test_a_span_must_start_inside_the_video(folder):
    store = FeatureStore(folder)
    duration = store.duration("video0.mp4")
    outside = [
        (duration, None),
        (duration + 1, duration + 2),
        (-1.0, 1.0),
        (1.0, 1.0),
        (1.5, 1.0),
        (0.0, float("nan")),
    ]
    for start, end in outside:
        with pytest.raises(ValueError, match=f"Video 'video0.mp4' lasts {duration:.3f} s: the span from {start}"):
            store.read("video0.mp4", start, end)
    assert torch.equal(store.read("video0.mp4", 0.0, duration + 5)[0], store.read("video0.mp4")[0])


@pytest.mark.parametrize("offset", [-3, -(10**6), 10**6])
def test_an_index_that_points_outside_the_shard_is_refused(folder, offset):
    lines = [json.loads(line) for line in open(folder / "index.jsonl")]
    lines[0]["streams"]["frame"][0] = offset
    (folder / "index.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    forge(folder)
    with pytest.raises(ValueError, match="damaged"):
        FeatureStore(folder).read(lines[0]["video"])


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda streams: streams.pop("clip"), "must have"),
        (lambda streams: streams.update(clip=(torch.ones(2, 9), torch.tensor([0.0, 1.0]))), "width 9"),
        (lambda streams: streams.update(clip=(torch.ones(0, 2), torch.ones(0))), "N >= 1"),
        (lambda streams: streams.update(clip=(torch.ones(3, 2), torch.tensor([0.0, 1.0]))), "N >= 1"),
        (lambda streams: streams["clip"][0].fill_(float("nan")), "not finite"),
        (lambda streams: streams["clip"][0].fill_(1e6), "not finite in float16"),
        (lambda streams: streams.update(clip=(torch.ones(2, 2), torch.tensor([1.0, 1.0]))), "increase"),
    ],
    ids=["stream missing", "other width", "empty", "lengths differ", "nan", "overflow", "times repeat"],
)
def test_features_that_do_not_fit_are_refused(tmp_path, videos, change, reason):
    writer = ShardWriter(tmp_path, STREAMS)
    writer.add("video0.mp4", *videos["video0.mp4"])
    duration, streams = videos["video1.mp4"]
    change(streams)
    with pytest.raises(ValueError, match=reason) as error:
        writer.add("video1.mp4", duration, streams)
    assert "video1.mp4" in str(error.value)


def test_ids_are_unique(tmp_path, videos):
    writer = ShardWriter(tmp_path, STREAMS)
    writer.add("video0.mp4", *videos["video0.mp4"])
    with pytest.raises(ValueError, match="'video0.mp4' was added before"):
        writer.add("video0.mp4", *videos["video0.mp4"])


def test_an_unfinished_extraction_is_not_written_over(tmp_path):
    (tmp_path / "extraction.json").write_text("{}")
    (tmp_path / "shard-00000.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="holds an extraction that is not finished"):
        ShardWriter(tmp_path, {"frame": {"model": "m", "rate": 1.0, "clip_length": 1}})
    assert (tmp_path / "shard-00000.safetensors").exists()
