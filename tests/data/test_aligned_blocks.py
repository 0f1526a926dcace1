"""Text for a teacher with another tokenizer: its tokens lie in the right block and window, and nothing is lost."""

import pickle

import numpy as np
import pytest
import torch
from datasets import Dataset
from helpers import WORDS, make_tokenizer
from tokenizer_families import TEXTS, make_family
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertTokenizerLegacy, PreTrainedTokenizerFast

from vidlankd_hf import TextCollator, load_text_blocks
from vidlankd_hf.data import block_writer, token_tasks
from vidlankd_hf.data.segments import classes_of, cut, without_spaces
from vidlankd_hf.data.source_files import combined_hash
from vidlankd_hf.data.text_blocks import TextBlocks
from vidlankd_hf.data.tokenization import tokenize_with_spans
from vidlankd_hf.data.vocabulary import tokenizer_fingerprint
from vidlankd_hf.training.sampler import EpochDataset

SIZE = 30
WORDS_OF_TEXTS = " ".join(TEXTS[:7]).split()


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def lines():
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(WORDS_OF_TEXTS, rng.integers(1, 40))) for _ in range(300)]
    return [*lines[:100], "", "  ", *lines[100:]]


def load(lines, folder, student="wordpiece", teacher="byte_bpe", **options):
    options = {"block_tokens": SIZE, **options}
    if teacher is not None:
        options["teacher_tokenizer"] = make_family(teacher)
    return load_text_blocks(Dataset.from_dict({"text": lines}), make_family(student), folder, **options)


@pytest.fixture(scope="module")
def blocks(lines, tmp_path_factory):
    return load(lines, tmp_path_factory.mktemp("aligned"))


def same_files(one: TextBlocks, other: TextBlocks) -> bool:
    names = sorted(path.name for path in one.folder.glob("*.npy"))
    return names == sorted(path.name for path in other.folder.glob("*.npy")) and all(
        (one.folder / name).read_bytes() == (other.folder / name).read_bytes() for name in names
    )


def numbered(lines, *families):
    """The segments of both tokenizations of all texts, numbered consecutively over the texts."""
    numbers, total = ([], []), 0
    for line in filter(str.strip, lines):
        classes = classes_of(line)
        spans = [without_spaces(tokenize_with_spans(make_family(name), [line])[1], classes) for name in families]
        found = cut(len(line), *spans)
        for whole, part in zip(numbers, found):
            whole += [int(number) + total if number >= 0 else -1 for number in part]
        total += int(found[0].max()) + 1
    return numbers


def groups(numbers):
    """The places of the tokens of each segment."""
    found = {}
    for place, number in enumerate(numbers):
        if number >= 0:
            found.setdefault(number, []).append(place)
    return found


def test_the_blocks_and_their_folder_are_what_they_are_without_a_teacher(lines, tmp_path, blocks):
    plain = load(lines, tmp_path, teacher=None)
    assert (plain.folder / "blocks.npy").read_bytes() == (blocks.folder / "blocks.npy").read_bytes()
    assert {k: v for k, v in blocks.info.items() if k not in ("alignment", "source")}.items() <= plain.info.items()
    assert sorted(path.name for path in plain.folder.iterdir()) == ["blocks.npy", "info.json", "pieces.jsonl"]
    key = [tokenizer_fingerprint(make_family("wordpiece")), SIZE]
    data = Dataset.from_dict({"text": lines})
    assert plain.folder.name == f"blocks-{combined_hash('v3', data._fingerprint, key)[:16]}"
    assert plain[0].keys() == {"input_ids"} and blocks.folder != plain.folder


@pytest.mark.parametrize(
    ("student", "teacher"), [("wordpiece", "byte_bpe"), ("roberta", "unigram"), ("clip", "roberta")]
)
def test_segments_of_a_block_are_those_of_its_texts_that_lie_in_it(lines, tmp_path, student, teacher):
    lines = lines[:120]
    blocks = load(lines, tmp_path, student, teacher)
    ours, theirs = map(groups, numbered(lines, student, teacher))
    ids = [
        index for line in lines for index in tokenize_with_spans(make_family(teacher), [line])[0][0] if line.strip()
    ]
    begin, lie_in = {}, {}
    for number, places in ours.items():
        begin.setdefault(places[0] // SIZE, []).append(number)
        if places[0] // SIZE == places[-1] // SIZE:
            lie_in.setdefault(places[0] // SIZE, []).append(number)
    samples = blocks.__getitems__(range(len(blocks)))
    first, none = 0, np.iinfo(samples[0]["segments"].dtype).max
    for block, sample in enumerate(samples):
        count = len(sample["teacher_ids"])
        assert sample["teacher_ids"].tolist() == ids[first : first + count], "no token is lost or moved"
        assert sample["teacher_windows"].tolist() == [count]
        for name, all_places, offset in (("segments", ours, block * SIZE), ("teacher_segments", theirs, first)):
            found = groups(np.where(sample[name] == none, -1, sample[name].astype(int)))
            assert list(found) == list(range(len(lie_in[block])))
            assert [[p + offset for p in places] for places in found.values()] == [
                all_places[n] for n in lie_in[block]
            ]
        assert all(first <= p < first + count for n in begin[block] for p in theirs[n])
        first += count
    info = blocks.info["alignment"]
    across = sum(len(begin[block]) - len(lie_in[block]) for block in range(len(blocks)))
    assert info["teacher_tokens"] == first and info["segments_across_blocks"] == across > 0
    assert info["aligned_share"] > 0.9 and info["poor_blocks"] == 0 and info["windows_per_block"] == 1
    assert info["tokens_in_no_segment"] == sum((sample["segments"] == none).sum() for sample in samples)
    alone = sum((sample["teacher_segments"] == none).sum() for sample in samples)
    assert info["teacher_tokens_in_no_segment"] == alone
    assert info["segments"] == sum(len(lie_in[block]) for block in range(len(blocks)))


def test_each_block_reads_the_same_words_on_both_sides(blocks):
    """Shown by the texts of the segments themselves, through the batch that a model gets."""
    student, teacher = make_family("wordpiece"), make_family("byte_bpe")
    collator = TextCollator(student, teacher_tokenizer=teacher, mlm_probability=1e-9)
    compared = 0
    for first in range(0, len(blocks) - 8, 8):
        samples = EpochDataset(blocks).__getitems__(range(first, first + 8))
        batch = collator(samples)
        flat = batch["teacher_input_ids"].reshape(-1)
        for b, sample in enumerate(samples):
            for segment in range(int(batch["segment_mask"][b].sum())):
                ours = sample["input_ids"][(batch["segments"][b, 1:-1] == segment).numpy()]
                theirs = flat[batch["teacher_positions"][b][batch["teacher_segments"][b] == segment]]
                text = teacher.decode(theirs).strip().lower()
                pieces = "".join(token.removeprefix("##") for token in student.convert_ids_to_tokens(ours))
                if text.isascii() and "[UNK]" not in pieces:
                    assert pieces == text.replace(" ", "")
                    compared += 1
    assert compared > 1000


@pytest.mark.parametrize("family", ["wordpiece", "byte_bpe", "unigram"])
def test_equal_tokenizers_make_every_token_a_segment(lines, tmp_path, family):
    blocks = load(lines, tmp_path, family, family)
    for sample in blocks.__getitems__(range(len(blocks))):
        assert sample["segments"].tolist() == sample["teacher_segments"].tolist() == list(range(SIZE))
        assert sample["teacher_ids"].tolist() == sample["input_ids"].tolist()
    assert blocks.info["alignment"]["aligned_share"] == 1


def test_number_of_processes_changes_no_alignment(lines, tmp_path, blocks, monkeypatch):
    monkeypatch.setattr("vidlankd_hf.data.text_source.BATCH_TEXTS", 50)
    two = load(lines, tmp_path, num_proc=2)
    assert same_files(two, blocks) and two.info == blocks.info


def test_interrupted_alignment_continues_after_its_last_piece(lines, tmp_path, blocks, monkeypatch):
    monkeypatch.setattr(block_writer, "PIECE_BYTES", 1000)
    monkeypatch.setattr("vidlankd_hf.data.text_source.BATCH_TEXTS", 20)
    tokenized = token_tasks.TokenTasks.tokenized

    def stopping(*arguments):
        for number, result in enumerate(tokenized(*arguments)):
            if number == 9:
                raise Killed
            yield result

    with monkeypatch.context() as patched:
        patched.setattr(token_tasks.TokenTasks, "tokenized", stopping)
        with pytest.raises(Killed):
            load(lines, tmp_path)
    (part,) = tmp_path.iterdir()
    with open(part / "teacher_ids.npy", "r+b") as file:  # damaged in the last piece but two
        file.seek(-500, 2)
        file.write(b"\xff" * 8)
    again = load(lines, tmp_path)
    assert same_files(again, blocks) and again.info == blocks.info
    assert len((again.folder / "pieces.jsonl").read_text().splitlines()) > 5


@pytest.mark.parametrize("teacher", ["byte_bpe", "clip"])
def test_teacher_of_few_tokens_reads_windows_that_begin_between_segments(lines, tmp_path, teacher):
    blocks = load(lines, tmp_path, teacher=teacher, teacher_length=77, block_tokens=126)
    room = 77 - (2 if teacher == "clip" else 0)
    tokenizer, several, at_end = make_family(teacher), 0, 0
    whole = load(lines, tmp_path, teacher=teacher, block_tokens=126)
    for sample, uncut in zip(blocks, whole):
        windows = sample["teacher_windows"].astype(int)
        assert windows.sum() == len(sample["teacher_ids"]) and windows.max() <= room
        assert all((sample[name] == uncut[name]).all() for name in ("teacher_ids", "segments", "teacher_segments"))
        numbers = sample["teacher_segments"]
        none = np.iinfo(numbers.dtype).max
        for start in np.cumsum(windows)[:-1]:
            before, after = (set(part[part != none]) for part in (numbers[:start], numbers[start:]))
            assert not before & after, "a window begins inside a segment"
            several += 1
            at_end += tokenizer.decode(sample["teacher_ids"][:start]).removesuffix("</w>").rstrip()[-1] in ".!?。"
        assert (windows[:-1] > room // 2).all()
    assert several > 50 and at_end > several / 4, "windows prefer to begin after a sentence"
    assert blocks.info["alignment"]["windows_per_block"] > 1.3
    batch = TextCollator(make_family("wordpiece"), teacher_tokenizer=tokenizer)(
        EpochDataset(blocks).__getitems__(range(4))
    )
    assert batch["teacher_input_ids"].shape[1] <= 77


def test_segment_longer_than_a_window_is_left_out_and_counted(tmp_path):
    long = "x" * 40  # one unknown word for the student, many tokens for the teacher
    blocks = load([f"hello world {long} hello another world"] * 60, tmp_path, teacher_length=12)
    info = blocks.info["alignment"]
    assert info["segments_too_long"] >= 50
    for sample in blocks:
        assert sample["teacher_windows"].max() <= 12
        assert sample["teacher_windows"].sum() == len(sample["teacher_ids"])


def test_parts_of_the_blocks_keep_their_alignment_also_in_workers(blocks):
    train, held_out = blocks.split(10)
    last = len(blocks) - 10
    for part, index, whole in ((train, 3, 3), (held_out, 4, last + 4)):
        copy = pickle.loads(pickle.dumps(part))
        for name, value in blocks[whole].items():
            assert np.array_equal(copy[index][name], value) and np.array_equal(part[index][name], value)
    assert held_out[0]["teacher_ids"].tolist() == blocks[last]["teacher_ids"].tolist()
    assert len({one.content_fingerprint for one in (blocks, train, held_out)}) == 3


def test_alignment_is_part_of_the_fingerprint_of_the_data(lines, tmp_path, blocks):
    plain, other = load(lines, tmp_path, teacher=None), load(lines, tmp_path, teacher="roberta")
    assert len({one.content_fingerprint for one in (blocks, plain, other)}) == 3
    assert plain.content_fingerprint == combined_hash(plain.info["sha256"], 0, len(plain), None)


def test_damaged_alignment_is_made_again(lines, tmp_path, caplog):
    blocks = load(lines, tmp_path)
    expected = {path.name: path.read_bytes() for path in blocks.folder.glob("*.npy")}
    for name in expected:
        content = bytearray(expected[name])
        content[-1] ^= 1
        (blocks.folder / name).write_bytes(content)
        caplog.clear()
        again = load(lines, tmp_path)
        assert f"{name} is damaged" in caplog.text
        assert {path.name: path.read_bytes() for path in again.folder.glob("*.npy")} == expected
    (blocks.folder / "ends.npy").unlink()
    assert same_files(load(lines, tmp_path), blocks)


def test_second_call_opens_the_alignment_and_says_the_same(lines, tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO", "vidlankd_hf")
    load(lines, tmp_path)
    monkeypatch.setattr("vidlankd_hf.data.text_blocks.write_blocks", None)
    load(lines, tmp_path)
    first, second = (record.message for record in caplog.records if "segments cover" in record.message)
    assert first == second and "windows per block" in first


def test_tokenizers_that_cannot_be_aligned_are_refused_at_once(lines, tmp_path):
    slow = BertTokenizerLegacy.__new__(BertTokenizerLegacy)
    with pytest.raises(ValueError, match="teacher's tokenizer .BertTokenizerLegacy. has no fast version"):
        load_text_blocks(Dataset.from_dict({"text": lines}), make_tokenizer(), tmp_path, teacher_tokenizer=slow)
    with pytest.raises(ValueError, match="reads 5 tokens at once, 2 of them special.*at least 6"):
        load(lines, tmp_path, teacher="clip", teacher_length=5)
    assert not list(tmp_path.iterdir())


def test_texts_that_only_one_tokenizer_knows_are_refused_with_their_share(tmp_path):
    lines = [" ".join(WORDS)] * 50
    blind = make_family("byte_bpe")
    with pytest.MonkeyPatch.context() as patched:
        of = token_tasks.Tokens.of
        patched.setattr(
            token_tasks.Tokens,
            "of",
            lambda tokenizer, texts: (
                of(tokenizer, texts)._replace(spans=of(tokenizer, texts).spans * 0)
                if tokenizer is blind
                else of(tokenizer, texts)
            ),
        )
        with pytest.raises(ValueError, match="no token is aligned with the teacher's: in .* of .* blocks"):
            load(lines, tmp_path)
    assert not list(tmp_path.iterdir()), "nothing is left of a text that cannot be used"


def test_blocks_that_are_hardly_aligned_are_counted_and_refused_if_they_are_many(tmp_path, caplog):
    good, bad = "hello world hello another world", "x" * 35
    few = [good] * 1600 + [" ".join([bad] * 40)]
    few = load(few, tmp_path / "few", teacher_length=12)
    assert few.info["alignment"]["poor_blocks"] in (1, 2)
    assert "less than half of the tokens are aligned" in caplog.text
    with pytest.raises(ValueError, match=r"only \d+\.\d% of the tokens are aligned.*allowed in at most 1% of them"):
        load([good] * 80 + [" ".join([bad] * 40)], tmp_path / "many", teacher_length=12)


def test_text_that_the_teacher_cannot_read_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join([*["hello world"] * 50, "hello cursed world", "hello"]))
    knows_three_words = Tokenizer(models.WordLevel({"hello": 0, "world": 1, "x": 2}, unk_token="[UNK]"))
    knows_three_words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    student, teacher = make_family("wordpiece"), PreTrainedTokenizerFast(tokenizer_object=knows_three_words)
    with pytest.raises(ValueError, match="a.txt, line 51: .*cannot be tokenized by the teacher's tokenizer.*Missing"):
        load_text_blocks(tmp_path / "a.txt", student, tmp_path / "cache", block_tokens=10, teacher_tokenizer=teacher)


def test_torch_workers_read_aligned_blocks(blocks):
    student, teacher = make_family("wordpiece"), make_family("byte_bpe")
    collator = TextCollator(student, teacher_tokenizer=teacher)
    keys = [list(range(i, i + 8)) for i in range(0, 32, 8)]
    for workers in (0, 1):
        loader = torch.utils.data.DataLoader(
            EpochDataset(blocks), batch_sampler=keys, collate_fn=collator, num_workers=workers
        )
        batches = list(loader)
        if workers == 0:
            expected = batches
    assert all(torch.equal(a[k], b[k]) for a, b in zip(batches, expected) for k in a)
