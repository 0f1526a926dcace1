"""Texts are tokenized as text alone, lengths are those of what is fed, and tokenizers without a fast version work."""

import json

import numpy as np
import pytest
from captioned_videos import caption, write_captions, write_features
from datasets import Dataset
from helpers import WORDS, make_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import BertweetTokenizer, PreTrainedTokenizerFast

from vidlankd_hf import VideoTextCollator, load_text_blocks, load_video_text
from vidlankd_hf.data.captions import Caption
from vidlankd_hf.data.tokenization import counts_spaces, token_spans, tokenize
from vidlankd_hf.data.vocabulary import tokenizer_fingerprint
from vidlankd_hf.data.windows import divide, tile

TEXTS = ["Commands", "Without", "hours", "swapped", "hello world", "caf\u00e9 \U0001f600 \u4f60\u597d"]


@pytest.fixture(scope="module")
def byte_level():
    """A byte-level tokenizer in which a word has other tokens after a space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<pad>", "<unk>", "<s>", "</s>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(["Commands Commands Without hours"] * 20, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", cls_token="<s>", sep_token="</s>",
        mask_token="<mask>",
    )  # fmt: skip


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """Makes tokenizers that only Python has, with the same vocabulary and other rules."""
    folder = tmp_path_factory.mktemp("slow")
    letters = "abcdefghijklmnopqrstuvwxyz.:/T@"
    words = ["i", "saw", "it", "@USER", "HTTPURL", "the", "The", "red", "ball", *letters, *(c + "@@" for c in letters)]
    (folder / "vocab.txt").write_text("".join(f"{word} 1\n" for word in words))
    (folder / "bpe.codes").write_text("#version: 0.2\nt h 1\nth e</w> 1\n")

    def make(**rules):
        return BertweetTokenizer(str(folder / "vocab.txt"), str(folder / "bpe.codes"), **rules)

    assert not make().is_fast, "as the tests mean it"
    return make


@pytest.mark.parametrize("written", ["[MASK]", "[PAD]", "[CLS] [SEP]"])
def test_control_tokens_written_in_a_text_are_text(tmp_path, written):
    tokenizer = make_tokenizer(["the", "box", "[", "]", "MASK", "PAD", "CLS", "SEP"])
    control = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    text = f"the {written} box"
    assert not control & set(tokenize(tokenizer, [text])[0])
    blocks = load_text_blocks(Dataset.from_dict({"text": [text] * 40}), tokenizer, tmp_path, block_tokens=8)
    assert not control & set(np.concatenate([block["input_ids"] for block in blocks]).tolist())
    ((line, count),) = divide([Caption("v", 0, 1, text)], tokenizer, 30)
    assert count == len(tokenize(tokenizer, [text])[0])
    sample = {"text": text, "video_features": np.zeros((1, 4)), "sample_id": 0, "epoch": 0}
    batch = VideoTextCollator(tokenizer, mlm_probability=0.01, check_negatives=False)([sample, sample])
    assert batch["input_ids"].shape[1] == count + 2


def test_a_control_token_that_is_one_word_of_the_vocabulary_becomes_unknown():
    tokenizer = make_tokenizer(["the"])
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    the, unknown = tokenizer.convert_tokens_to_ids(["the", "[UNK]"])
    assert tokenize(tokenizer, ["the [MASK] the", "the"]) == [[the, unknown, the], [the]]


def test_windows_are_measured_as_they_are_fed(byte_level):
    assert counts_spaces(byte_level) and not counts_spaces(make_tokenizer())
    rng = np.random.default_rng(0)
    words = [" ".join(rng.choice(TEXTS, rng.integers(1, 12))) for _ in range(80)]
    captions = [Caption("v", i, i + 1, text) for i, text in enumerate(words)]
    lines = divide(captions, byte_level, 30)
    assert " ".join(line.text for line, _ in lines).replace(" ", "") == " ".join(words).replace(" ", "")
    for shift in (0.0, 0.3, 1.0):
        bounds = tile(np.array([count for _, count in lines]), 30, shift)
        texts = [" ".join(line.text for line, _ in lines[a:b]) for a, b in zip(bounds, bounds[1:])]
        lengths = [len(ids) for ids in tokenize(byte_level, texts)]
        assert max(lengths) <= 30 and np.mean(lengths) > 20


def test_words_without_spaces_are_divided_between_characters(byte_level):
    text = "\u4f60\u597d\U0001f600" * 40
    lines = divide([Caption("v", 0, 1, text)], byte_level, 10)
    assert "".join(line.text for line, _ in lines) == text
    assert all(len(tokenize(byte_level, [line.text])[0]) <= 10 for line, _ in lines)


def test_tokenizers_without_a_fast_version_work_and_their_rules_are_told_apart(tmp_path, slow):
    plain, normalizing = slow(normalization=False), slow(normalization=True)
    assert tokenizer_fingerprint(plain) != tokenizer_fingerprint(normalizing)
    assert tokenizer_fingerprint(plain) == tokenizer_fingerprint(slow(normalization=False))
    path = tmp_path / "text.txt"
    path.write_text("@anna saw http://t.co/x the red ball\n" * 30)
    blocks = [load_text_blocks(str(path), t, tmp_path / "cache", block_tokens=8) for t in (plain, normalizing)]
    assert blocks[0].folder != blocks[1].folder
    text = " ".join(["the red ball saw it"] * 12)
    lines = divide([Caption("v", 0, 12, text)], plain, 10)
    assert " ".join(line.text for line, _ in lines) == text
    assert all(len(tokenize(plain, [line.text])[0]) == count <= 10 for line, count in lines)
    assert lines[-1][0].end == pytest.approx(12) and all(a.end == b.start for (a, _), (b, _) in zip(lines, lines[1:]))
    long = "abcdefgh" * 9
    assert "".join(line.text for line, _ in divide([Caption("v", 0, 1, long)], plain, 10)) == long
    texts = ["the red", ""]
    assert list(map(len, token_spans(plain, texts))) == list(map(len, tokenize(plain, texts)))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_caption_that_has_no_tokens_is_named_with_file_and_line(tmp_path, streaming):
    features = write_features(tmp_path / "features", {"a.mp4": 20.0})
    path = write_captions(tmp_path / "c.jsonl", [caption("a.mp4", 0, 1), caption("a.mp4", 2, 3, "gone")])
    tokenizer = make_tokenizer()
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("gone", "")
    with pytest.raises(ValueError, match="c.jsonl, line 2: the caption 'gone' of a.mp4 at 2.0 s has no tokens"):
        load_video_text(features, path, tokenizer, streaming=streaming, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("num_proc", [None, 2])
def test_errors_in_text_name_file_and_line(tmp_path, streaming, num_proc):
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("word1 word2\n" * 1500)
    (folder / "deep" / "b.TXT").write_bytes(b"word1\n" * 3 + "caf\u00e9\n".encode("latin-1"))
    with pytest.raises(ValueError, match="b.TXT, line 4 .*cannot be read as text"):
        load_text_blocks(folder, make_tokenizer(), tmp_path / "cache", streaming=streaming, num_proc=num_proc)
    rows = [{"text": "word1"}] * 5 + [{"text": 7}]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match="c.jsonl"):
        load_text_blocks(tmp_path / "c.jsonl", make_tokenizer(), tmp_path / "cache", streaming=streaming)


def test_text_that_a_tokenizer_refuses_is_named_with_file_and_line(tmp_path, monkeypatch):
    class Picky(PreTrainedTokenizerFast):
        def __call__(self, text, **options):
            if any("word7" in each for each in text):
                raise TypeError("picky")
            return super().__call__(text, **options)

    tokenizer = make_tokenizer()
    tokenizer.__class__ = Picky
    path = tmp_path / "a.txt"
    path.write_text("".join(f"{WORDS[8 + i % 50]}\n" for i in range(2500)) + "word7\n")
    with pytest.raises(ValueError, match=r"a.txt, line 2501: the text cannot be tokenized: TypeError\('picky'\)"):
        load_text_blocks(path, tokenizer, tmp_path / "cache")


def test_folders_of_text_are_searched_recursively_and_what_is_left_out_is_named(tmp_path, caplog):
    (tmp_path / "AA").mkdir()
    for name in ("a.txt", "B.TXT", "AA/w.txt"):
        (tmp_path / name).write_text("word1 word2\n" * 40)
    (tmp_path / "readme.md").write_text("left out")
    blocks = load_text_blocks(tmp_path, make_tokenizer(), tmp_path.with_name("cache"), block_tokens=8)
    assert blocks.info["texts"] == 120
    assert "left out 1 file:" in caplog.text and "readme.md" in caplog.text
