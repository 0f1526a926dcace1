"""Real captions and real text, where VIDLANKD_DATA names a folder of them."""

import lzma
import os
from pathlib import Path

import pytest

from vidlankd_hf.data.captions import read_captions
from vidlankd_hf.data.text_blocks import load_text

DATA = Path(os.environ.get("VIDLANKD_DATA", "missing"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="VIDLANKD_DATA names no folder of real data")


@needs_data
def test_real_captions_are_read_complete():
    captions = read_captions(DATA / "videos" / "captions.jsonl")
    assert len(captions) == 116 and len({c.video for c in captions}) == 33


@needs_data
def test_real_compressed_text_is_read_line_by_line():
    path = DATA / "text" / "wikitext2-test.txt.xz"
    with lzma.open(path, "rt") as file:
        lines = file.read().splitlines()
    texts = load_text(str(path))["text"][:]
    assert [t for t in texts if t.strip()] == [line for line in lines if line.strip()]
