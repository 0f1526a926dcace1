"""Tokenized blocks are as they were written, of the text as it is now, and are continued after an interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, IterableDataset
from helpers import WORDS, make_tokenizer
from launching import LIGHT
from prepared_data import OLD, Killed, flip, names, new_run, zero

from vidlankd_hf import load_text_blocks
from vidlankd_hf.data import block_writer, checksums, token_tasks
from vidlankd_hf.data.checksums import DamagedData
from vidlankd_hf.data.text_blocks import TextBlocks, load_text
from vidlankd_hf.utils.io import sha256_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def lines():
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 30))) for _ in range(3000)]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_changed_text_of_the_same_size_and_time_is_read_anew(tmp_path, tokenizer, streaming, suffix):
    folder = tmp_path / "text"
    folder.mkdir()
    found = []
    for word in ("word1", "word2"):
        text = " ".join([word] * 40)
        content = json.dumps({"text": text}) if suffix == ".jsonl" else text
        (folder / f"train{suffix}").write_text(f"{content}\n" * 40)
        os.utime(folder / f"train{suffix}", (OLD, OLD))
        blocks = load_text_blocks(folder, tokenizer, tmp_path / "cache", streaming=streaming)
        found.append(set(blocks.array.ravel().tolist()))
        assert load_text(str(folder))["text"][0] == text
    assert found == [{tokenizer.vocab[word]} for word in ("word1", "word2")]


def test_text_that_changes_while_it_is_tokenized_is_refused(tmp_path, tokenizer, lines, monkeypatch):
    path, write_blocks = tmp_path / "a.txt", block_writer.write_blocks
    path.write_text("\n".join(lines))

    def changing(*given):
        path.write_text("\n".join(lines[1:]))
        return write_blocks(*given)

    with monkeypatch.context() as patch:
        patch.setattr("vidlankd_hf.data.text_blocks.write_blocks", changing)
        with pytest.raises(ValueError, match="a.txt changed while it was read: start again when nothing writes to it"):
            load_text_blocks(path, tokenizer, tmp_path / "cache")
    assert names(tmp_path / "cache") == []
    changed = load_text_blocks(path, tokenizer, tmp_path / "cache").array
    path.write_text("\n".join(lines))
    assert not np.array_equal(load_text_blocks(path, tokenizer, tmp_path / "cache").array[: len(changed)], changed)


def test_text_is_told_apart_by_content_not_by_name(tmp_path, tokenizer, lines):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("\n".join(lines))
    one, other = (load_text_blocks(tmp_path / name, tokenizer, tmp_path / "cache") for name in ("a.txt", "b.txt"))
    assert one.folder == other.folder and names(tmp_path / "cache") == [one.folder.name]


DAMAGES = {
    "zeros in blocks": lambda folder: zero(folder / "blocks.npy", 128 + 4096),
    "header": lambda folder: zero(folder / "blocks.npy", 0, 20),
    "blocks too short": lambda folder: os.truncate(folder / "blocks.npy", 1000),
    "blocks missing": lambda folder: (folder / "blocks.npy").unlink(),
    "info empty": lambda folder: (folder / "info.json").write_text(""),
    "info missing": lambda folder: (folder / "info.json").unlink(),
    "info deep": lambda folder: (folder / "info.json").write_text("[" * 200_000),
    "info odd": lambda folder: (folder / "info.json").write_text('{"blocks": true}'),
    "pieces empty": lambda folder: (folder / "pieces.jsonl").write_text(""),
    "pieces cut": lambda folder: os.truncate(folder / "pieces.jsonl", 30),
    "pieces odd": lambda folder: (folder / "pieces.jsonl").write_text("[1]\n"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_blocks_are_named_and_made_again(tmp_path, tokenizer, lines, damage, caplog):
    (tmp_path / "a.txt").write_text("\n".join(lines))
    blocks = load_text_blocks(tmp_path / "a.txt", tokenizer, tmp_path / "cache")
    expected = np.array(blocks.array)
    DAMAGES[damage](blocks.folder)
    new_run()
    with pytest.raises((DamagedData, FileNotFoundError)):
        TextBlocks(blocks.folder)
    new_run()
    again = load_text_blocks(tmp_path / "a.txt", tokenizer, tmp_path / "cache")
    assert np.array_equal(again.array, expected) and "The text is tokenized again" in caplog.text
    assert names(tmp_path / "cache") == [again.folder.name]


def test_blocks_are_verified_once_in_a_run(tmp_path, tokenizer, lines, monkeypatch):
    (tmp_path / "a.txt").write_text("\n".join(lines))
    blocks = load_text_blocks(tmp_path / "a.txt", tokenizer, tmp_path / "cache")
    verified = []
    verify = checksums._verify
    monkeypatch.setattr(checksums, "_verify", lambda *given: verified.append(1) or verify(*given))
    new_run()
    load_text_blocks(tmp_path / "a.txt", tokenizer, tmp_path / "cache").split(5)
    TextBlocks(blocks.folder)
    assert len(verified) == 1


RANK = """
import sys, time
from pathlib import Path
from vidlankd_hf.data import checksums
verify = checksums._verify
checksums._verify = lambda *given: print("verified", flush=True) or time.sleep(0.3) or verify(*given)
folder = Path(sys.argv[1])
checksums.verify_once(folder, [checksums.complete_file(folder / "a", {"bytes": 1, "sha256": sys.argv[2]})])
print("opened", flush=True)
"""


def test_files_are_verified_by_one_process_of_a_machine(tmp_path):
    (tmp_path / "a").write_text("x")
    command = [sys.executable, "-c", LIGHT + RANK, str(tmp_path), sha256_of(tmp_path / "a")]
    for launch in range(2):
        ranks = [
            subprocess.Popen(command, env={**os.environ, "LOCAL_RANK": str(i)}, stdout=subprocess.PIPE, text=True)
            for i in range(3)
        ]
        said = "".join(rank.communicate(timeout=100)[0] for rank in ranks).split()
        assert sorted(said) == ["opened"] * 3 + ["verified"] * (launch == 0), "this test's processes are one launch"
    (tmp_path / "a").write_text("y")
    changed = subprocess.run(command, env={**os.environ, "LOCAL_RANK": "1"}, capture_output=True, text=True)
    assert "DamagedData" in changed.stderr and "opened" not in changed.stdout


def test_blocks_and_their_pieces_are_on_the_disk_before_their_folder_has_its_name(
    tmp_path, tokenizer, lines, monkeypatch
):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda d: calls.append(Path(os.readlink(f"/proc/self/fd/{d}")).name) or fsync(d))
    monkeypatch.setattr(os, "replace", lambda a, b: calls.append(f"rename {Path(b).name}") or replace(a, b))
    blocks = load_text_blocks(Dataset.from_dict({"text": lines}), tokenizer, tmp_path)
    before = calls[: calls.index(f"rename {blocks.folder.name}")]
    assert {"blocks.npy", "pieces.jsonl", "info.json"} <= set(before)
    assert before.index("blocks.npy") < before.index("pieces.jsonl", before.index("blocks.npy"))


@pytest.mark.parametrize("num_proc", [None, 2])
@pytest.mark.parametrize("kind", ["file", "data set", "stream"])
def test_interrupted_tokenizing_continues_after_its_last_piece(
    tmp_path, tokenizer, lines, monkeypatch, kind, num_proc
):
    monkeypatch.setattr(block_writer, "PIECE_BYTES", 4000)
    monkeypatch.setattr("vidlankd_hf.data.text_source.BATCH_TEXTS", 100)
    (tmp_path / "a.txt").write_text("\n".join(lines))

    def texts():
        yield from ({"text": line} for line in lines)

    def load(cache):
        source = {"file": tmp_path / "a.txt", "data set": Dataset.from_dict({"text": lines}),
                  "stream": IterableDataset.from_generator(texts)}[kind]  # fmt: skip
        return load_text_blocks(source, tokenizer, tmp_path / cache, num_proc=None if cache == "whole" else num_proc)

    expected = load("whole")
    tokenized, stop_after = token_tasks.TokenTasks.tokenized, [26]
    counted = []

    def watched(*arguments):
        for number, result in enumerate(tokenized(*arguments)):
            if number == stop_after[0]:
                raise Killed
            counted.append(result[0])
            yield result

    monkeypatch.setattr(token_tasks.TokenTasks, "tokenized", watched)
    with pytest.raises(Killed):
        load("cache")
    assert [name[0] for name in names(tmp_path / "cache")] == ["."], "no folder looks complete"
    stop_after[0], done = None, sum(counted)
    blocks = load("cache")
    assert np.array_equal(blocks.array, expected.array) and blocks.info == expected.info
    assert done == 2600 and sum(counted) - done <= 600, "texts before the interruption are not tokenized again"
    assert names(tmp_path / "cache") == [blocks.folder.name]
    assert names(blocks.folder) == ["blocks.npy", "info.json", "pieces.jsonl"]


def test_piece_that_the_power_cut_damaged_is_tokenized_again(tmp_path, tokenizer, lines, monkeypatch):
    monkeypatch.setattr(block_writer, "PIECE_BYTES", 4000)
    monkeypatch.setattr("vidlankd_hf.data.text_source.BATCH_TEXTS", 100)
    data = Dataset.from_dict({"text": lines})
    expected = load_text_blocks(data, tokenizer, tmp_path / "whole")
    tokenized = token_tasks.TokenTasks.tokenized

    def stopping(*arguments):
        for number, result in enumerate(tokenized(*arguments)):
            if number == 20:
                raise Killed
            yield result

    monkeypatch.setattr(token_tasks.TokenTasks, "tokenized", stopping)
    with pytest.raises(Killed):
        load_text_blocks(data, tokenizer, tmp_path / "cache")
    (part,) = (tmp_path / "cache").iterdir()
    zero(part / "blocks.npy", 30_000, 100)
    with open(part / "pieces.jsonl", "a") as file:
        file.write('{"bytes": 40')
    monkeypatch.setattr(token_tasks.TokenTasks, "tokenized", tokenized)
    assert np.array_equal(load_text_blocks(data, tokenizer, tmp_path / "cache").array, expected.array)


@pytest.mark.parametrize("name", ["info.json", "pieces.jsonl"])
def test_no_flipped_bit_of_finished_blocks_goes_unnoticed(tmp_path, tokenizer, lines, name):
    blocks = load_text_blocks(Dataset.from_dict({"text": lines[:300]}), tokenizer, tmp_path)
    original = (blocks.folder / name).read_bytes()
    for at in range(0, len(original), 11):
        flip(blocks.folder / name, at)
        new_run()
        try:
            found = TextBlocks(blocks.folder)
        except DamagedData:
            found = None
        if found is not None:  # white space, or the name of the checksum
            assert found.info.items() >= blocks.info.items() and np.array_equal(found.array, blocks.array)
        (blocks.folder / name).write_bytes(original)


@pytest.mark.parametrize("what", ["rest", "texts", "bytes", "deep", "list"])
def test_interrupted_tokenizing_does_not_continue_from_a_damaged_line(tmp_path, tokenizer, lines, monkeypatch, what):
    monkeypatch.setattr(block_writer, "PIECE_BYTES", 4000)
    monkeypatch.setattr("vidlankd_hf.data.text_source.BATCH_TEXTS", 100)
    data = Dataset.from_dict({"text": lines})
    expected = load_text_blocks(data, tokenizer, tmp_path / "whole")
    tokenized = token_tasks.TokenTasks.tokenized
    monkeypatch.setattr(token_tasks.TokenTasks, "tokenized", lambda *given: killed_after(20, tokenized(*given)))
    with pytest.raises(Killed):
        load_text_blocks(data, tokenizer, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob(".*/pieces.jsonl")
    *before, last = path.read_text().splitlines()
    piece = json.loads(last)
    damaged = {"rest": [piece["rest"][0] ^ 1, *piece["rest"][1:]], "texts": piece["texts"] + 1, "bytes": "4000"}
    last = {"deep": "[" * 100_000, "list": "[1]"}.get(what) or json.dumps({**piece, what: damaged[what]})
    path.write_text("\n".join([*before, last]) + "\n")
    monkeypatch.setattr(token_tasks.TokenTasks, "tokenized", tokenized)
    blocks = load_text_blocks(data, tokenizer, tmp_path / "cache")
    assert np.array_equal(blocks.array, expected.array) and blocks.info == expected.info


def killed_after(count, results):
    for number, result in enumerate(results):
        if number == count:
            raise Killed
        yield result


PREPARES = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
from helpers import make_tokenizer
from vidlankd_hf import load_text_blocks
from vidlankd_hf.data import block_writer, token_tasks
block_writer.PIECE_BYTES = 20_000
print(len(load_text_blocks(sys.argv[1], make_tokenizer(), sys.argv[2], num_proc=int(sys.argv[3]))), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("num_proc", [1, 2])
def test_killed_preparation_leaves_nothing_behind_and_no_process(tmp_path, num_proc):
    (tmp_path / "t.txt").write_text(
        "".join(f"{' '.join(WORDS[(i * 7 + j) % 60] for j in range(40))}\n" for i in range(60_000))
    )
    code = PREPARES.format(root=str(ROOT), tests=str(ROOT / "tests"))
    command = [sys.executable, "-c", code, str(tmp_path / "t.txt"), str(tmp_path / "cache"), str(num_proc)]
    sizes = []
    for stop in (signal.SIGTERM, signal.SIGKILL):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        end = time.monotonic() + 60
        while time.monotonic() < end:
            part = list((tmp_path / "cache").glob(".*/blocks.npy"))
            if part and part[0].stat().st_size > 100_000 + (sizes[-1] if sizes else 0):
                break
            time.sleep(0.02)
        process.send_signal(stop)
        assert process.wait(timeout=60) == -stop
        sizes.append(part[0].stat().st_size)
        end = time.monotonic() + 20  # a busy machine takes a while to end them
        while time.monotonic() < end:
            group = subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, text=True).stdout
            if not group:
                break
            time.sleep(0.2)
        assert group == "", "workers end with their parent"
    assert sizes[1] > sizes[0], "the second one continued"
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and done.stdout.split()[-1] == "19047"
    assert len(names(tmp_path / "cache")) == 1


def test_text_that_changed_after_an_interruption_leaves_nothing_of_the_old_one(
    tmp_path, tokenizer, lines, monkeypatch
):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(lines))
    with monkeypatch.context() as patched:
        patched.setattr(token_tasks.TokenTasks, "tokenized", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            load_text_blocks(path, tokenizer, tmp_path / "cache")
    path.write_text("\n".join(lines[1:]))
    blocks = load_text_blocks(path, tokenizer, tmp_path / "cache")
    assert names(tmp_path / "cache") == [blocks.folder.name]
