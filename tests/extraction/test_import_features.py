"""Features that another tool extracted become the same shards, whatever file they come in."""

import io
import json
import os
import pickle
import sys
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from captioned_videos import caption, write_captions
from helpers import make_tokenizer

from vidlankd_hf import load_video_text
from vidlankd_hf.data.features import FeatureStore, ShardWriter
from vidlankd_hf.extraction import import_features as module
from vidlankd_hf.extraction.import_features import ImportedStream, import_features

WIDTHS = {"frame": 5, "clip": 3}


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A folder of our own shards: uneven times, durations that no rate gives."""
    folder = tmp_path_factory.mktemp("ours")
    writer = ShardWriter(folder / "features", {name: {"model": "m", "rate": 1.0} for name in WIDTHS})
    rng = np.random.default_rng(0)
    for number in range(4):
        streams = {}
        for name, width in WIDTHS.items():
            steps = 9 + number if name == "frame" else 14
            times = np.sort(rng.uniform(0, 12, steps)).astype(np.float32)
            streams[name] = torch.from_numpy(rng.normal(size=(steps, width)).astype(np.float16)), torch.tensor(times)
        writer.add(f"v{number}.mp4", 12.25 + number, streams)
    writer.close()
    rows = [caption(f"v{n}.mp4", t, t + 2, "word1 word2") for n in range(4) for t in range(0, 11, 3)]
    write_captions(folder / "captions.jsonl", rows)
    return folder


def contents(folder, name):
    """(id, features, times, duration) of each video of one stream."""
    store = FeatureStore(folder, [name])
    for video in store.video_ids:
        features, times = store.read(video)
        yield video, features.numpy(), times.numpy(), np.float64(store.duration(video))


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def as_npy(features, target, name):
    (target / name / "deep").mkdir(parents=True)
    for i, (video, values, times, duration) in enumerate(contents(features, name)):
        folder = target / name / ("deep" if i % 2 else "")
        for end, array in (("npy", values), ("times.npy", times), ("duration.npy", duration)):
            (folder / f"{video}.{end}").write_bytes(npy(array))
    return target / name


def as_npz(features, target, name):
    (target / name).mkdir()
    for video, values, times, duration in contents(features, name):
        np.savez_compressed(target / name / f"{video}.npz", features=values, times=times, duration=duration)
    return target / name


def as_hdf5(features, target, name):
    h5py = pytest.importorskip("h5py")
    with h5py.File(target / f"{name}.h5", "w") as file:
        for video, values, times, duration in contents(features, name):
            group = file.create_group(f"train/{video}")
            group.create_dataset("features", data=values, chunks=(2, values.shape[1]), compression="gzip")
            group["times"], group["duration"] = times, duration
    return target / f"{name}.h5"


def as_tar(features, target, name):
    (target / name).mkdir()
    for i, (video, values, times, duration) in enumerate(contents(features, name)):
        with tarfile.open(target / name / f"{i % 2}.tar", "a") as tar:
            for end, array in (("times.npy", times), ("npy", values), ("duration.npy", duration)):
                member = tarfile.TarInfo(f"part/{video}.{end}")
                member.size = len(npy(array))
                tar.addfile(member, io.BytesIO(npy(array)))
    return target / name


def table(features, name):
    rows = list(contents(features, name))
    return pa.table({
        "video": [video for video, *_ in rows],
        "features": pa.array([list(values) for _, values, *_ in rows], pa.list_(pa.list_(pa.float16()))),
        "times": [times for _, _, times, _ in rows],
        "duration": [duration for *_, duration in rows],
    })  # fmt: skip


def as_parquet(features, target, name):
    pyarrow.parquet.write_table(table(features, name), target / f"{name}.parquet", row_group_size=3)
    return target / f"{name}.parquet"


def as_arrow(features, target, name):
    held = table(features, name)
    with pa.OSFile(str(target / f"{name}.arrow"), "wb") as file, pa.ipc.new_stream(file, held.schema) as writer:
        writer.write_table(held, max_chunksize=3)
    return target / f"{name}.arrow"


@pytest.mark.parametrize("write", [as_npy, as_npz, as_hdf5, as_tar, as_parquet, as_arrow])
def test_our_features_in_another_format_are_imported_to_equal_windows(ours, tmp_path, write):
    streams = [ImportedStream(name, str(write(ours / "features", tmp_path, name))) for name in WIDTHS]
    store = import_features(streams, tmp_path / "imported", shard_bytes=400)
    store.verify()
    assert [store.duration(f"v{number}.mp4") for number in range(4)] == [12.25, 13.25, 14.25, 15.25]
    assert len(list((tmp_path / "imported").glob("shard-*.safetensors"))) > 1
    windows = [
        {
            (row["video"], row["start"]): row
            for row in load_video_text(folder, ours / "captions.jsonl", make_tokenizer())
        }
        for folder in (ours / "features", tmp_path / "imported")
    ]
    assert len(windows[0]) >= 4 and windows[0].keys() == windows[1].keys()
    for key, row in windows[0].items():
        for name, value in row.items():
            other = windows[1][key][name]
            assert torch.equal(value, other) if torch.is_tensor(value) else value == other, name


def test_rate_gives_times_in_the_middle_of_steps_and_streams_may_share_a_file(tmp_path):
    (tmp_path / "in").mkdir()
    for video in ("a", "b"):
        np.savez(tmp_path / "in" / f"{video}.npz", frame=np.ones((6, 5)), clip=np.zeros((9, 3), np.float32, order="F"))
    texts = [f"frame={tmp_path}/in::frame@1", f"clip={tmp_path}/in::clip@1.5"]
    store = import_features([ImportedStream.parse(text) for text in texts], tmp_path / "out")
    features, times = store.read("a")
    assert times.tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5] and store.duration("a") == 6
    assert features.tolist() == [[1.0] * 5 + [0.0] * 3] * 6
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["num_steps"] == {"frame": 12, "clip": 18} and manifest["streams"]["clip"]["rate"] == 1.5


def test_interrupted_import_keeps_finished_tasks(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for number in range(4):
        np.save(tmp_path / "in" / f"{number}.npy", np.full((50, 4), number, np.float32))
    streams, whole, count = [ImportedStream("frame", str(tmp_path / "in"), rate=1.0)], module._import_shard, []

    def stopped(work, number, *rest):
        count.append(number)
        if len(count) == 3:
            raise KeyboardInterrupt
        return whole(work, number, *rest)

    monkeypatch.setattr(module, "_import_shard", stopped)
    with pytest.raises(KeyboardInterrupt):
        import_features(streams, tmp_path / "out", shard_bytes=1000)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("shard-*.safetensors")}
    assert len(before) == 2 and not (tmp_path / "out" / "manifest.json").exists()
    store = import_features(streams, tmp_path / "out", shard_bytes=1000)
    assert count == [0, 1, 2, 2, 3]
    assert all((tmp_path / "out" / name).stat().st_mtime_ns == time for name, time in before.items())
    assert [store.read(str(number))[0][0, 0].item() for number in range(4)] == [0, 1, 2, 3]


class Bomb:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def objects(folder):
    np.save(folder / "b.npy", np.array([Bomb(folder / "ran")], dtype=object), allow_pickle=True)


def object_in_npz(folder):
    (folder / "b.npy").unlink()
    np.savez(folder / "b.npz", features=np.array([Bomb(folder / "ran")], dtype=object))


def saved(array):
    return lambda folder: np.save(folder / "b.npy", array)


def with_bytes(change):
    return lambda folder: (folder / "b.npy").write_bytes(change((folder / "b.npy").read_bytes()))


@pytest.mark.parametrize("damage, reason, detail", [
    (objects, "unreadable", "b.npy is object .1., but it must be floating point.*save numbers, not objects"),
    (object_in_npz, "unreadable", "b.npz::features is object"),
    (lambda folder: (folder / "b.npy").write_bytes(pickle.dumps(Bomb(folder / "ran"))), "unreadable", "not a .npy"),
    (saved(np.ones((20, 6), np.int64)), "unreadable", r"b.npy is int64 \[20, 6\], but it must.*astype"),
    (saved(np.ones((20, 6), np.longdouble)), "unreadable", "is float128"),
    (saved(np.ones(20)), "wrong shape", r"b.npy is float64 \[20\], but it must be"),
    (saved(np.ones((0, 6))), "wrong shape", r"\[0, 6\]"),
    (saved(np.ones((20, 5))), "wrong width", "has width 5, but the first video has 6"),
    (saved(np.diag([1.0, 1, np.nan, 1, 1, 1])), "not finite", "step 2, value 2 is nan"),
    (saved(np.full((20, 6), 1e6)), "not finite", "step 0, value 0 is 1000000.0, but.*65504"),
    (with_bytes(lambda content: b""), "unreadable", "not a .npy"),
    (with_bytes(lambda content: content[:-8]), "unreadable", "truncated or damaged.*takes 960 bytes, but.* 952"),
], ids=["objects", "objects in npz", "pickle", "integers", "longdouble", "one dimension", "no steps", "width", "nan",
        "overflow", "empty", "cut"])  # fmt: skip
def test_bad_video_is_left_out_by_name_and_nothing_runs(tmp_path, damage, reason, detail):
    folder = tmp_path / "in"
    folder.mkdir()
    for video in "abc":
        np.save(folder / f"{video}.npy", np.ones((20, 6)))
    damage(folder)
    (folder / "notes.txt").write_text("no features")
    streams = [ImportedStream("frame", str(folder), rate=1.0)]
    with pytest.raises(ValueError, match="1 of 3 videos failed, but --max_failed is 0"):
        import_features(streams, tmp_path / "out")
    store = import_features(streams, tmp_path / "out", max_failed=1)
    assert store.video_ids == ["a", "c"] and not (folder / "ran").exists()
    (line,) = map(json.loads, (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines())
    assert line["reason"] == reason and str(folder) in line["detail"]
    with pytest.raises(AssertionError, match=detail):
        raise AssertionError(line["detail"])
    (line,) = map(json.loads, (tmp_path / "out" / "left_out.jsonl").read_text().splitlines())
    assert line["path"].endswith("notes.txt")


def failure(tmp_path, *texts):
    with pytest.raises(ValueError) as caught:
        import_features([ImportedStream.parse(text) for text in texts], tmp_path / "out")
    return str(caught.value)


def test_times_and_rate_exclude_each_other_and_times_increase(tmp_path):
    np.savez(tmp_path / "a.npz", features=np.ones((3, 2)), times=np.array([0.0, 2.0, 2.0]))
    assert "a.npz has times: leave out @RATE" in failure(tmp_path, f"frame={tmp_path}/a.npz@1")
    assert "step 2 is at 2 s, but times must be finite" in failure(tmp_path, f"frame={tmp_path}/a.npz")
    np.save(tmp_path / "b.npy", np.ones((3, 2)))
    assert "b.npy has no times: give a rate" in failure(tmp_path, f"frame={tmp_path}/b.npy")


def test_bad_source_says_what_is_allowed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert "holds no features: give files that end with .npy" in failure(tmp_path, f"frame={tmp_path}/a@1")
    assert "does not exist" in failure(tmp_path, f"frame={tmp_path}/none@1")
    assert "must be positive" in str(pytest.raises(ValueError, ImportedStream.parse, "frame=a@0").value)
    assert "Write name=SOURCE@RATE" in str(pytest.raises(ValueError, ImportedStream.parse, "a b=c").value)
    with tarfile.open(tmp_path / "a" / "x.tar.gz", "w:gz"):
        pass
    (tmp_path / "a" / "x.tar.gz").rename(tmp_path / "a" / "x.tar")
    assert "x.tar is not an uncompressed tar" in failure(tmp_path, f"frame={tmp_path}/a@1")
    (tmp_path / "a" / "x.tar").unlink()
    np.save(tmp_path / "a" / "v.npy", np.ones((3, 2)))
    np.save(tmp_path / "b" / "v.npy", np.ones((3, 2)))
    assert "both hold video 'v'" in failure(tmp_path, f"frame={tmp_path}@1")
    (tmp_path / "b" / "v.npy").rename(tmp_path / "b" / "w.npy")
    problem = failure(tmp_path, f"frame={tmp_path}/a@1", f"clip={tmp_path}/b@1")
    assert "'v' has features in frame, but not in" in problem
    pyarrow.parquet.write_table(pa.table({"id": ["v"], "features": [[[1.0], [2.0, 3.0]]]}), tmp_path / "t.parquet")
    assert "but not 'video': name the column of ids" in failure(tmp_path, f"frame={tmp_path}/t.parquet@1")
    streams = [ImportedStream("frame", str(tmp_path / "t.parquet"), rate=1.0)]
    with pytest.raises(ValueError, match=r"t.parquet, row 0, features has rows of \[1, 2\] values"):
        import_features(streams, tmp_path / "out", id_column="id")


def test_hdf5_without_h5py_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "a.h5").write_bytes(b"")
    with pytest.raises(ImportError, match=r'h5py is not installed: .*"vidlankd_hf\[hdf5\]"'):
        import_features([ImportedStream("frame", str(tmp_path / "a.h5"), rate=1.0)], tmp_path / "out")


def test_hdf5_that_refers_to_another_file_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    (tmp_path / "raw").write_bytes(np.ones((3, 2), np.float32).tobytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", (3, 2), np.float32, external=[(str(tmp_path / "raw"), 0, 24)])
        file["elsewhere"] = h5py.ExternalLink("b.h5", "b")
    assert "a.h5::a is a group or refers to other files" in failure(tmp_path, f"frame={tmp_path}/a.h5@1")
