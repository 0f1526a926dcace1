"""Windows, blocks of text and converted features have the same bytes for any number of processes and interruptions."""

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from captioned_videos import write_captioned_shards, write_captions
from helpers import WORDS, make_tokenizer

from vidlankd_hf import load_text_blocks, load_video_text
from vidlankd_hf.data import caption_parts, shared_tasks, text_source, token_tasks
from vidlankd_hf.data.caption_parts import CaptionSource
from vidlankd_hf.data.captions import read_captions
from vidlankd_hf.data.howto100m import convert_howto100m

fork = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    write_captioned_shards(folder, videos=14)
    rng = np.random.default_rng(0)
    rows = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    rows.append({"video": "none", "start": 0, "end": 1, "text": "word1"})
    rows.insert(40, {"video": "v2", "start": 80, "end": 90, "text": "word2"})
    write_captions(folder / "captions.jsonl", [rows[i] for i in rng.permutation(len(rows))])
    text = (" ".join(rng.choice(WORDS, rng.integers(1, 30))) for _ in range(2000))
    (folder / "text.txt").write_text("\n".join(text))
    howto, captions = folder / "howto", {}
    for number in range(12):
        video, seconds = f"video{number}", 10 + number
        for name, rate, width in (("2d", 1.0, 6), ("3d", 1.5, 4)):
            (howto / name).mkdir(parents=True, exist_ok=True)
            values = rng.normal(size=(int(seconds * rate), width)).astype(np.float16)
            np.save(howto / name / f"{video}.npy", values if number != 5 or width == 4 else values[:, :3])
        starts = list(range(0, seconds + 2, 2))
        spoken = [" ".join(rng.choice(WORDS, 5)) for _ in starts]
        captions[video] = {"start": starts, "end": [start + 3 for start in starts], "text": spoken}
    (howto / "caption.json").write_text(json.dumps(captions))
    return folder


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch):
    monkeypatch.setattr(caption_parts, "PART_BYTES", 4000)
    monkeypatch.setattr(token_tasks, "TASK_CHARACTERS", 20_000)
    monkeypatch.setattr(text_source, "BATCH_TEXTS", 40)


def windows(sources, tokenizer, folder, num_proc=None):
    options = {"max_length": 14, "streaming": True, "cache_dir": folder, "num_proc": num_proc, "max_unpaired": 0.9}
    load_video_text(sources / "features", sources / "captions.jsonl", tokenizer, **options)


def blocks(sources, tokenizer, folder, num_proc=None):
    load_text_blocks(sources / "text.txt", tokenizer, folder, num_proc=num_proc)


def aligned_blocks(sources, tokenizer, folder, num_proc=None):
    options = {"teacher_tokenizer": make_tokenizer(WORDS[::-1]), "teacher_length": 40}
    load_text_blocks(sources / "text.txt", tokenizer, folder, num_proc=num_proc, **options)


def features(sources, tokenizer, folder, num_proc=None):
    howto = sources / "howto"
    files = howto / "2d", howto / "3d", howto / "caption.json", folder / "features"
    convert_howto100m(*files, max_missing=0.2, widths=(6, 4), shard_bytes=600, num_proc=num_proc)


PREPARE = {function.__name__: function for function in (windows, blocks, aligned_blocks, features)}


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".verified"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def expected(sources, tokenizer, tmp_path_factory):
    """What one process makes of all, in tasks of the usual size."""
    made = {}
    for name, prepare in PREPARE.items():
        folder = tmp_path_factory.mktemp(name)
        prepare(sources, tokenizer, folder)
        made[name] = contents(folder)
        assert len(made[name]) > 2 and not any("tasks" in path for path in made[name])
    return made


@pytest.mark.parametrize("num_proc", [1, 2, 3])
@pytest.mark.parametrize("name", PREPARE)
def test_any_number_of_processes_makes_the_same_bytes(sources, tokenizer, expected, tmp_path, name, num_proc):
    PREPARE[name](sources, tokenizer, tmp_path, num_proc)
    assert contents(tmp_path) == expected[name]


def slowed(monkeypatch, log: Path, seconds: float):
    """Makes each task slow, and notes its name and process."""
    run = shared_tasks._run

    def slow(work, folder, name, argument):
        with open(log, "a") as file:
            file.write(f"{name} {os.getpid()}\n")
        time.sleep(seconds)
        run(work, folder, name, argument)

    monkeypatch.setattr(shared_tasks, "_run", slow)


def names_in(log: Path) -> list[str]:
    return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []


@pytest.mark.parametrize("name", PREPARE)
def test_processes_that_start_at_the_same_time_share_the_tasks(
    sources, tokenizer, expected, tmp_path, monkeypatch, name
):
    slowed(monkeypatch, tmp_path / "log", 0.03)
    (tmp_path / "made").mkdir()
    barrier = fork.Barrier(3)

    def prepare():
        barrier.wait(30)
        PREPARE[name](sources, tokenizer, tmp_path / "made")

    processes = [fork.Process(target=prepare) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert contents(tmp_path / "made") == expected[name]
    lines = (tmp_path / "log").read_text().splitlines()
    assert len({line.split()[1] for line in lines}) > 1 and len(set(names_in(tmp_path / "log"))) == len(lines) > 4


@pytest.mark.parametrize("name", PREPARE)
def test_killed_preparation_repeats_only_the_tasks_that_ran(sources, tokenizer, expected, tmp_path, monkeypatch, name):
    log = tmp_path / "log"
    slowed(monkeypatch, log, 0.05)
    (tmp_path / "made").mkdir()
    stop_after = random.Random(name).randrange(2, 6)
    process = fork.Process(target=PREPARE[name], args=(sources, tokenizer, tmp_path / "made"))
    process.start()
    end = time.monotonic() + 30
    while len(names_in(log)) < stop_after and time.monotonic() < end:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    before = names_in(log)
    PREPARE[name](sources, tokenizer, tmp_path / "made")
    assert contents(tmp_path / "made") == expected[name]
    again = names_in(log)[len(before) :]
    assert again and set(before[:-1]).isdisjoint(again), "only the task that ran is repeated"


def test_parts_of_captions_hold_each_caption_once_in_order(sources, monkeypatch):
    path = sources / "captions.jsonl"
    whole = read_captions(path)
    for size, read in ((7, 3), (100, 10**6), (999, 100), (10**6, 100), (10**6, 10**6)):
        monkeypatch.setattr(caption_parts, "PART_BYTES", size)
        monkeypatch.setattr(caption_parts, "READ_BYTES", read)
        source, corrections = CaptionSource(path), caption_parts.Counter()
        assert [caption for part in source.parts() for caption in source.read(part, corrections)] == whole


def test_folder_of_subtitles_is_divided_between_files(tmp_path, monkeypatch):
    for number in range(5):
        cue = f"1\n00:00:00,000 --> 00:00:01,000\nword{number}\n"
        (tmp_path / f"v{number}.srt").write_text(cue)
    monkeypatch.setattr(caption_parts, "PART_BYTES", 60)
    source = CaptionSource(tmp_path)
    assert [len(part.files) for part in source.parts()] == [2, 2, 1]
    read = [caption for part in source.parts() for caption in source.read(part, caption_parts.Counter())]
    assert read == read_captions(tmp_path)


@pytest.mark.parametrize("num_proc", [1, 2])
def test_wrong_caption_in_any_part_is_named_with_its_line(sources, tokenizer, tmp_path, num_proc):
    lines = (sources / "captions.jsonl").read_text().splitlines()
    lines[150] = lines[150].replace('"start"', '"begin"').replace('"end": ', '"end": -')
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    options = {"streaming": True, "cache_dir": tmp_path / "cache", "num_proc": num_proc}
    with pytest.raises(ValueError, match=r"c\.jsonl, line 151"):
        load_video_text(sources / "features", tmp_path / "c.jsonl", tokenizer, **options)
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("num_proc", [1, 2])
def test_wrong_text_in_any_task_is_named_with_its_line(tokenizer, tmp_path, num_proc):
    rows = [json.dumps({"text": "word1 word2 " * 20})] * 400
    rows[333] = json.dumps({"text": "\ud800"})
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    with pytest.raises(ValueError, match=r"t\.jsonl"):
        load_text_blocks(tmp_path / "t.jsonl", tokenizer, tmp_path / "cache", num_proc=num_proc)
    assert not list((tmp_path / "cache").iterdir())


def test_conversion_that_stopped_at_a_wrong_file_continues_after_its_correction(sources, tmp_path):
    howto = sources / "howto"
    files = howto / "2d", howto / "3d", howto / "caption.json", tmp_path / "out"
    options = {"widths": (6, 4), "shard_bytes": 600}
    with pytest.raises(ValueError, match="1 of 12 videos cannot be converted.*'video5'.*has width 3"):
        convert_howto100m(*files, **options)
    wrong = howto / "2d" / "video5.npy"
    content = wrong.read_bytes()
    try:
        np.save(wrong, np.ones((15, 6), np.float16))
        assert convert_howto100m(*files, **options)["videos"] == 12
    finally:
        wrong.write_bytes(content)
    assert not (tmp_path / "out" / "tasks").exists()
