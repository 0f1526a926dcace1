"""Text is chosen so that pictured nouns are balanced, and half of it is general."""

import lzma
from collections import Counter

import pytest

from vidlankd_hf.experiments.real_nouns import language_model
from vidlankd_hf.experiments.real_nouns.language_model import choose_sentences, read_sentences, write_text


def test_sentences_of_plain_and_compressed_files_are_read_once(tmp_path):
    (tmp_path / "a.txt").write_text("The cat sat on the mat. Too short. The cat sat on the mat.\n")
    with lzma.open(tmp_path / "b.txt.xz", "wt") as file:
        file.write("vid1\ta dog eats a banana\nthis one has an <unk> word inside\n" + "word " * 40 + "\n")
    assert read_sentences([tmp_path]) == ["The cat sat on the mat.", "a dog eats a banana"]


def test_a_folder_without_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no .txt or .txt.xz files"):
        read_sentences([tmp_path])


def test_nouns_are_balanced_and_half_of_the_text_is_general(monkeypatch):
    monkeypatch.setattr(language_model, "PER_NOUN", 10)
    sentences = [f"he gave the dog number {i}" for i in range(200)] + [f"she ate bananas on day {i}" for i in range(5)]
    sentences += [f"nothing to see on day {i}" for i in range(100)]
    chosen, counts = choose_sentences(sentences, ["dog", "banana", "fire truck"], seed=0)
    assert counts == {"dog": 10, "banana": 5, "fire truck": 0}
    kinds = Counter(sentence.split()[0] for sentence in chosen)
    assert kinds["she"] == 5 and kinds["he"] >= 10 and len(chosen) == 30
    assert chosen == choose_sentences(sentences, ["dog", "banana", "fire truck"], seed=0)[0]


def test_the_number_of_sentences_of_each_noun_is_kept(tmp_path, capsys):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.txt").write_text("the dog barks at night\nsomebody opened the door\n")
    write_text(tmp_path / "text", [tmp_path / "source"], ["dog", "fern"], seed=0)
    assert len((tmp_path / "text" / "text.txt").read_text().splitlines()) == 2
    assert "1 of 2 pictured nouns" in capsys.readouterr().out
