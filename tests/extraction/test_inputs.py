"""Videos given as folders, patterns, lists, manifests and URLs."""

import json
import threading

import fsspec
import pyarrow
import pyarrow.parquet
import pytest
from video_files import write_grey_video

from vidlankd_hf.extraction.decoders import Clip, Ended, Failed, Limits, decode_videos
from vidlankd_hf.extraction.videos import UNKNOWN_SECONDS, Video, find_videos, without_secrets

STREAMS = [{"rate": 1.0, "clip_length": 1, "pixels": {"size": [8, 8], "resample": 2, "crop": None}}]


@pytest.fixture
def folder(tmp_path):
    for name in ("b.mp4", "a.MKV", "c.webm", "notes.txt"):
        (tmp_path / name).write_bytes(bytes(250_000))
    return tmp_path


def ids(videos):
    return [video.id for video in find_videos(videos)]


def test_folders_patterns_and_lists(folder):
    assert ids(folder) == ids(str(folder)) == ["a.MKV", "b.mp4", "c.webm"]
    assert ids(f"{folder}/*.[mw]*") == ["b.mp4", "c.webm"]
    assert ids([folder / "notes.txt", f"{folder}/b.mp4"]) == ["b.mp4", "notes.txt"]
    assert find_videos([folder / "b.mp4"]) == [Video("b.mp4", str(folder / "b.mp4"), 2.0)]  # guessed from its size


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_manifests_have_relative_paths_and_optional_ids_and_durations(folder, kind):
    rows = [
        {"path": "b.mp4", "id": "talk/2", "duration": 77.5, "more": 1},
        {"path": str(folder / "a.MKV"), "id": None, "duration": None, "more": 2},
        {"path": "memory://far/x.mp4", "id": "talk/1", "duration": None, "more": 3},
    ]
    manifest = folder / f"videos.{kind}"
    if kind == "jsonl":
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), manifest)
    assert find_videos(manifest) == [
        Video("a.MKV", str(folder / "a.MKV"), 2.0),
        Video("talk/1", "memory://far/x.mp4", UNKNOWN_SECONDS),
        Video("talk/2", str(folder / "b.mp4"), 77.5),
    ]


@pytest.mark.parametrize(
    "line, reason",
    [
        ("{", "line 2 is not JSON"),
        ('["b.mp4"]', "line 2: .*must be an object"),
        ('{"id": "a"}', "line 2: .*must have a path"),
        ('{"path": ""}', "line 2: .*must have a path"),
        ('{"path": "b.mp4", "id": 7}', "line 2: .*an id .a string."),
        ('{"path": "b.mp4", "duration": -1}', "line 2: .*duration"),
        ('{"path": "x/a.mp4"}', "same id 'a.mp4'"),
    ],
)
def test_bad_rows_of_manifests_are_named(folder, line, reason):
    (folder / "videos.jsonl").write_text(f'{{"path": "a.mp4"}}\n{line}\n')
    with pytest.raises(ValueError, match=reason):
        find_videos(folder / "videos.jsonl")


def test_parquet_without_paths_and_empty_inputs_are_refused(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"file": ["a.mp4"]}), tmp_path / "videos.parquet")
    with pytest.raises(ValueError, match="has the columns .*file.*needs 'path'"):
        find_videos(tmp_path / "videos.parquet")
    for nothing in (tmp_path, str(tmp_path / "*.mp4"), []):
        with pytest.raises(ValueError, match="No videos in"):
            find_videos(nothing)


def test_urls_are_downloaded_one_video_at_a_time(tmp_path, monkeypatch):
    memory = fsspec.filesystem("memory")
    for i in range(2):
        memory.pipe_file(f"/far/{i}.mp4", write_grey_video(tmp_path / f"{i}.mp4", range(0, 2000, 200)).read_bytes())
    assert ids("memory://far") == ids("memory://far/*.mp4") == ["0.mp4", "1.mp4"]
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    found = [*find_videos("memory://far"), Video("gone", "memory://far/gone.mp4", 1.0)]
    events = list(decode_videos(found, STREAMS, 1, Limits()))
    assert [type(event) for event in events] == [Clip, Clip, Ended, Clip, Clip, Ended, Failed]
    assert events[-1].reason == "not fetched" and "memory://far/gone.mp4" in events[-1].detail
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    "limits, said",
    [
        (Limits(stall_seconds=1.0), "no data received for 1 s"),
        (Limits(video_seconds=2.0), "not downloaded within 2 s"),
    ],
)
def test_slow_storage_only_fails_its_video(tmp_path, monkeypatch, limits, said):
    memory, enough = fsspec.filesystem("memory"), threading.Event()
    memory.pipe_file("/hangs/1.mp4", write_grey_video(tmp_path / "1.mp4", range(0, 2000, 200)).read_bytes())

    original = type(memory).get_file

    def get_file(self, path, local, *args, **kwargs):
        if "slow" not in path:
            return original(self, path, local, *args, **kwargs)
        with open(local, "wb", buffering=0) as file:
            while not enough.wait(0.2):
                file.write(b"x" if limits.stall_seconds > 1 else b"")

    monkeypatch.setattr(type(memory), "get_file", get_file)
    found = [Video(name, f"memory://hangs/{name}.mp4", 1.0) for name in ("slow", "1")]
    try:
        events = list(decode_videos(found, STREAMS, 1, limits))
    finally:
        enough.set()
    assert [type(event) for event in events] == [Failed, Clip, Clip, Ended]
    assert events[0].reason == "not fetched" and said in events[0].detail


def test_ids_of_urls_have_no_secrets_and_brackets_in_file_names_are_no_pattern(tmp_path):
    (video,) = find_videos(["https://me:secret@host.org/talks/talk.mp4?signature=SECRET"])
    assert video.id == "talk.mp4" and without_secrets(video.path) == "https://host.org/talks/talk.mp4"
    (tmp_path / "talk[1].mp4").write_bytes(b"x")
    assert [video.id for video in find_videos(str(tmp_path / "talk[1].mp4"))] == ["talk[1].mp4"]
