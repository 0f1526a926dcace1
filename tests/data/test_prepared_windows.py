"""Windows are as they were written, of the captions as they are now, and are continued after an interruption."""

import os

import pytest
from captioned_videos import caption, write_captions, write_features
from helpers import make_tokenizer
from prepared_data import OLD, Killed, flip, names, new_run, zero

from vidlankd_hf import load_video_text
from vidlankd_hf.data.window_writer import WindowWriter


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def videos(tmp_path):
    """Features in three shards, and captions."""
    names = {f"v{i}.mp4": 4.0 for i in range(6)}
    write_features_in_shards(tmp_path / "features", names)
    rows = [caption(name, 0, 2, f"word{i} word2") for i, name in enumerate(names)]
    return tmp_path / "features", write_captions(tmp_path / "c.jsonl", rows)


def write_features_in_shards(folder, durations):
    from unittest import mock

    from vidlankd_hf.data import features

    small = mock.patch.object(features.ShardWriter.__init__, "__defaults__", (60,))
    with small:
        write_features(folder, durations)


def prepare(videos, tokenizer, cache, **options):
    return load_video_text(*videos, tokenizer, max_length=8, streaming=True, cache_dir=cache, **options)


def texts(stream) -> list[str]:
    return sorted(stream[i]["text"] for i in range(len(stream)))


def test_changed_captions_of_the_same_size_and_time_are_read_anew(tmp_path, videos, tokenizer):
    os.utime(videos[1], (OLD, OLD))
    assert "word3 word2" in texts(prepare(videos, tokenizer, tmp_path / "cache"))
    videos[1].write_text(videos[1].read_text().replace("word3", "word9"))
    os.utime(videos[1], (OLD, OLD))
    assert "word9 word2" in texts(prepare(videos, tokenizer, tmp_path / "cache"))


def test_captions_that_change_while_they_are_divided_are_refused(tmp_path, videos, tokenizer, monkeypatch):
    write = WindowWriter.write

    def changing(*given):
        videos[1].write_text(videos[1].read_text().replace("word3", "word9"))
        write(*given)

    monkeypatch.setattr(WindowWriter, "write", changing)
    with pytest.raises(ValueError, match="c.jsonl changed while it was read"):
        prepare(videos, tokenizer, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    assert "word9 word2" in texts(prepare(videos, tokenizer, tmp_path / "cache"))


@pytest.mark.parametrize("name", ["lines.arrow", "videos.arrow", "info.json", "unpaired.jsonl"])
def test_damaged_windows_are_named_and_made_again(tmp_path, videos, tokenizer, name, caplog):
    expected = texts(stream := prepare(videos, tokenizer, tmp_path / "cache"))
    path = next(stream.folder.glob(f"*{name}"))
    if path.stat().st_size:
        zero(path, path.stat().st_size // 2, 8)
    else:
        path.write_text("x")
    new_run()
    assert texts(prepare(videos, tokenizer, tmp_path / "cache")) == expected
    assert "The captions are divided again" in caplog.text


@pytest.mark.parametrize("name", ["captions-00000.done.json", "shard-00000.done.json", "captions-00000"])
def test_interrupted_division_does_not_continue_from_a_damaged_file(tmp_path, videos, tokenizer, monkeypatch, name):
    expected = prepare(videos, tokenizer, tmp_path / "whole")
    write, written = WindowWriter._write_shard, []

    def stopping(*given):
        if len(written) == 1:
            raise Killed
        written.append(1)
        return write(*given)

    monkeypatch.setattr(WindowWriter, "_write_shard", stopping)
    with pytest.raises(Killed):
        prepare(videos, tokenizer, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob(f".*/tasks/{name}")
    content = path.read_bytes()
    digit = next(at for at in range(len(content) - 1, 0, -1) if content[at : at + 1].isdigit())
    flip(path, digit)
    monkeypatch.setattr(WindowWriter, "_write_shard", write)
    stream = prepare(videos, tokenizer, tmp_path / "cache")
    assert texts(stream) == texts(expected)
    assert (stream.folder / "info.json").read_text() == (expected.folder / "info.json").read_text()


@pytest.mark.parametrize("stop", [0, 1, 2])
def test_interrupted_division_continues_with_the_next_shard(tmp_path, videos, tokenizer, monkeypatch, stop):
    expected = texts(prepare(videos, tokenizer, tmp_path / "whole"))
    write, written, read = WindowWriter._write_shard, [], []
    sort = WindowWriter._sort_part

    def stopping(writer, tasks, stem, shard):
        if len(written) == stop:
            raise Killed
        written.append(stem)
        return write(writer, tasks, stem, shard)

    monkeypatch.setattr(WindowWriter, "_write_shard", stopping)

    monkeypatch.setattr(WindowWriter, "_sort_part", lambda *given: read.append(1) or sort(*given))
    with pytest.raises(Killed):
        prepare(videos, tokenizer, tmp_path / "cache")
    assert len(written) == stop
    stop = None
    stream = prepare(videos, tokenizer, tmp_path / "cache")
    assert texts(stream) == expected and len(set(written)) == len(written) == 3
    assert read == [1], "the captions are not read again"
    assert names(tmp_path / "cache") == [stream.folder.name]
    assert names(stream.folder) == sorted(
        [
            "info.json",
            "unpaired.jsonl",
            *(f"shard-0000{i}.{kind}.arrow" for i in range(3) for kind in ("lines", "videos")),
        ]
    )
