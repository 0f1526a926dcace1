"""Texts aligned with a teacher that has another tokenizer, made by hand: samples as `load_text_blocks` stores them."""

import numpy as np
from helpers import WORDS, make_tokenizer
from tokenizers.processors import TemplateProcessing
from torch.utils.data import Dataset

from vidlankd_hf.data.vocabulary import tokenizer_fingerprint

NONE = np.iinfo(np.uint16).max


def make_teacher_tokenizer(words=WORDS[:40]):
    """Returns a tokenizer of another vocabulary, which adds [CLS] and [SEP]."""
    tokenizer = make_tokenizer(words)
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    backend = tokenizer.backend_tokenizer
    backend.post_processor = TemplateProcessing("[CLS] $A [SEP]", special_tokens=special)
    return tokenizer


class AlignedTexts(Dataset):
    """Texts of 1 to 8 segments, each of 1 to 3 tokens of the student and 1 or 2 of the teacher, in 1 to 3 windows.

    Some tokens are in no segment. The ids are random.
    """

    def __init__(self, count: int, seed: int = 0, teacher_tokenizer=None):
        tokenizer = teacher_tokenizer or make_teacher_tokenizer()
        self.info = {"alignment": {"teacher_tokenizer": tokenizer_fingerprint(tokenizer), "teacher_length": 40}}
        rng = np.random.default_rng(seed)
        self.rows = [self._row(rng, len(tokenizer)) for _ in range(count)]

    def _row(self, rng, teacher_vocabulary: int) -> dict:
        number = np.arange(rng.integers(1, 9))
        segments, teacher_segments = (
            np.repeat(number, rng.integers(1, most, len(number))).astype(np.uint16) for most in (4, 3)
        )
        for of in (segments, teacher_segments):
            again = np.append(False, of[1:] == of[:-1])
            of[again & (rng.random(len(of)) < 0.2)] = NONE
        cuts = np.flatnonzero(np.diff(teacher_segments.astype(int))) + 1
        cuts = np.sort(rng.choice(cuts, min(len(cuts), rng.integers(0, 3)), replace=False))
        return {
            "input_ids": rng.integers(5, 5 + len(WORDS), len(segments)),
            "segments": segments,
            "teacher_ids": rng.integers(5, teacher_vocabulary, len(teacher_segments)),
            "teacher_segments": teacher_segments,
            "teacher_windows": np.diff([0, *cuts, len(teacher_segments)]),
        }

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        return self.rows[index]


class TokensAsSegments(AlignedTexts):
    """Texts for a teacher with the student's tokenizer, in one window: every token is a segment."""

    def _row(self, rng, teacher_vocabulary: int) -> dict:
        ids = rng.integers(5, teacher_vocabulary, rng.integers(1, 20))
        number = np.arange(len(ids), dtype=np.uint16)
        return {"input_ids": ids, "segments": number, "teacher_ids": ids, "teacher_segments": number,
                "teacher_windows": np.array([len(ids)])}  # fmt: skip
