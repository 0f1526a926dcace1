"""Captions are divided once, on disk, into the same windows as in memory, and damaged or unpaired data are refused."""

import json

import numpy as np
import pytest
from captioned_videos import forge, write_captioned_shards
from helpers import make_tokenizer

from vidlankd_hf import load_video_text
from vidlankd_hf.data import window_writer


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def test_captions_are_divided_once_and_again_if_something_changed(tmp_path, tokenizer, monkeypatch):
    data = write_captioned_shards(tmp_path, videos=4)

    def load(**options):
        return load_video_text(
            data / "features", data / "captions.jsonl", tokenizer,
            streaming=True, **{"max_length": 14, "cache_dir": tmp_path / "cache", **options},
        )  # fmt: skip

    first = load()
    monkeypatch.setattr(window_writer.WindowWriter, "write", None)
    assert load().folder == first.folder
    monkeypatch.undo()
    assert load(max_length=20).folder != first.folder
    with open(data / "captions.jsonl", "a") as file:
        file.write(json.dumps({"video": "v1", "start": 50, "end": 51, "text": "word1"}) + "\n")
    assert load().folder != first.folder
    assert {p.name.split("-")[0] for p in (tmp_path / "cache").iterdir()} == {"windows"}, "nothing half-written stays"


def test_captions_in_any_order_and_of_any_amount_held_make_the_same_windows(tmp_path, tokenizer, monkeypatch):
    data = write_captioned_shards(tmp_path)
    lines = (data / "captions.jsonl").read_text().splitlines(keepends=True)

    def windows(cache):
        stream = load_video_text(
            data / "features", data / "captions.jsonl", tokenizer, streaming=True, cache_dir=tmp_path / cache
        )
        return [(row["id"], row["text"], row["start"]) for row in stream]

    expected = windows("a")
    monkeypatch.setattr(window_writer, "BUFFER_CHARACTERS", 200)
    np.random.default_rng(1).shuffle(lines)
    (data / "captions.jsonl").write_text("".join(lines))
    assert windows("b") == expected


def test_unpaired_are_counted_listed_and_refused_above_the_share(tmp_path, tokenizer, caplog):
    data = write_captioned_shards(tmp_path, videos=5)
    rows = [json.loads(line) for line in (data / "captions.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["video"] != "v4"] + [
        {"video": "x", "start": 0, "end": 1, "text": "word1"},
        {"video": "v1", "start": 59, "end": 70, "text": "word2"},
    ]
    (data / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def load(max_unpaired, streaming=True):
        return load_video_text(
            data / "features", data / "captions.jsonl", tokenizer,
            max_unpaired=max_unpaired, streaming=streaming, cache_dir=tmp_path / "cache",
        )  # fmt: skip

    messages = []
    for streamed in (True, False):
        with pytest.raises(ValueError, match="1 caption of 1 video .*'x'.*1 caption outside.*'v4.mp4'") as error:
            load(0.1, streamed)
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    stream = load(0.2)
    assert "Left out" in caplog.text and len(stream) == len(load(0.2, streaming=False))
    listed = [json.loads(line) for line in (stream.folder / "unpaired.jsonl").read_text().splitlines()]
    assert [(row["what"], row["video"]) for row in listed] == [
        ("caption without video", "x"), ("caption outside video", "v1"), ("video without captions", "v4.mp4"),
    ]  # fmt: skip


def test_index_that_points_elsewhere_and_damaged_lines_are_refused(tmp_path, tokenizer):
    data = write_captioned_shards(tmp_path, videos=4)

    def load():
        return load_video_text(
            data / "features", data / "captions.jsonl", tokenizer, streaming=True, cache_dir=tmp_path / "cache"
        )

    stream = load()
    path = next(stream.folder.glob("*.lines.arrow"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="is damaged"):
        list(stream)
    assert len(list(load())) == len(stream), "they are divided again"
    forge(data / "features")
    index = data / "features" / "index.jsonl"
    index.write_text(index.read_text().replace("shard-00000", "../../outside"))
    with pytest.raises(ValueError, match="does not list"):
        load()
    assert not (tmp_path / "outside.safetensors").exists()
