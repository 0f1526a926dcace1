"""Bad files, non-finite features, full disks and kills are reported, and lose nothing that was written."""

import errno
import json
import os
import signal
import struct

import av
import numpy as np
import pytest
import torch
from video_files import write_cut_short, write_grey_video, write_large, write_sound

from vidlankd_hf.data import feature_shards
from vidlankd_hf.data.features import FeatureStore
from vidlankd_hf.data.sealed_json import read_sealed, sealed
from vidlankd_hf.extraction import extract_features
from vidlankd_hf.extraction.backbones import Backbone
from vidlankd_hf.extraction.tasks import ShardTask

ONE_A_SHARD = 100  # bytes, so that each video has its own shard


def write_zero_fps(path):
    """An AVI file whose headers say 0 frames a second."""
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 64, "yuv420p"
        for level in range(20, 220, 20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 32, 3), level, np.uint8), "rgb24")))
        container.mux(stream.encode())
    content = bytearray(path.read_bytes())
    main, header = content.index(b"avih") + 8, content.index(b"strh") + 8
    content[main : main + 4] = struct.pack("<I", 0)  # microseconds a frame
    content[header + 24 : header + 28] = struct.pack("<I", 0)  # rate
    path.write_bytes(content)


def write_wrong_suffix(path):
    write_grey_video(path.with_suffix(".mkv"), range(0, 2000, 200)).rename(path)


BAD = {
    "empty.mp4": lambda path: path.write_bytes(b""),
    "text.mp4": lambda path: path.write_text("no video\n" * 1000),
    "sound.mp4": write_sound,
    "truncated.mp4": write_cut_short,
}
REASONS = {"empty.mp4": "unreadable", "text.mp4": "unreadable", "sound.mp4": "no video", "truncated.mp4": "truncated"}
ODD = {
    "one frame.mp4": lambda path: write_grey_video(path, [0]),
    "zero fps.avi": write_zero_fps,
    "matroska.mp4": write_wrong_suffix,
    "large.mkv": write_large,
}


def read_all(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def quarantined(folder):
    return [json.loads(line) for line in open(folder / "quarantine.jsonl")]


def test_bad_files_are_listed_and_everything_else_is_extracted(tmp_path, videos, backbones, caplog):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name, write in {**BAD, **ODD}.items():
        write(folder / name)
    (folder / "good.mp4").write_bytes((videos / "0.mp4").read_bytes())
    (folder / "notes.txt").write_text("no video either, and not named like one")
    with pytest.raises(ValueError, match="4 of 9 videos failed, but --max_failed is 3") as error:
        extract_features(folder, tmp_path / "features", backbones, max_failed=3)
    assert str(tmp_path / "features" / "quarantine.jsonl") in str(error.value)
    entries = quarantined(tmp_path / "features")
    assert [entry["path"] for entry in entries] == sorted(str(folder / name) for name in BAD)
    assert {os.path.basename(entry["path"]): entry["reason"] for entry in entries} == REASONS
    assert all(entry["path"] in entry["detail"] and "remove" in entry["detail"] for entry in entries)
    (left_out,) = map(json.loads, open(tmp_path / "features" / "left_out.jsonl"))
    assert left_out["path"] == str(folder / "notes.txt") and "Left out 1 file (" in caplog.text
    before = read_all(tmp_path / "features")
    store = extract_features(folder, tmp_path / "features", backbones, max_failed=4)
    assert store.video_ids == sorted([*ODD, "good.mp4"]) and read_all(tmp_path / "features") == before
    assert len(store.read("one frame.mp4")[1]) == 1 and len(store.read("good.mp4")[1]) == 3
    alone = extract_features([videos / "0.mp4"], tmp_path / "alone", backbones)
    torch.testing.assert_close(store.read("good.mp4")[0], alone.read("0.mp4")[0], atol=2e-3, rtol=2e-3)


def test_fixed_files_are_extracted_again_with_retry_failed(tmp_path, videos, backbones):
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "0.mp4").write_bytes(b"")
    (folder / "1.mp4").write_bytes((videos / "1.mp4").read_bytes())
    options = {"videos": folder, "output_dir": tmp_path / "features", "streams": backbones, "shard_bytes": ONE_A_SHARD}
    assert extract_features(**options, max_failed=1).video_ids == ["1.mp4"]
    (folder / "0.mp4").write_bytes((videos / "0.mp4").read_bytes())
    assert extract_features(**options, max_failed=1).video_ids == ["1.mp4"]
    other = (tmp_path / "features" / "shard-00001.safetensors").stat().st_mtime_ns
    assert extract_features(**options, retry_failed=True).video_ids == ["0.mp4", "1.mp4"]
    assert quarantined(tmp_path / "features") == []
    assert (tmp_path / "features" / "shard-00001.safetensors").stat().st_mtime_ns == other


def test_stale_manifest_of_another_process_is_replaced(tmp_path, videos, backbones, monkeypatch):
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "0.mp4").write_bytes(b"")
    (folder / "1.mp4").write_bytes((videos / "1.mp4").read_bytes())
    options = {"videos": folder, "output_dir": tmp_path / "features", "streams": backbones, "shard_bytes": ONE_A_SHARD}
    extract_features(**options, max_failed=1)
    stale = (tmp_path / "features" / "manifest.json").read_bytes()
    (folder / "0.mp4").write_bytes((videos / "0.mp4").read_bytes())

    def run(self, original=ShardTask.run):
        (tmp_path / "features" / "manifest.json").write_bytes(stale)  # of a process that saw all shards before
        return original(self)

    monkeypatch.setattr(ShardTask, "run", run)
    store = extract_features(**options, retry_failed=True, process_index=0, num_processes=2)
    assert store.video_ids == ["0.mp4", "1.mp4"] and quarantined(tmp_path / "features") == []


def test_folder_with_only_bad_videos_is_not_finished(tmp_path, backbones):
    (tmp_path / "bad.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match="No video has features: 1 video failed"):
        extract_features([tmp_path / "bad.mp4"], tmp_path / "features", backbones, max_failed=9)
    with pytest.raises(FileNotFoundError, match="no manifest.json"):
        FeatureStore(tmp_path / "features")


def test_features_that_are_not_finite_only_fail_their_video(tmp_path, monkeypatch, backbones):
    paths = [write_grey_video(tmp_path / f"{i}.mp4", range(0, 300 + 2700 * i, 300)) for i in range(2)]
    forward = Backbone.__call__

    def bright_is_nan(self, clips):
        features = forward(self, clips)
        dark = torch.from_numpy(np.median(clips, axis=(1, 2, 3, 4)) < 60)
        return features.where(dark[:, None], torch.nan)

    monkeypatch.setattr(Backbone, "__call__", bright_is_nan)
    with pytest.raises(ValueError, match="1 of 2 videos failed"):
        extract_features(paths, tmp_path / "features", backbones[:1])
    (entry,) = quarantined(tmp_path / "features")
    assert entry["reason"] == "not finite" and "stream 'frame'" in entry["detail"] and entry["path"] == str(paths[1])
    assert FeatureStore(tmp_path / "features").video_ids == ["0.mp4"]


def test_shards_of_other_widths_are_not_mixed(tmp_path, videos, backbones):
    folder = tmp_path / "features"
    extract_features(videos, folder, backbones, shard_bytes=ONE_A_SHARD)
    part = read_sealed(folder / "shard-00001.json", "")
    (folder / "shard-00001.json").write_text(json.dumps(sealed({**part, "widths": {**part["widths"], "clip": 99}})))
    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match="shard-00001.safetensors has features of widths .*99"):
        extract_features(videos, folder, backbones, shard_bytes=ONE_A_SHARD)
    assert not (folder / "manifest.json").exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, videos, backbones):
    """The files of an uninterrupted extraction, one shard per video."""
    folder = tmp_path_factory.mktemp("extracted") / "whole"
    extract_features(videos, folder, backbones, shard_bytes=ONE_A_SHARD, batch_size=1)
    assert len(list(folder.glob("*.safetensors"))) == 3
    return read_all(folder)


@pytest.mark.parametrize("damage", ["flipped byte", "cut", "gone", "part gone", "part damaged", "part flipped"])
def test_only_the_damaged_shard_is_extracted_again(tmp_path, videos, backbones, whole, damage):
    folder = tmp_path
    for name, content in whole.items():
        (folder / name).write_bytes(content)
    shard, part = folder / "shard-00001.safetensors", folder / "shard-00001.json"
    times = {path.name: path.stat().st_mtime_ns for path in folder.glob("shard-0000[02]*")}
    if damage == "flipped byte":
        shard.write_bytes(whole[shard.name][:-1] + bytes([whole[shard.name][-1] ^ 1]))
        with pytest.raises(ValueError, match="shard-00001.safetensors is damaged"):
            FeatureStore(folder).verify()
    elif damage == "cut":
        shard.write_bytes(whole[shard.name][:-1])
    elif damage == "gone":
        shard.unlink()
    elif damage == "part gone":
        part.unlink()
    elif damage == "part flipped":
        part.write_text(part.read_text().replace("[0, ", "[1, ", 1))
    else:
        part.write_text("{")
    extract_features(videos, folder, backbones, shard_bytes=ONE_A_SHARD, batch_size=1).verify()
    assert read_all(folder) == whole
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("shard-0000[02]*")} == times


def test_run_after_a_full_disk_continues(tmp_path, videos, backbones, whole, monkeypatch):
    folder = tmp_path / "features"
    options = {"shard_bytes": ONE_A_SHARD, "batch_size": 1}
    with monkeypatch.context() as patch:
        spooled = feature_shards.Shard._spooled

        def full(self, chunks):
            for i, part in enumerate(spooled(self, chunks)):
                if "00001" in self.path.name and i == 2:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                yield part

        patch.setattr(feature_shards.Shard, "_spooled", full)
        with pytest.raises(
            OSError, match="No space left on device: shard 1 could not be written. Finished shards are kept"
        ):
            extract_features(videos, folder, backbones, **options)
    assert sorted(read_all(folder)) == [
        "extraction.json", "left_out.jsonl", "shard-00000.json", "shard-00000.safetensors",
        "shard-00000.safetensors.xxh3", "tasks.jsonl"]  # fmt: skip
    first = (folder / "shard-00000.safetensors").stat().st_mtime_ns
    extract_features(videos, folder, backbones, **options)
    assert read_all(folder) == whole
    assert (folder / "shard-00000.safetensors").stat().st_mtime_ns == first


@pytest.mark.parametrize("name", [
    "extraction.json", "shard-00001.safetensors", "manifest.json",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("tasks.jsonl", "shard-00001.json", "index.jsonl")),
])  # fmt: skip
def test_killed_run_continues_to_the_same_result(tmp_path, videos, backbones, whole, name):
    """The run is killed right before this file is renamed to its final name."""
    folder = tmp_path / "features"
    options = {"shard_bytes": ONE_A_SHARD, "batch_size": 1}
    pid = os.fork()
    if pid == 0:
        try:
            torch.set_num_threads(1)
            replace = os.replace
            os.replace = lambda a, b: (
                os.kill(os.getpid(), signal.SIGKILL) if os.fspath(b).endswith(name) else replace(a, b)
            )
            extract_features(videos, folder, backbones, **options)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert not (folder / name).exists() and not (folder / "manifest.json").exists()
    extract_features(videos, folder, backbones, **options)
    assert {file: content for file, content in read_all(folder).items() if not file.endswith(".tmp")} == whole
    assert not list(folder.glob("*.tmp"))


def test_processes_share_the_shards_and_the_last_one_finishes(tmp_path, videos, backbones, whole):
    folder = tmp_path / "features"
    options = {"shard_bytes": ONE_A_SHARD, "batch_size": 1, "num_processes": 2}
    assert extract_features(videos, folder, backbones, **options, process_index=1) is None
    assert [path.name for path in folder.glob("*.safetensors")] == ["shard-00001.safetensors"]
    assert extract_features(videos, folder, backbones, **options, process_index=0).video_ids == [
        "0.mp4", "1.mp4", "2.mp4"]  # fmt: skip
    assert read_all(folder) == whole
