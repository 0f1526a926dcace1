"""Fingerprints depend on the contents, all of them, and on nothing else."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from captioned_videos import caption, write_captions, write_features
from helpers import WORDS, make_texts, make_tokenizer
from launching import LIGHT

from vidlankd_hf import load_text_blocks, load_video_text
from vidlankd_hf.data.fingerprint import data_fingerprint, stable_hash
from vidlankd_hf.data.video_text import split_by_video

IN_A_PROCESS = """
import dataclasses, datetime, decimal, enum, fractions, pathlib, sys
import numpy as np
from PIL import Image
from vidlankd_hf.data.fingerprint import data_fingerprint, stable_hash
class Meta:
    def __init__(self): self.tags, self.me = {{"red", "green", "blue"}}, self
@dataclasses.dataclass
class Row: name: str = "a"; values: frozenset = frozenset("abcdef")
class Kind(enum.Enum): A = 1
class Slots:
    __slots__ = ("a", "b")
    def __init__(self): self.a, self.b = {{1, 2}}, object()
values = [{{"red", "green", "blue", 1, None, (1, "x")}}, Meta(), Row(), Kind.A, Slots(), object(), float("nan"), Meta,
          len, lambda x: x, decimal.Decimal("1.50"), datetime.datetime(2020, 1, 2), pathlib.Path("a"), 10**5000, -0.0,
          fractions.Fraction(1, 3), "half \\ud83d", b"x", np.float32("nan"), np.array([1, np.nan]),
          {{"b": 1, "a": {{"z"}}}},
          np.array([{{"a", "b"}}, None], dtype=object),
          Image.new("RGB", (2, 2), "red"), range(3), iter([1])]
for value in values:
    print(stable_hash(value))
rows = [{{"input_ids": [1, 2], "tags": {{"red", "green", f"t{{i}}"}}, "meta": Meta()}} for i in range(5)]
print(data_fingerprint(rows))
"""


def test_hashes_are_the_same_in_every_process():
    code = LIGHT + IN_A_PROCESS.format()
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100) for _ in range(2)
    ]
    assert runs[0].returncode == 0, runs[0].stderr
    assert runs[0].stdout == runs[1].stdout
    assert len(set(runs[0].stdout.split())) >= 23, "different values have different hashes"


@pytest.mark.parametrize("one, other", [
    ([1, 2], [12]), ("12", 12), (True, 1), (1.0, 1), ({"a": 1}, {"a": 2}), ({1, 2}, {1, 3}), ([{}], [[]]),
    (np.array([1, 2]), np.array([[1, 2]])), (b"a", "a"), (None, "None"), (["a", "b"], ["ab"]), (0.0, -0.0),
])  # fmt: skip
def test_different_values_have_different_hashes(one, other):
    assert stable_hash(one) != stable_hash(other)


def test_data_that_hold_nan_are_equal_to_themselves():
    rows = [{"x": float("nan"), "y": torch.tensor([float("nan"), 1.0])} for _ in range(3)]
    assert data_fingerprint(rows) == data_fingerprint([dict(row) for row in rows]) is not None


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    lines = [" ".join(WORDS[(i * j) % 60] for j in range(1, 30)) for i in range(3000)]
    (folder / "a.txt").write_text("\n".join(lines))
    lines[1777] = f"{lines[1777].rpartition(' ')[0]} word3"
    (folder / "b.txt").write_text("\n".join(lines))
    return [
        load_text_blocks(folder / name, make_tokenizer(), folder / "cache", block_tokens=20)
        for name in ("a.txt", "b.txt")
    ]


def test_one_token_among_thousands_of_blocks_changes_the_fingerprint(blocks):
    one, other = blocks
    assert len(one) > 2000 and data_fingerprint(one) != data_fingerprint(other)
    train, held_out = one.split(10)
    assert len({data_fingerprint(part) for part in (one, train, held_out)}) == 3
    assert data_fingerprint(one.split(10)[0]) == data_fingerprint(train)


@pytest.mark.parametrize("streaming", [False, True])
def test_one_word_or_feature_among_many_videos_changes_the_fingerprint(tmp_path, streaming):
    names = {f"v{i:03}.mp4": 4.0 for i in range(600)}
    rows = [caption(name, 0, 4, "word1 word2") for name in names]
    kinds = {"same": {}, "text": {"text": "word1 word3"}, "time": {"end": 3.0}}
    found = {}
    for kind, change in {"first": {}, **kinds}.items():
        changed = [{**row, **(change if i == 345 else {})} for i, row in enumerate(rows)]
        features = write_features(tmp_path / kind / "features", names)
        captions = write_captions(tmp_path / kind / "c.jsonl", changed)
        options = {"seed": 0, "streaming": streaming, "cache_dir": tmp_path / "cache"}
        data = load_video_text(features, captions, make_tokenizer(), max_length=8, **options)
        found[kind] = data_fingerprint(data)
    assert found["first"] == found["same"] and len(set(found.values())) == 3
    train, held_out = split_by_video(data, 0.1)
    assert len({data_fingerprint(part) for part in (data, train, held_out)}) == 3
    other = load_video_text(features, captions, make_tokenizer(), max_length=8, **{**options, "seed": 1})
    assert data_fingerprint(other) != data_fingerprint(data), "later epochs have other windows"


def test_fingerprint_of_plain_samples_reads_at_most_512(tmp_path):
    class Counted(list):
        read = 0

        def __getitem__(self, index):
            Counted.read += 1
            return super().__getitem__(index)

    assert data_fingerprint(Counted(make_texts(2000))) and Counted.read <= 512
    assert json.dumps(data_fingerprint(make_texts(3)))
