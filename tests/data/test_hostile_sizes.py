"""Hostile sizes end in clear errors, in bounded time and memory."""

import bz2
import gzip
import json
import lzma
import resource
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from captioned_videos import caption, write_captions, write_features
from helpers import make_tokenizer, train

from vidlankd_hf import DistillationConfig, VidLanKDStudent, load_teacher, load_text_blocks, load_video_text
from vidlankd_hf.cli import read_config
from vidlankd_hf.data import compressed
from vidlankd_hf.data.captions import read_captions
from vidlankd_hf.data.features import FeatureStore, ShardWriter
from vidlankd_hf.data.text_blocks import load_text
from vidlankd_hf.evaluation import TASKS
from vidlankd_hf.evaluation.reading import read_rows
from vidlankd_hf.extraction.decoders import Ended, Failed, Limits, decode_videos
from vidlankd_hf.extraction.videos import Video, find_videos
from vidlankd_hf.hub.convert import convert
from vidlankd_hf.hub.curves import read_curves

ROOT = Path(__file__).parents[2]
DIGITS = "9" * 400
OPENERS = {"gz": gzip.open, "xz": lzma.open, "bz2": bz2.open}


# ---- compressed files ----


def write_bomb(path: Path, megabytes: int = 300, begin: bytes = b"", byte: bytes = b"a") -> Path:
    with OPENERS[path.suffix[1:]](path, "wb") as file:
        file.write(begin)
        for _ in range(megabytes):
            file.write(byte * 2**20)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["gz", "xz", "bz2"])
@pytest.mark.parametrize("kind", ["captions", "text", "jsonl"])
def test_compressed_bomb_is_refused_before_it_fills_memory_or_disk(tmp_path, suffix, kind):
    name = {"captions": "c.jsonl", "text": "train.txt", "jsonl": "train.jsonl"}[kind]
    path = write_bomb(tmp_path / f"{name}.{suffix}", 2000 if suffix != "gz" else 300)
    read = "read_captions(path)" if kind == "captions" else "load_text_blocks(path, make_tokenizer(), path + '.cache')"
    code = f"""
import resource, sys, time
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from helpers import make_tokenizer
from vidlankd_hf import load_text_blocks
from vidlankd_hf.data.captions import read_captions
path, before, began = sys.argv[1], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
try:
    {read}
except ValueError as error:
    used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print("refused", used < 400, time.monotonic() - began < 60, used, error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith("refused True True") and "expands to more than" in done.stdout, (
        done.stdout + done.stderr
    )


@pytest.mark.parametrize("suffix", OPENERS)
def test_expansion_is_limited_and_ordinary_files_are_not(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(compressed, "FREE_BYTES", 2**16)
    path = write_bomb(tmp_path / f"c.jsonl.{suffix}", 2)
    began = time.monotonic()
    with pytest.raises(ValueError, match=f"c.jsonl.{suffix} has .* bytes and expands to more than"):
        read_captions(path)
    assert time.monotonic() - began < 2
    rows = [caption(f"v{i}", 0, 2, f"word{i} word2") for i in range(3000)]
    with OPENERS[suffix](path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    assert len(read_captions(path)) == 3000


@pytest.mark.parametrize("content", [b"", b"\xfd7zXZ\x00\x00\x04", b"BZh9junk", b"\x1f\x8bjunk", b"plain text\n"])
@pytest.mark.parametrize("suffix", OPENERS)
def test_damaged_compressed_files_are_named(tmp_path, suffix, content):
    path = tmp_path / f"c.jsonl.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="c.jsonl"):
        read_captions(path)
    text = tmp_path / f"train.txt.{suffix}"
    text.write_bytes(content + b"x")
    with pytest.raises(ValueError, match="train.txt"):
        load_text(str(text))


def test_video_in_an_archive_that_expands_beyond_the_limit_is_not_fetched(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.mp4", bytes(2**26))
    video = Video("bomb.mp4", f"zip://bomb.mp4::file://{tmp_path / 'a.zip'}", 1.0)
    streams = [{"rate": 1.0, "clip_length": 1, "pixels": {"size": [8, 8], "resample": 2, "crop": None}}]
    (event,) = decode_videos([video], streams, 1, Limits(download_bytes=2**20))
    assert (
        isinstance(event, Failed) and event.reason == "not fetched" and "larger than 1,048,576 bytes" in event.detail
    )
    assert not isinstance(event, Ended)


def test_checkpoint_whose_archive_expands_is_refused(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text("{}")
    torch.save({"w": torch.zeros(10)}, tmp_path / "plain.bin")
    with zipfile.ZipFile(tmp_path / "plain.bin") as plain:
        members = {name: plain.read(name) for name in plain.namelist()}
    with zipfile.ZipFile(tmp_path / "old" / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, bytes(2**24) if name.endswith("/data/0") else content)
    with pytest.raises(ValueError, match="pytorch_model.bin .*expands"):
        convert(tmp_path / "old", tmp_path / "new")


# ---- YAML, JSON, safetensors ----


def test_yaml_aliases_are_refused_before_they_expand(tmp_path):
    levels = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9))
    (tmp_path / "bomb.yaml").write_text(f"a0: &a0 [x]\n{levels}\n")
    began = time.monotonic()
    with pytest.raises(
        ValueError, match=r"bomb.yaml is not a YAML file of settings: line 2: write the value instead of \*a0"
    ):
        read_config(tmp_path / "bomb.yaml", "distill")
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    "content", ["seed: " + "9" * 5000, "[" * 50_000, "x: 2020-99-99", "a: !!python/name:os.system"]
)
def test_odd_yaml_is_named(tmp_path, content):
    (tmp_path / "odd.yaml").write_text(content)
    with pytest.raises(ValueError, match="odd.yaml"):
        read_config(tmp_path / "odd.yaml", "distill")


CAPTIONS = {
    "hours400.vtt": f"WEBVTT\n\n{DIGITS}:00:01.000 --> {DIGITS}:00:02.000\nhello\n",
    "hours5000.srt": f"1\n{'9' * 5000}:00:01,000 --> {'9' * 5000}:00:02,000\nhello\n",
    "entity.srt": f"1\n00:00:01,000 --> 00:00:02,000\n&#{'9' * 5000};\n",
    "int400.jsonl": '{"video": "a", "start": ' + DIGITS + ', "text": "x"}\n',
    "int5000.jsonl": '{"video": "a", "start": ' + "9" * 5000 + ', "text": "x"}\n',
    "activitynet.json": '{"v_a": {"duration": 3, "timestamps": [[0, ' + DIGITS + ']], "sentences": ["x"]}}',
    "int5000.json": '{"v_a": {"duration": 3, "timestamps": [[0, ' + "9" * 5000 + ']], "sentences": ["x"]}}',
    "howto.json": '{"a": {"start": [0], "end": [' + DIGITS + '], "text": ["x"]}}',
    "howto.csv": f"start,end,text\n0,{DIGITS},x\n",
    "float.jsonl": '{"video": "a", "start": 1e400, "text": "x"}\n',
    "nan.jsonl": '{"video": "a", "start": NaN, "text": "x"}\n',
    "deep.jsonl": '{"video": "a", "text": ' + "[" * 200_000 + "}\n",
    "deep.json": '{"a": ' + "[" * 200_000,
    "deeper.json": '{"v_a": ' + '{"a":' * 100_000,
    "true.jsonl": '{"video": "a", "start": true, "text": "x"}\n',
    "surrogate.jsonl": '{"video": "a", "text": "word \\ud83d word"}\n',
    "surrogate_video.jsonl": '{"video": "a\\udce9", "text": "word"}\n',
    "surrogate.json": '{"a": {"start": [0], "end": [1], "text": ["\\ud83d"]}}',
}


@pytest.mark.parametrize("name", CAPTIONS)
def test_hostile_captions_are_errors_that_name_the_file_in_a_few_words(tmp_path, name):
    (tmp_path / name).write_text(CAPTIONS[name])
    with pytest.raises(ValueError, match=name) as caught:
        read_captions(tmp_path / name)
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


@pytest.mark.parametrize("inner", [
    ", ".join(f'"key{i:07d}": 0' for i in range(60_000)) + ', "z": 0, "z": 1',
    ", ".join(['"same": 0'] * 60_000),
])  # fmt: skip
def test_repeated_names_are_found_in_linear_time(tmp_path, inner):
    (tmp_path / "c.json").write_text('{"v_a": {' + inner + "}}")
    began = time.monotonic()
    with pytest.raises(ValueError, match="occurs twice"):
        read_captions(tmp_path / "c.json")
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("row", [
    '{"path": "x.mp4", "duration": ' + DIGITS + "}", '{"path": "x.mp4", "duration": Infinity}',
    '{"path": "x.mp4", "duration": ' + "9" * 5000 + "}", '{"path": ' + "[" * 200_000 + "}",
    '{"path": "x.mp4", "id": "a\\udce9"}',
])  # fmt: skip
def test_hostile_rows_of_a_manifest_of_videos_are_errors(tmp_path, row):
    (tmp_path / "m.jsonl").write_text(row + "\n")
    with pytest.raises(ValueError, match="m.jsonl|udce9"):
        find_videos(tmp_path / "m.jsonl")


def test_surrogates_are_refused_wherever_text_or_names_enter(tmp_path):
    writer = ShardWriter(tmp_path / "f", {"frame": {"model": "m", "rate": 1.0, "clip_length": 1}})
    with pytest.raises(ValueError, match="udce9"):
        writer.add("a\udce9", 2.0, {"frame": (torch.ones(2, 6), torch.tensor([0.5, 1.5]))})
    from datasets import IterableDataset

    def texts():
        yield {"text": "word1 \ud83d word2"}

    with pytest.raises(ValueError, match="half of a surrogate pair"):
        load_text_blocks(IterableDataset.from_generator(texts), make_tokenizer(), tmp_path / "cache")


@pytest.mark.parametrize("streaming", [False, True])
def test_caption_with_a_surrogate_stops_loading_with_its_place(tmp_path, streaming):
    features = write_features(tmp_path / "f", {"a": 2.0})
    captions = write_captions(tmp_path / "c.jsonl", [caption("a", 0, 1), caption("a", 1, 2, "word \ud83d")])
    with pytest.raises(ValueError, match="c.jsonl, line 2: .*surrogate"):
        load_video_text(features, captions, make_tokenizer(), streaming=streaming, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("header", [
    struct.pack("<Q", 2**63), struct.pack("<Q", 10**8) + b"{" * 1000, struct.pack("<Q", 8) + b"[[[[[[[[",
    struct.pack("<Q", 100_000) + b"[" * 100_000, b"",
    struct.pack("<Q", 80) + b'{"a":{"dtype":"F16","shape":[99999999999,99],"data_offsets":[0,4]}}'.ljust(80) + b"xxxx",
])  # fmt: skip
def test_hostile_header_of_a_shard_is_an_error(tmp_path, header):
    folder = write_features(tmp_path / "f", {"a": 2.0})
    (folder / "shard-00000.safetensors").write_bytes(header)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "xxh3": {}}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="shard-00000.safetensors is damaged"):
        FeatureStore(folder).read("a")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024


@pytest.mark.parametrize("name", ["manifest.json", "index.jsonl"])
def test_deep_json_in_a_feature_folder_is_named(tmp_path, name):
    folder = write_features(tmp_path / "f", {"a": 2.0})
    (folder / name).write_text("[" * 200_000)
    with pytest.raises(ValueError, match=f"{name}|manifest or index"):
        FeatureStore(folder)


@pytest.mark.parametrize(
    "changes", [{"streams": {}}, {"streams": []}, {"sha256": 5}, {"sha256": None}, {"crc32": None}, {"crc32": [1]}]
)
def test_odd_manifest_of_a_feature_folder_is_named(tmp_path, changes):
    folder = write_features(tmp_path / "f", {"a": 2.0})
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}))
    with pytest.raises(ValueError, match="manifest .*is damaged"):
        FeatureStore(folder)


ODD_JSON = ["[" * 100_000, '{"a":' * 100_000, "[]", "5", '"x"']


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """The folder of an exported student with heads."""
    folder = tmp_path_factory.mktemp("student")
    train("student", folder, {"nst": 1.0}, max_steps=1).save_model()
    return folder


@pytest.mark.parametrize("name", ["config.json", "distillation/recipe.json"])
@pytest.mark.parametrize("content", ODD_JSON)
def test_odd_json_in_the_folder_of_a_student_is_named(student, name, content):
    original = (student / name).read_text()
    (student / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name.split('/')[-1]} is damaged"):
        VidLanKDStudent.from_pretrained(student)
    (student / name).write_text(original)
    assert VidLanKDStudent.from_pretrained(student).objectives


@pytest.mark.parametrize("content", ODD_JSON)
def test_odd_json_in_the_folder_of_a_teacher_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match="config.json is damaged"):
        load_teacher(tmp_path)


@pytest.mark.parametrize("content", ODD_JSON)
def test_odd_json_of_objectives_downstream_data_and_logs_is_an_error_in_a_few_words(tmp_path, content):
    for read in (
        lambda: DistillationConfig(output_dir=str(tmp_path / "run"), objectives=content, use_cpu=True),
        lambda: read_rows(TASKS["squad"], str(tmp_path), "train"),
        lambda: read_curves(tmp_path),
    ):
        for name in ("train-v1.1.json", "trainer_state.json"):
            (tmp_path / name).write_text(content)
        with pytest.raises(ValueError) as error:
            read()
        assert len(str(error.value)) < 600


@pytest.mark.slow
def test_hostile_lines_of_text_are_errors(tmp_path):
    """In a separate process, which the JSON reader of Arrow may end."""
    lines = ['{"text": ' + "[" * 200_000 + "}", '{"text": ' + "9" * 5000 + "}", '{"text": "\\ud83d"}']
    for number, line in enumerate(lines):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "train.jsonl").write_text('{"text": "word1"}\n' + line + "\n")
    code = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from helpers import make_tokenizer
from vidlankd_hf import load_text_blocks
for folder in sys.argv[1:]:
    try:
        load_text_blocks(folder, make_tokenizer(), folder + "/cache")
    except ValueError as error:
        print("ValueError", folder, flush=True)
"""
    folders = [str(tmp_path / str(number)) for number in range(len(lines))]
    done = subprocess.run([sys.executable, "-c", code, *folders], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [f"ValueError {folder}" for folder in folders]
