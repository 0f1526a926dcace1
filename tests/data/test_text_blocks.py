"""Text: every token lands in a full block, once, and wrong input is refused."""

import json
import lzma

import numpy as np
import pytest
from datasets import Dataset, IterableDataset
from helpers import WORDS, make_tokenizer
from tokenizers.normalizers import BertNormalizer

from vidlankd_hf import TextCollator, load_text_blocks
from vidlankd_hf.data import text_source, token_tasks
from vidlankd_hf.data.text_blocks import load_text
from vidlankd_hf.data.vocabulary import check_same_vocabulary, vocabulary_fingerprint
from vidlankd_hf.training.sampler import EpochDataset


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
    assert info["texts"] == 3002 and info["texts_without_tokens"] == 2
    assert len(blocks) == len(expected) // 126
    assert blocks.array.reshape(-1).tolist() == expected[: len(blocks) * 126]
    assert blocks.array.dtype == np.uint16


def test_number_of_processes_changes_no_block(tmp_path, tokenizer, lines):
    one, two = (
        load_text_blocks(Dataset.from_dict({"text": lines}), tokenizer, tmp_path / str(n), num_proc=n) for n in (1, 2)
    )
    assert np.array_equal(one.array, two.array)


@pytest.mark.parametrize("num_proc", [None, 2])
def test_stream_makes_the_same_blocks_and_holds_few_texts_at_a_time(tmp_path, tokenizer, lines, monkeypatch, num_proc):
    monkeypatch.setattr(text_source, "BATCH_TEXTS", 100)
    monkeypatch.setattr(token_tasks, "TASK_CHARACTERS", 5000)
    expected = load_text_blocks(Dataset.from_dict({"text": lines}), tokenizer, tmp_path / "map")
    given, ahead = [0], []

    def texts():
        for line in lines:
            given[0] += 1
            yield {"text": line}

    tokenized = token_tasks.TokenTasks.tokenized

    def watched(*arguments):
        taken = 0
        for count, *rest in tokenized(*arguments):
            ahead.append(given[0] - taken)
            taken += count
            yield count, *rest

    monkeypatch.setattr(token_tasks.TokenTasks, "tokenized", watched)
    stream = IterableDataset.from_generator(texts)
    blocks = load_text_blocks(stream, tokenizer, tmp_path / "stream", num_proc=num_proc)
    assert np.array_equal(blocks.array, expected.array)
    assert max(ahead) <= 700, "texts are read far ahead of what is written"
    without = {name: value for name, value in blocks.info.items() if name != "source"}
    assert without == {name: value for name, value in expected.info.items() if name != "source"}


def test_streamed_files_make_the_same_blocks_and_are_kept_under_their_own_name(tmp_path, tokenizer, lines):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(lines[:2000]))
    plain = load_text_blocks(path, tokenizer, tmp_path / "cache")
    streamed = load_text_blocks(str(path), tokenizer, tmp_path / "cache", streaming=True)
    assert np.array_equal(plain.array, streamed.array)
    again = load_text_blocks(str(path), tokenizer, tmp_path / "cache", streaming=True)
    assert again.folder == streamed.folder
    other = tmp_path / "b.txt"
    other.write_text("\n".join(lines[1000:]))
    assert load_text_blocks(str(other), tokenizer, tmp_path / "cache", streaming=True).folder != streamed.folder


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    "source, path, configuration",
    [
        ("Salesforce/wikitext:wikitext-103-raw-v1", "Salesforce/wikitext", "wikitext-103-raw-v1"),
        ("wikimedia/wikipedia:20231101.en", "wikimedia/wikipedia", "20231101.en"),
        ("stas/openwebtext-10k", "stas/openwebtext-10k", None),
    ],
)
def test_hub_id_names_data_set_and_configuration(monkeypatch, source, path, configuration, streaming):
    asked = []

    def load_dataset(*arguments, **options):
        asked.append((arguments, options))
        dataset = Dataset.from_dict({"title": ["a"], "text": ["word1 word2"]})
        return dataset.to_iterable_dataset() if streaming else dataset

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    rows = list(load_text(source, "validation", streaming=streaming))
    assert rows == [{"text": "word1 word2"}]
    assert asked == [((path, configuration), {"split": "validation", "streaming": streaming})]
    with pytest.raises(ValueError, match="no column 'body': it has title, text"):
        load_text(source, text_column="body", streaming=streaming)


def test_text_that_is_none_is_counted_and_one_that_is_a_number_refused(tmp_path, tokenizer, lines):
    blocks = load_text_blocks(Dataset.from_dict({"text": [None, *lines[:100]]}), tokenizer, tmp_path)
    assert blocks.info["texts_without_tokens"] == 1
    with pytest.raises(ValueError, match="row 1: the text is '17' .int., but the column must hold strings"):
        load_text_blocks(Dataset.from_dict({"text": [17]}), tokenizer, tmp_path)


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
    with pytest.raises(ValueError, match="no file in .* starts with 'validation'"):
        load_text(str(tmp_path), split="validation")
    with pytest.raises(ValueError, match="1 token, fewer than one block of 126"):
        load_text_blocks(str(tmp_path / "a.txt"), tokenizer, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == [], "nothing half-written stays"
    Dataset.from_dict({"body": ["x"]}).to_json(tmp_path / "b.jsonl")
    with pytest.raises(ValueError, match="no column 'text': it has body"):
        load_text(str(tmp_path / "b.jsonl"))
    with pytest.raises(ValueError, match="several kinds"):
        load_text(str(tmp_path))


@pytest.mark.parametrize(
    "name, content, message",
    [("a.jsonl", "", r"files are empty \(a.jsonl\)"), ("a.txt", "", r"files are empty \(a.txt\)"),
     ("a.jsonl", "\n", "cannot be read as text"), ("a.json", "[]", "cannot be read as text"),
     ("a.jsonl", "{}\n", "cannot be read as text")],
)  # fmt: skip
def test_files_without_text_are_errors(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
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
    """At the first of these, Arrow's reader would end the process."""
    (tmp_path / "train.jsonl").write_text('{"text": "a"}\n' + line + "\n")
    with pytest.raises(ValueError, match="line 2: not a JSON object"):
        load_text(str(tmp_path))


def test_a_name_with_brackets_is_a_name_and_no_pattern(tmp_path):
    (tmp_path / "w[12].txt").write_text("hello\n")
    (tmp_path / "w1.txt").write_text("bye\n")
    assert load_text(str(tmp_path / "w[12].txt"))["text"] == ["hello"]


def test_blocks_of_a_tokenizer_that_reads_text_otherwise_are_not_taken_from_the_cache(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("Bread bread BREAD bread bread\n" * 20)
    folders = []
    for lowercase in (True, False):
        tokenizer = make_tokenizer(["bread"])
        tokenizer.backend_tokenizer.normalizer = BertNormalizer(lowercase=lowercase)
        blocks = load_text_blocks(str(path), tokenizer, tmp_path / "cache", block_tokens=8)
        folders.append(blocks.folder)
    assert folders[0] != folders[1]


@pytest.mark.parametrize("unknown, warned", [(1, False), (10, True)])
def test_text_that_the_vocabulary_does_not_cover_is_a_warning(tmp_path, tokenizer, caplog, unknown, warned):
    words = [*["unheard"] * unknown, *(WORDS * 100)[: 100 - unknown]]
    for _ in range(2):  # also when the stored blocks are opened
        caplog.clear()
        load_text_blocks(Dataset.from_dict({"text": [" ".join(words)] * 50}), tokenizer, tmp_path)
        assert (f"{unknown} % of the tokens" in caplog.text and "[UNK]" in caplog.text) == warned
