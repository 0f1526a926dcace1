"""Videos given as folders, patterns, lists, manifests and URLs."""

import http.server
import json
import logging
import os
import subprocess
import sys
import threading
import time

import fsspec
import pyarrow
import pyarrow.parquet
import pytest
from launching import LIGHT
from video_files import write_grey_video

from vidlankd_hf.extraction import tasks
from vidlankd_hf.extraction.decoders import Clip, Ended, Failed, Limits, decode_videos
from vidlankd_hf.extraction.videos import UNKNOWN_SECONDS, Video, find_videos
from vidlankd_hf.utils.addresses import public_address

STREAMS = [{"rate": 1.0, "clip_length": 1, "pixels": {"size": [8, 8], "resample": 2, "crop": None}}]


@pytest.fixture
def folder(tmp_path):
    for name in ("b.mp4", "a.MKV", "c.webm", "notes.txt"):
        (tmp_path / name).write_bytes(bytes(250_000))
    return tmp_path


def ids(videos):
    return [video.id for video in find_videos(videos)]


def test_folders_are_searched_recursively_and_ffmpeg_says_what_is_a_video(tmp_path, caplog):
    write_grey_video(tmp_path / "a.mp4", [0, 100])
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    write_grey_video(tmp_path / "sub" / "deep" / "b.mkv", [0, 100]).rename(tmp_path / "sub" / "deep" / "b.M2TS")
    write_grey_video(tmp_path / "c.mp4", [0, 100]).rename(tmp_path / "no suffix")
    (tmp_path / "broken.MP4").write_bytes(b"")
    (tmp_path / "linked").symlink_to(tmp_path / "sub")
    for i in range(6):
        (tmp_path / f"notes{i}.txt").write_text("no video\n" * 100)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\na.mp4\n")
    left_out = []
    found = find_videos(tmp_path, left_out)
    assert [video.id for video in found] == ["a.mp4", "b.M2TS", "broken.MP4", "no suffix"]
    names = [path.rsplit("/", 1)[1] for path, _ in left_out]
    assert names == ["list.m3u8", *(f"notes{i}.txt" for i in range(6))], "what is a video by its name alone will fail"
    assert all(reason for _, reason in left_out)
    assert "left out 7 files other than videos" in caplog.text and "and 2 more" in caplog.text


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
    assert video.id == "talk.mp4" and public_address(video.path) == "https://host.org/talks/talk.mp4"
    (tmp_path / "talk[1].mp4").write_bytes(b"x")
    assert [video.id for video in find_videos(str(tmp_path / "talk[1].mp4"))] == ["talk[1].mp4"]


@pytest.fixture
def forbidden():
    """Host of a server that answers nothing but 403."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(403)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("address, id", [
    ("http://{host}/a.mp4?X-Sig=SECRET", "a.mp4"),
    ("http://{host}/b.mp4?X-Sig=a%7ESECRET%3d&x=SECRET+SECRET", "b.mp4"),
    ("http://me:SECRET@{host}/c.mp4", "c.mp4"),
    ("simplecache::http://{host}/d.mp4?X-Sig=SECRET", "d.mp4"),
    ("zip://in.mp4::http://{host}/e.zip?X-Sig=SECRET", "in.mp4"),
    ("ftp://me:SECRET@127.0.0.1:1/f.mp4", "f.mp4"),
    ("HTTP://{host}/g.mp4?X-Sig=SECRET", "g.mp4"),
    ("https://SECRET@127.0.0.1:1/h.mp4#SECRET", "h.mp4"),
    ("nosuch://me:SECRET@host/i.mp4?SECRET", "i.mp4"),
])  # fmt: skip
def test_secrets_of_addresses_are_in_no_id_quarantine_or_log(tmp_path, forbidden, caplog, address, id):
    caplog.set_level(logging.INFO)
    address = address.format(host=forbidden)
    (video,) = find_videos([address])
    assert video.id == id
    task = tasks.ShardTask.__new__(tasks.ShardTask)
    task.folder, task.progress, task._failed, task._gathered = tmp_path, None, [], {video.id: tasks._Gathered([])}
    (event,) = decode_videos([video], STREAMS, 1, Limits(stall_seconds=5))
    assert isinstance(event, Failed) and "SECRET" not in event.detail
    task._quarantine(event.video, event.reason, event.detail)
    assert "SECRET" not in (tmp_path / "quarantine.jsonl").read_text() + caplog.text
    assert id in (tmp_path / "quarantine.jsonl").read_text()


def test_secrets_are_in_no_report_of_a_video_whose_features_are_not_finite(tmp_path, caplog):
    (video,) = find_videos(["https://me:SECRET@host.org/a.mp4?X-Sig=SECRET"])
    task = tasks.ShardTask.__new__(tasks.ShardTask)
    task.folder, task.progress, task._failed, task._gathered = tmp_path, None, [], {video.id: tasks._Gathered([])}
    task._quarantine(video, "not finite", f"{video.path}: stream 'frame' has NaN")
    said = (tmp_path / "quarantine.jsonl").read_text() + caplog.text
    assert "SECRET" not in said and "https://host.org/a.mp4: stream 'frame' has NaN" in said


@pytest.mark.parametrize("given", [
    "http://me:SECRET@{host}/videos.jsonl?sig=SECRET", "http://{host}/videos.parquet?sig=SECRET",
    "http://{host}/folder?sig=SECRET", ["http://{host}/a.mp4?s=SECRET", "http://{host}/b/a.mp4?s=SECRET"],
])  # fmt: skip
def test_secrets_of_addresses_are_in_no_error_about_the_input(forbidden, given):
    given = given.format(host=forbidden) if isinstance(given, str) else [one.format(host=forbidden) for one in given]
    with pytest.raises(ValueError) as caught:
        find_videos(given)
    text, error = "", caught.value
    while error is not None:
        text, error = f"{text} {error}", error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert "SECRET" not in text and ("127.0.0.1" in text)


def test_bad_row_with_a_secret_is_named_without_it(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"path": "https://h.org/a.mp4?s=SECRET", "duration": -1}\n')
    with pytest.raises(ValueError, match="https://h.org/a.mp4") as caught:
        find_videos(tmp_path / "m.jsonl")
    assert "SECRET" not in str(caught.value)


FETCHES = """
import time
import fsspec
from vidlankd_hf.extraction.decoders import Limits, decode_videos
from vidlankd_hf.extraction.videos import Video
memory = fsspec.filesystem("memory")
memory.pipe_file("/far.mp4", b"x")
def get_file(self, path, local, **kwargs):
    open(local, "wb").write(b"half a video")
    print("fetching", flush=True)
    time.sleep(60)
type(memory).get_file = get_file
list(decode_videos([Video("far.mp4", "memory://far.mp4", 1.0)], [], 1, Limits()))
"""


@pytest.mark.parametrize("stop", ["terminate", "kill"])
def test_fetched_videos_of_a_stopped_extraction_are_removed_by_the_next_one(tmp_path, monkeypatch, stop):
    process = subprocess.Popen([sys.executable, "-c", LIGHT + FETCHES], env={**os.environ, "TMPDIR": str(tmp_path)},
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout.readline() == "fetching\n"
    getattr(process, stop)()
    process.wait(timeout=20)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    list(decode_videos([Video("gone", "memory://gone.mp4", 1.0)], STREAMS, 1, Limits()))
    assert list(tmp_path.iterdir()) == []


def test_download_that_was_given_up_ends(tmp_path, monkeypatch):
    memory, written = fsspec.filesystem("memory"), []

    def get_file(self, path, local, callback=None, **kwargs):
        with open(local, "wb", buffering=0) as file:
            for _ in range(200):
                time.sleep(0.05)
                written.append(file.write(bytes(2**20)))
                callback.relative_update(2**20)

    memory.pipe_file("/big.mp4", b"x")
    monkeypatch.setattr(type(memory), "get_file", get_file)
    (event,) = decode_videos([Video("big", "memory://big.mp4", 1.0)], STREAMS, 1, Limits(download_bytes=2**22))
    assert event.reason == "not fetched" and "larger than" in event.detail
    time.sleep(0.5)
    count = len(written)
    time.sleep(0.5)
    assert len(written) == count < 200
