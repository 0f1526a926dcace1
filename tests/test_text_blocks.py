"""Text: every token lands in a full block, once, and wrong input is refused."""

import json
import lzma

import numpy as np
import pytest
from datasets import Dataset
from helpers import WORDS, make_tokenizer

from vidlankd_hf import TextCollator, load_text_blocks
from vidlankd_hf.data.epochs import EpochDataset
from vidlankd_hf.data.text_blocks import load_text
from vidlankd_hf.data.vocabulary import check_same_vocabulary, vocabulary_fingerprint


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def lines():
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 30))) for _ in range(3000)] + ["", "   "]


def test_blocks_hold_every_token_in_order_and_count_what_is_left(tmp_path, tokenizer, lines):
    blocks = load_text_blocks(Dataset.from_dict({"text": lines}), tokenizer, tmp_path)
    expected = tokenizer(" ".join(lines), add_special_tokens=False)["input_ids"]
    info = json.loads((blocks.folder / "info.json").read_text())
    assert info["tokens"] == len(expected) and info["left_over"] == len(expected) % 126
    assert len(blocks) == len(expected) // 126
    assert blocks.array.reshape(-1).tolist() == expected[: len(blocks) * 126]
    assert blocks.array.dtype == np.uint16


def test_number_of_processes_changes_no_block(tmp_path, tokenizer, lines):
    one, two = (
        load_text_blocks(Dataset.from_dict({"text": lines}), tokenizer, tmp_path / str(n), num_proc=n) for n in (1, 2)
    )
    assert np.array_equal(one.array, two.array)


def test_second_call_opens_what_the_first_wrote(tmp_path, tokenizer, lines):
    first = load_text_blocks(Dataset.from_dict({"text": lines}), tokenizer, tmp_path)
    written = (first.folder / "blocks.npy").stat().st_mtime_ns
    again = load_text_blocks(Dataset.from_dict({"text": lines}), tokenizer, tmp_path)
    assert again.folder == first.folder and (again.folder / "blocks.npy").stat().st_mtime_ns == written
    other = load_text_blocks(Dataset.from_dict({"text": lines[:2000]}), tokenizer, tmp_path)
    assert other.folder != first.folder
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([first.folder.name, other.folder.name])


@pytest.mark.parametrize("suffix", [".txt", ".txt.xz", ".jsonl", ".parquet"])
def test_files_and_folders_of_text_are_read(tmp_path, suffix):
    dataset = Dataset.from_dict({"text": ["word1 word2", "word3"]})
    path = tmp_path / "in" / f"train{suffix}"
    path.parent.mkdir()
    if suffix.startswith(".txt"):
        with (lzma.open if suffix.endswith(".xz") else open)(path, "wt") as file:
            file.write("word1 word2\nword3\n")
    elif suffix == ".jsonl":
        dataset.to_json(path)
    else:
        dataset.to_parquet(path)
    for source in (path, path.parent):
        assert list(load_text(str(source))["text"]) == ["word1 word2", "word3"]


def test_wrong_sources_are_errors_that_say_what_to_give(tmp_path, tokenizer):
    with pytest.raises(ValueError, match="missing.txt does not exist"):
        load_text(str(tmp_path / "missing.txt"))
    with pytest.raises(ValueError, match="holds no text file"):
        load_text(str(tmp_path))
    (tmp_path / "a.txt").write_text("word1\n")
    with pytest.raises(ValueError, match="no file in .* begins with 'validation'"):
        load_text(str(tmp_path), split="validation")
    with pytest.raises(ValueError, match="1 tokens, fewer than one block of 126"):
        load_text_blocks(str(tmp_path / "a.txt"), tokenizer, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == [], "nothing half-written stays"
    Dataset.from_dict({"body": ["x"]}).to_json(tmp_path / "b.jsonl")
    with pytest.raises(ValueError, match="no column 'text': it has body"):
        load_text(str(tmp_path / "b.jsonl"))
    with pytest.raises(ValueError, match="several kinds"):
        load_text(str(tmp_path))


def test_held_out_blocks_are_not_trained_on(tmp_path, tokenizer, lines):
    blocks = load_text_blocks(Dataset.from_dict({"text": lines}), tokenizer, tmp_path)
    train, held_out = blocks.split(7)
    assert (len(train), len(held_out)) == (len(blocks) - 7, 7)
    assert np.array_equal(held_out[0]["input_ids"], blocks[len(blocks) - 7]["input_ids"])
    with pytest.raises(IndexError):
        train[len(train)]
    with pytest.raises(ValueError, match="cannot hold out"):
        blocks.split(len(blocks))


def test_batches_of_blocks_have_one_shape_and_no_padding(tmp_path, tokenizer, lines):
    blocks = load_text_blocks(Dataset.from_dict({"text": lines}), tokenizer, tmp_path)
    batch = TextCollator(tokenizer)(EpochDataset(blocks).__getitems__([3, 1, 4]))
    assert batch["input_ids"].shape == (3, 128) and batch["masked_positions"].shape == (3, 19)
    assert "attention_mask" not in batch, "nothing is padded"
    assert (batch["masked_labels"] != -100).all()
    assert (batch["input_ids"][:, 0] == tokenizer.cls_token_id).all()
    assert (batch["input_ids"][:, -1] == tokenizer.sep_token_id).all()


def test_vocabularies_that_differ_are_told_apart_and_the_difference_named(tokenizer):
    check_same_vocabulary(tokenizer, make_tokenizer())
    with pytest.raises(ValueError, match="65 tokens, the student's 55"):
        check_same_vocabulary(tokenizer, make_tokenizer(WORDS[:50]))
    swapped = [WORDS[1], WORDS[0], *WORDS[2:]]
    with pytest.raises(ValueError, match="'word0' has id 5 .* and 6"):
        check_same_vocabulary(tokenizer, make_tokenizer(swapped))
    other = make_tokenizer()
    other.mask_token = "[SEP]"
    assert vocabulary_fingerprint(other) != vocabulary_fingerprint(tokenizer)
    with pytest.raises(ValueError, match="mask token has id 4 .* and 3"):
        check_same_vocabulary(tokenizer, other)


@pytest.mark.parametrize("line", ['null{"text": "b"}', "null", '["text"]', "1", '"text"'])
def test_line_that_is_no_object_is_an_error_that_names_it(tmp_path, line):
    """Arrow's reader ends the process at the first of these."""
    (tmp_path / "train.jsonl").write_text('{"text": "a"}\n' + line + "\n")
    with pytest.raises(ValueError, match="line 2: not a JSON object"):
        load_text(str(tmp_path))
