"""Statistics and frames are correct, and no caption, file name or file can run code or open other files."""

import http.server
import json
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest
from captioned_videos import caption, write_captions, write_features
from datasets import Dataset
from helpers import make_tokenizer, parse_command
from PIL import Image

import vidlankd_hf
from vidlankd_hf import load_video_text
from vidlankd_hf.data.captions import read_captions
from vidlankd_hf.data.features import FeatureStore
from vidlankd_hf.data.pairing import pair_captions
from vidlankd_hf.evaluation.grounding_page import ClipPictures
from vidlankd_hf.inspection.contact_sheet import write_image, write_page
from vidlankd_hf.inspection.inspect import (
    Clip,
    FrameReader,
    find_videos,
    sample_clips,
    summarize,
    vocabulary_growth,
    vocabulary_size_at,
    words_of,
)
from vidlankd_hf.inspection.script_arguments import teacher_options


def write_video(path, seconds=6, rate=5):
    """Writes a video whose brightness increases by 40 each second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(seconds * rate):
            picture = np.full((48, 64, 3), 20 + 40 * (i // rate), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def data(tmp_path):
    """Two videos of 20 s and 10 s, five captions that cover 9 s of them, and three items without a counterpart."""
    rows = [
        caption("a.mp4", 0, 4, "word1 word2"),
        caption("a.mp4", 2, 6, "word3"),
        caption("a.mp4", 3, 5, "word1"),
        caption("b.mp4", 1, 3, "word4 word5 word6"),
        caption("b.mp4", 9, 10, "word1"),
        caption("b.mp4", 12, 13),
        caption("x.mp4", 0, 1),
    ]
    features = write_features(tmp_path / "features", {"a.mp4": 20.0, "b.mp4": 10.0, "silent.mp4": 30.0})
    return features, write_captions(tmp_path / "c.jsonl", rows)


def test_summary_counts_videos_captions_windows_and_covered_time(data):
    features, captions = data
    store = FeatureStore(features)
    pairs = pair_captions(store, read_captions(captions))
    dataset = load_video_text(features, captions, make_tokenizer(), max_length=6, max_unpaired=1.0)
    summary = summarize(store, pairs, dataset)
    assert summary["videos"] == {"count": 3, "hours": 60 / 3600, "least": 10, "median": 20, "most": 30}
    assert summary["captions"] == {"count": 5, "words": 8, "words_of_one": {"least": 1, "median": 1, "most": 3}}
    assert set(summary["unpaired"].values()) == {1} and summary["covered"] == pytest.approx(9 / 60)
    assert summary["windows"] == {"count": 2, "videos": 2, "least": 6, "median": 7.5, "most": 9}
    assert summary["clip_lengths"]["counts"] == [0, 0, 0, 2, 0, 0, 0, 0, 0, 0]
    json.dumps(summary)


def test_vocabulary_growth_counts_distinct_words():
    assert words_of("Don't stop: 2 cups, CAFÉ_au lait!") == ["don't", "stop", "2", "cups", "café", "au", "lait"]
    growth = vocabulary_growth(["the cat", "The dog", "a cat a dog"])
    assert [n for n, _ in growth] == [1, 2, 5, 8] and growth[-1] == (8, 4) and growth[0] == (1, 1)
    assert all(a[1] <= b[1] for a, b in zip(growth, growth[1:]))
    assert vocabulary_growth(["a b c d e f"] * 9, max_words=7) == [(1, 1), (2, 2), (5, 5), (7, 6)]
    assert vocabulary_growth([]) == []
    assert (
        vocabulary_size_at([(1, 1), (100, 10)], 10) == pytest.approx(10**0.5)
        and round(vocabulary_size_at([(1, 1), (100, 10)], 100)) == 10
    )


def test_frames_are_those_on_screen_at_their_times(tmp_path):
    path = write_video(tmp_path / "v.mp4")
    frames = FrameReader().frames_at(path, [0.0, 1.5, 1.7, 4.5, 5.9], size=(32, 32))
    assert [frame.size for frame in frames] == [(32, 24)] * 5
    seconds = [(np.asarray(frame).mean() - 20) / 40 for frame in frames]
    assert seconds == pytest.approx([0, 1, 1, 4, 5], abs=0.2)


def test_clips_have_frames_of_their_windows_or_a_problem(data, tmp_path):
    features, captions = data
    write_video(tmp_path / "videos" / "deep" / "a.mp4")
    (tmp_path / "videos" / "b.mp4").write_text("this is no video")
    dataset = load_video_text(features, captions, make_tokenizer(), max_length=6, max_unpaired=1.0)
    first, second = sample_clips(dataset, tmp_path / "videos", count=9, num_frames=3)
    assert (first.video, first.start, first.end, first.problem) == ("a.mp4", 0, 6, None)
    assert first.text == "word1 word2 word3 word1"
    assert [(np.asarray(f).mean() - 20) / 40 for f in first.frames] == pytest.approx([1, 3, 5], abs=0.2)
    assert second.problem.startswith("cannot be read") and not second.frames
    (tmp_path / "videos" / "b.mp4").unlink()
    assert (
        sample_clips(dataset, tmp_path / "videos")[1].problem
        == "the folder of videos does not have exactly one file of this name"
    )
    with pytest.raises(ValueError, match="none does not exist"):
        sample_clips(dataset, tmp_path / "none")


def test_files_outside_the_folder_of_videos_are_never_shown(tmp_path):
    write_video(tmp_path / "secret.mp4")
    (tmp_path / "videos").mkdir()
    names = {"../secret.mp4": 6.0, str(tmp_path / "secret.mp4"): 6.0}
    features = write_features(tmp_path / "features", names)
    window = {"id": "x#0", "start": 0.0, "end": 2.0, "text": "a"}
    rows = [{**window, "video": name} for name in FeatureStore(features).video_ids]
    for clip in sample_clips(Dataset.from_list(rows), tmp_path / "videos"):
        assert clip.problem == "the folder of videos does not have exactly one file of this name" and not clip.frames


def test_files_are_matched_by_their_full_names(tmp_path):
    root = tmp_path / "videos"
    for name in ("talk.mp4", "talk.jpg", "talk.m3u8", "Talk.MP4.txt", "a/twice.mp4", "b/twice.mp4", "two.mp4",
                 "two.webm", "lecture.mov", "lecture", "only.jpg"):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    found = {name: path.relative_to(root.resolve()).as_posix() for name, path in find_videos(root).items()}
    for name in ("talk.mp4", "talk.jpg", "talk.m3u8", "two.mp4", "two.webm", "a/twice.mp4", "b/twice.mp4", "lecture"):
        assert found[name] == name
    assert found["talk"] == "talk.mp4", "an id without a suffix means the video, not the picture or the playlist"
    assert not {"twice.mp4", "twice", "two", "only", "Talk.MP4", "Talk"} & set(found), (
        "never one of several, or another kind"
    )


PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile '{other}'\n",
    "concat_name": "ffconcat version 1.0\nfile {name}\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{other}\n#EXT-X-ENDLIST\n",
    "hls_map": '#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXT-X-MAP:URI="{other}"\n#EXTINF:5,\n{other}\n#EXT-X-ENDLIST\n',
    "hls_http": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://{host}/x.ts\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" profiles="urn:mpeg:dash:'
    'profile:isoff-main:2011" mediaPresentationDuration="PT10S"><Period><AdaptationSet mimeType="video/mp4">'
    '<Representation id="1" bandwidth="1"><BaseURL>{other}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "sdp": "v=0\nm=video 9 RTP/AVP 96\nc=IN IP4 127.0.0.1\na=rtpmap:96 H264/90000\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("show", ["sheet", "page"])
def test_no_page_shows_or_asks_for_what_a_playlist_names(tmp_path, kind, show):
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    other = write_video(tmp_path / "secret" / "private.mp4")
    videos = tmp_path / "videos"
    write_video(videos / "private.mp4")
    host = f"127.0.0.1:{server.server_port}"
    (videos / "list.mp4").write_text(PLAYLISTS[kind].format(other=other, name="private.mp4", host=host))
    window = {"id": "x#0", "video": "list.mp4", "start": 0.0, "end": 2.0, "text": "a"}
    if show == "sheet":
        (clip,) = sample_clips(Dataset.from_list([window]), videos)
    else:
        clip = ClipPictures(Dataset.from_list([window]), videos)[0]
    server.shutdown()
    assert not clip.frames and clip.problem.startswith("cannot be read") and asked == []


def test_pages_are_decoded_only_in_child_processes():
    """FFmpeg reads outside files only in processes with limited memory; the main process never opens one."""
    package = Path(vidlankd_hf.__file__).parent
    for path in package.rglob("*.py"):
        source = path.read_text()
        # the decoder in the child process, and the encoder of the world
        if path.name not in ("decode.py", "container.py", "pictures.py", "render.py"):
            assert "import av" not in source and "cv2" not in source and "imageio" not in source, path
        if "VideoReader(" in source:
            assert path.parent.name == "extraction" and path.name == "child.py", path


def test_playlist_among_the_videos_does_not_show_another_file(tmp_path):
    write_video(tmp_path / "other.mp4")
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile other.mp4\n")
    reader = FrameReader()
    with pytest.raises(ValueError, match="^cannot be read as a video"):
        reader.frames_at(tmp_path / "list.mp4", [1.0])
    assert len(reader.frames_at(tmp_path / "other.mp4", [1.0])) == 1, "the reader still reads other files"


def test_page_is_self_contained_and_runs_no_scripts(data, tmp_path):
    features, captions = data
    dataset = load_video_text(features, captions, make_tokenizer(), max_length=6, max_unpaired=1.0)
    store = FeatureStore(features)
    summary = summarize(store, pair_captions(store, read_captions(captions)), dataset)
    evil = "<script>alert(1)</script> <img src=x onerror=alert(2)> & \u4f60\u597d"
    clips = [Clip("<b>'\".mp4", 0.0, 2.0, evil, [Image.new("RGB", (8, 6))], "<i>broken")]
    write_page(
        tmp_path / "page.html", "<title>", summary, clips, {"<u>": [(1, 1), (10, 8)], "text": [(1, 1), (20, 9)]}
    )
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for mark in ("<script", "<b>", "<i>", "<u>", "onerror=alert(2)>"):
        assert mark not in page
    assert "&lt;script&gt;" in page and "\u4f60\u597d" in page and "default-src 'none'" in page
    assert not re.search(r"""(src|href)=(?!['"]data:)""", page.replace("&lt;img src=x", ""))
    assert page.count("data:image/jpeg;base64,") == 1 and page.count("<polyline") == 2


def test_picture_has_room_for_every_clip(tmp_path):
    frames = [Image.new("RGB", (320, 180), "red")] * 4
    clips = [Clip(f"{i}.mp4", 0.0, 2.0, "word " * 9 ** (i % 4), frames, None) for i in range(5)]
    clips.append(Clip("gone.mp4", 0.0, 1.0, "x" * 5000, [], "no such file in the folder of videos"))
    write_image(tmp_path / "sheet.png", clips)
    picture = np.asarray(Image.open(tmp_path / "sheet.png"))
    red = (picture == (255, 0, 0)).all(-1)
    assert red.sum() == 20 * 180 * 101, "five clips of four frames of 180 x 101"
    assert (picture[:, :8] == 255).all() and (picture[-8:] == 255).all(), "nothing is cut off at the edges"


def test_the_next_command_reads_what_was_inspected(monkeypatch):
    given = ["--features", "f", "--captions", "my captions.csv", "--tokenizer", "t", "--output_dir", "look"]
    given += ["--caption_columns", "video=clip", "text=caption", "--remove_overlap", "true", "--num_clips", "4"]
    ((args,), parser) = parse_command(monkeypatch, "inspect_data", given)
    options = teacher_options(args, parser.settings, unpaired=1 / 3)
    (_, own), _ = parse_command(monkeypatch, "pretrain_teacher", shlex.split(options))
    assert (own.features, own.captions, own.tokenizer) == ("f", "my captions.csv", "t")
    assert own.caption_columns == ["video=clip", "text=caption"] and own.remove_overlap is True
    assert 1 / 3 <= own.max_unpaired < 0.34
    ((args,), parser) = parse_command(monkeypatch, "inspect_data", ["--world", "w"])
    assert teacher_options(args, parser.settings, unpaired=0.0) == "--world w"


@pytest.mark.slow
def test_inspect_data_writes_everything_and_overwrites_nothing(tiny_world, tmp_path):
    script = Path(__file__).parents[2] / "examples" / "inspect_data.py"
    command = [sys.executable, str(script), "--world", str(tiny_world), "--output_dir", str(tmp_path / "look")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "48, " in done.stdout and "100.0%" in done.stdout and "different words" in done.stdout
    names = {path.name for path in (tmp_path / "look").iterdir()}
    files = {
        "config.yaml",
        "contact_sheet.png",
        "contact_sheet.html",
        "left_out.jsonl",
        "summary.json",
        "unpaired.jsonl",
    }
    assert names == files and "videos: 48 in, 48 used" in done.stdout
    summary = json.loads((tmp_path / "look" / "summary.json").read_text())
    assert summary["videos"]["count"] == 48 and sum(summary["clip_lengths"]["counts"]) == summary["windows"]["count"]
    assert (tmp_path / "look" / "contact_sheet.html").read_text().count("data:image/jpeg") == 16 * 4
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == 2 and "is not empty: choose another --output_dir" in again.stderr


@pytest.mark.slow
def test_missing_corpus_is_an_error_before_anything_is_written(tiny_world, tmp_path):
    script = Path(__file__).parents[2] / "examples" / "inspect_data.py"
    options = ["--world", str(tiny_world), "--text", "none.txt", "--output_dir", str(tmp_path / "look")]
    done = subprocess.run([sys.executable, str(script), *options], capture_output=True, text=True, timeout=300)
    assert done.returncode != 0 and "none.txt does not exist" in done.stderr and not (tmp_path / "look").exists()
