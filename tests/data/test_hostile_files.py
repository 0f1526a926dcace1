"""Data files cannot run code or open other files."""

import http.server
import json
import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from captioned_videos import forge
from helpers import train
from video_files import write_grey_video

import vidlankd_hf
from vidlankd_hf.data.captions import read_captions
from vidlankd_hf.data.features import FeatureStore, ShardWriter
from vidlankd_hf.data.text_blocks import TextBlocks
from vidlankd_hf.extraction.decode import VideoReader
from vidlankd_hf.extraction.decoders import Limits, decode_videos
from vidlankd_hf.extraction.videos import Video
from vidlankd_hf.reliability.manifest import Layout, seal, verify_checkpoint


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.fixture
def sign(tmp_path):
    """A path that exists only if hostile code ran."""
    path = tmp_path / "it-ran"
    yield path
    assert not path.exists()


def test_bomb_works_where_pickle_is_read(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "it-ran")))
    assert (tmp_path / "it-ran").exists()


def test_text_blocks_with_a_pickle_are_refused(tmp_path, sign):
    np.save(tmp_path / "blocks.npy", np.array([Bomb(sign)], dtype=object), allow_pickle=True)
    (tmp_path / "info.json").write_text(json.dumps({"blocks": 1}))
    with pytest.raises(ValueError):
        TextBlocks(tmp_path)[0]


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_checkpoint_with_a_pickle_is_refused_though_its_manifest_is_right(tmp_path, sign, name):
    options = {"objectives": {}, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    train("student", tmp_path / "run", **options)
    checkpoint = tmp_path / "run" / "checkpoint-2"
    torch.save({"state": Bomb(sign)}, checkpoint / name)
    (checkpoint / "manifest.json").unlink()
    seal(checkpoint, Layout())
    with pytest.raises(pickle.UnpicklingError, match="[Ww]eights"):
        train("student", tmp_path / "run", **options, resume=str(checkpoint))


def test_model_with_pickled_weights_is_refused(tmp_path, sign):
    trainer = train("student", tmp_path, {}, max_steps=1)
    trainer.save_model()
    (tmp_path / "model.safetensors").unlink()
    torch.save({"bert.embeddings.word_embeddings.weight": Bomb(sign)}, tmp_path / "pytorch_model.bin")
    with pytest.raises((pickle.UnpicklingError, ValueError, OSError)):
        type(trainer.model).from_pretrained(tmp_path)


def test_code_in_a_model_folder_does_not_run(tmp_path, sign):
    trainer = train("student", tmp_path, {}, max_steps=1)
    trainer.save_model()
    (tmp_path / "modeling_evil.py").write_text(f"import os\nos.mkdir({str(sign)!r})\nclass Evil: pass\n")
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoModelForMaskedLM": "modeling_evil.Evil", "AutoConfig": "modeling_evil.Evil"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    type(trainer.model).from_pretrained(tmp_path)


def test_shards_whose_index_points_elsewhere_are_refused(tmp_path):
    secret = tmp_path / "secret.safetensors"
    folder = tmp_path / "features"
    writer = ShardWriter(folder, {"frame": {"model": "m", "rate": 1.0, "clip_length": 1}})
    writer.add("a", 2.0, {"frame": (torch.ones(2, 3), torch.tensor([0.5, 1.5]))})
    writer.close()
    forge(folder)
    os.rename(folder / "shard-00000.safetensors", secret)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"] = {"../secret.safetensors": "0"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "index.jsonl").write_text((folder / "index.jsonl").read_text().replace("shard-00000", "../secret"))
    with pytest.raises(ValueError, match="not a file name"):
        FeatureStore(folder)
    manifest["sha256"] = {}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="does not list"):
        FeatureStore(folder).read("a")


@pytest.mark.parametrize("name", ["../../escaped", "/escaped", "a\x00b", "con\nfig", "<script>", "....//x"])
def test_names_of_videos_make_no_file(tmp_path, name):
    """Any video id is only a key of the index; captions whose video is not a file name are refused."""
    folder = tmp_path / "features"
    writer = ShardWriter(folder, {"frame": {"model": "m", "rate": 1.0, "clip_length": 1}})
    writer.add(name, 2.0, {"frame": (torch.ones(2, 3), torch.tensor([0.5, 1.5]))})
    writer.close()
    captions = tmp_path / "captions.jsonl"
    captions.write_text(json.dumps({"video": name, "text": "a word"}) + "\n")
    if name in ("<script>", "....//x"):
        assert read_captions(captions)[0].video == name
    else:
        with pytest.raises(ValueError, match="leads out of the folder or is not a file name"):
            read_captions(captions)
    assert FeatureStore(folder).read(name)[0].shape == (2, 3)
    assert {p.name for p in tmp_path.iterdir()} == {"features", "captions.jsonl"}
    assert {p.name for p in folder.iterdir()} == {
        "index.jsonl",
        "manifest.json",
        "shard-00000.safetensors",
        "shard-00000.safetensors.xxh3",
    }


@pytest.fixture
def server():
    """A local web server that records requests."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    listening = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_port}/v.mp4", asked
    listening.shutdown()


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{target}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{target}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "dash": '<?xml version="1.0"?><MPD><Period><BaseURL>{target}</BaseURL></Period></MPD>',
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_playlist_opens_nothing(tmp_path, server, kind):
    address, asked = server
    other = write_grey_video(tmp_path / "other.mp4", range(0, 1000, 100))
    paths = [tmp_path / f"{number}{suffix}" for suffix in (".mp4", ".m3u8", ".txt") for number in range(3)]
    for path, target in zip(paths, 3 * [address, other.name, str(other)]):
        path.write_text(PLAYLISTS[kind].format(target=target))
        with pytest.raises(ValueError, match="cannot be read as a video"):
            VideoReader(path)
    streams = [{"rate": 1.0, "clip_length": 1, "pixels": {"size": [8, 8], "resample": 2, "crop": None}}]
    videos = [Video(path.name, str(path), 1.0) for path in paths]
    events = list(decode_videos(videos, streams, decoders=1, limits=Limits()))
    assert len(events) == len(paths) and all("cannot be read as a video" in event.detail for event in events)
    assert asked == []


@pytest.mark.parametrize("name", ["concat:other.mp4", "subfile,,start,0,end,99,,:other.mp4", "http:other.mp4"])
def test_name_that_is_a_protocol_is_only_a_name(tmp_path, monkeypatch, name):
    other = write_grey_video(tmp_path / "other.mp4", range(0, 1000, 100))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="cannot be read as a video"):
        VideoReader(name)
    other.rename(name)
    assert len(list(VideoReader(name).sample([1]))) == 1


def test_captions_and_texts_are_data(tmp_path, sign):
    path = tmp_path / "captions.jsonl"
    text = f"__import__('os').mkdir({str(sign)!r}) !!python/object/apply:os.mkdir [{sign}] <script>alert(1)</script>"
    path.write_text(json.dumps({"video": "v", "text": text}) + "\n")
    assert read_captions(path)[0].text == text


def test_checkpoint_manifest_cannot_name_files_elsewhere(tmp_path):
    checkpoint = tmp_path / "checkpoint-1"
    checkpoint.mkdir()
    (tmp_path / "outside").write_text("x")
    entry = {"bytes": 1, "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}
    (checkpoint / "manifest.json").write_text(json.dumps({"format_version": 2, "files": {"../outside": entry}}))
    assert "outside" in verify_checkpoint(checkpoint)


def test_nothing_here_unpacks_archives_or_evaluates_text():
    """Code that uses one of these needs a test with a hostile file above."""
    forbidden = ("import pickle", "import tarfile", "yaml.load", "allow_pickle=True", "weights_only=False", " eval(",
                 " exec(", "trust_remote_code=True", "shell=True", "extractall", "unpack_archive")  # fmt: skip
    allowed = {
        "convert.py": ["import pickle"],  # to catch the error of a file that weights_only refuses
        "yaml_files.py": ["yaml.load"],  # with a SafeLoader
        "tars.py": ["import tarfile"],  # reads headers, unpacks nothing (tests/utils/test_tars.py)
        "packages.py": ["import tarfile", "extractall"],  # archives with the pinned checksum alone
    }
    for path in Path(vidlankd_hf.__file__).parent.rglob("*.py"):
        text = path.read_text()
        assert [words for words in forbidden if words in text] == allowed.get(path.name, []), path
