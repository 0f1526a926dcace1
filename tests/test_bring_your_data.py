"""What a new user does after "Bring your data": real clips, captions in several formats, features of other tools."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from backbone_files import save_backbone
from helpers import make_tokenizer
from real_data import DATA, needs_data
from transformers import ResNetConfig, ResNetModel

from vidlankd_hf import load_video_text
from vidlankd_hf.data.collators import VideoTextCollator
from vidlankd_hf.data.features import FeatureStore
from vidlankd_hf.extraction import Stream, extract_features
from vidlankd_hf.extraction.import_features import ImportedStream, import_features

CLIPS = (
    "activitynet-v_GGSY1Qvo990.mp4", "asl-book.mkv", "asl-eat.mkv", "clip-TrumanShow_wave_f_nm_np1_fr_med_26.avi",
    "clip-basketball.mp4", "clip-making_cake.mp4", "gnome-display-dual-monitors.webm",
    "gnome-launching-applications.webm", "msvd-WTf5EgVY5uU_124_128.avi", "msvd-klteYv1Uv9A_27_33.avi",
)  # fmt: skip
pytestmark = [needs_data, pytest.mark.slow]  # decoding takes 20 s


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """The features of ten real clips of four container formats."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("extracted")
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")
    backbone = save_backbone(folder / "backbone", ResNetModel(config))
    streams = [Stream("frame", backbone, 1.0), Stream("fast", backbone, 1.5)]
    return extract_features([DATA / "videos" / name for name in CLIPS], folder / "features", streams)


@pytest.fixture(scope="module")
def captions(extracted):
    """Rows (video, start, end, text) whose times are whole milliseconds, as subtitles have them."""
    rows = [json.loads(line) for line in open(DATA / "videos" / "captions.jsonl")]
    spans = [
        (row["video"], row["start"], row["end"] or extracted.duration(row["video"]), row["text"])
        for row in rows
        if row["video"] in CLIPS
    ]
    return sorted((video, round(start, 3), int(end * 1000) / 1000, text) for video, start, end, text in spans)


def as_csv(path, rows):
    with open(path / "captions.csv", "w", newline="") as file:
        csv.writer(file).writerows([("clip", "from", "to", "said"), *rows])
    return path / "captions.csv", ["video=clip", "start=from", "end=to", "text=said"]


def as_parquet(path, rows):
    videos = {video: [row for row in rows if row[0] == video] for video in CLIPS}
    table = pa.table({
        "name": list(videos),
        "intervals": [[[start, end] for _, start, end, _ in held] for held in videos.values()],
        "sentences": [[text for *_, text in held] for held in videos.values()],
    })  # fmt: skip
    pyarrow.parquet.write_table(table, path / "captions.parquet")
    return path / "captions.parquet", ["video=name", "times=intervals", "text=sentences"]


def clock(seconds):
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes:02}:{rest // 1000:02}.{rest % 1000:03}"


def as_vtt(path, rows):
    folder = path / "subtitles"
    folder.mkdir()
    for number, video in enumerate(CLIPS):
        name = f"{video.rsplit('.', 1)[0]}{'.en' if number % 2 else ''}.vtt"
        cues = [f"{clock(start)} --> {clock(end)}\n{text}\n" for name, start, end, text in rows if name == video]
        (folder / name).write_text("\n".join(["WEBVTT\n", *cues]), encoding="utf-8")
    return folder, None


def batches(features, captions, columns=None):
    """Windows by video and start, and the training batches of them all."""
    tokenizer = make_tokenizer()
    data = load_video_text(features, captions, tokenizer, seed=1, caption_columns=columns)
    rows = sorted(range(len(data)), key=lambda number: data[number]["id"])
    windows = [data[number] for number in rows]
    collate = VideoTextCollator(tokenizer, seed=1)
    samples = [{**row, "sample_id": number, "epoch": 0} for number, row in enumerate(windows)]
    return windows, [collate(samples[start : start + 6]) for start in range(0, len(samples) - 1, 6)]


def assert_equal(one, other):
    assert len(one) == len(other)
    for row, same in zip(one, other):
        assert row.keys() == same.keys()
        for name, value in row.items():
            equal = torch.equal(value, same[name]) if torch.is_tensor(value) else value == same[name]
            assert equal, name


def test_captions_in_three_formats_give_the_same_windows_and_batches(extracted, captions, tmp_path):
    forms = [write(tmp_path, captions) for write in (as_csv, as_parquet, as_vtt)]
    first, *others = (batches(extracted.folder, *form) for form in forms)
    assert {row["video"] for row in first[0]} == set(CLIPS) and len(first[1]) >= 2
    for other in others:
        assert_equal(first[0], other[0])
        assert_equal(first[1], other[1])


@pytest.mark.parametrize("kind", ["npy", "hdf5"])
def test_exported_features_that_are_imported_again_give_equal_windows(extracted, captions, tmp_path, kind):
    h5py = pytest.importorskip("h5py") if kind == "hdf5" else None
    streams = []
    for name in ("frame", "fast"):
        store, source = FeatureStore(extracted.folder, [name]), tmp_path / (name if kind == "npy" else f"{name}.h5")
        if kind == "npy":
            source.mkdir()
        file = h5py.File(source, "w") if h5py else None
        for video in store.video_ids:
            values, times = (tensor.numpy() for tensor in store.read(video))
            if file is None:
                np.save(source / f"{video}.npy", values)
                np.save(source / f"{video}.times.npy", times)
                np.save(source / f"{video}.duration.npy", store.duration(video))
            else:
                group = file.create_group(video)
                group["features"], group["times"], group["duration"] = values, times, store.duration(video)
        if file is not None:
            file.close()
        streams.append(ImportedStream.parse(f"{name}={source}"))
    imported = import_features(streams, tmp_path / "imported")
    path, columns = as_csv(tmp_path, captions)
    ours, theirs = (batches(folder, path, columns) for folder in (extracted.folder, imported.folder))
    assert len(ours[0]) >= len(CLIPS)
    assert_equal(ours[0], theirs[0])
    assert_equal(ours[1], theirs[1])
