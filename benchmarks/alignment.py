"""Benchmarks the preparation of text for a teacher with another tokenizer, and the batches made from it.

    OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false python benchmarks/alignment.py --text my_text.txt.xz \
        --output_dir outputs/alignment_benchmark

A WordPiece tokenizer (the student's) and a byte-level BPE (the teacher's) are trained on the text. All variants run in
one process, in turn. CPU time is measured, since other processes affect it least:
  plain       both tokenizers on all texts, in batches of 1,000, and nothing else
  student     load_text_blocks without a teacher
  aligned     load_text_blocks with a teacher that reads 77 tokens at once
  collate     TextCollator on stored blocks, without and with their alignment, including reading them
"""

import argparse
import json
import lzma
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from datasets import Dataset, disable_progress_bars
from measuring import describe_machine
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from vidlankd_hf import TextCollator, load_text_blocks
from vidlankd_hf.data.text_source import BATCH_TEXTS
from vidlankd_hf.training.sampler import EpochDataset

TEACHER_LENGTH, VOCABULARY, TRAINED_ON = 77, 20_000, 20_000


def train_wordpiece(lines: list[str]) -> PreTrainedTokenizerFast:
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    options = {"vocab_size": VOCABULARY, "special_tokens": list(special.values()), "show_progress": False}
    tokenizer.train_from_iterator(lines, trainers.WordPieceTrainer(**options))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def train_byte_level(lines: list[str]) -> PreTrainedTokenizerFast:
    tokenizer, special = Tokenizer(models.BPE()), {"eos_token": "<|endoftext|>"}
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    options = {"vocab_size": VOCABULARY, "special_tokens": list(special.values()), "show_progress": False}
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(initial_alphabet=alphabet, **options))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def cpu_seconds(work) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure_preparation(lines: list[str], student, teacher, work: Path, rounds: int) -> tuple[dict, dict]:
    """Returns the CPU seconds of each variant in each round, and the `info.json` of the aligned blocks."""
    data, folders = Dataset.from_dict({"text": lines}), iter(range(10**6))
    options = {"teacher_tokenizer": teacher, "teacher_length": TEACHER_LENGTH}

    def plain():
        for first in range(0, len(lines), BATCH_TEXTS):
            for tokenizer in (student, teacher):
                tokenizer(lines[first : first + BATCH_TEXTS], add_special_tokens=False, verbose=False)["input_ids"]

    def prepare(**options):
        return load_text_blocks(data, student, work / str(next(folders)), **options)

    variants = {"plain": plain, "student": prepare, "aligned": lambda: prepare(**options)}
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, variant in variants.items():
            times[name].append(cpu_seconds(variant))
    return times, prepare(**options).info


def measure_collating(lines: list[str], student, teacher, work: Path, batch: int, rounds: int) -> dict[str, float]:
    """Returns the median CPU microseconds per block for reading and collating."""
    data = Dataset.from_dict({"text": lines})
    options = {"teacher_tokenizer": teacher, "teacher_length": TEACHER_LENGTH}
    blocks = {
        "student": EpochDataset(load_text_blocks(data, student, work / "collate")),
        "aligned": EpochDataset(load_text_blocks(data, student, work / "collate", **options)),
    }
    collators = {"student": TextCollator(student), "aligned": TextCollator(student, teacher_tokenizer=teacher)}
    times: dict[str, list[float]] = {name: [] for name in blocks}
    for number in range(rounds):
        first = number * batch % (len(blocks["student"]) - batch)
        for name, rows in blocks.items():
            keys = list(range(first, first + batch))
            seconds = cpu_seconds(lambda: collators[name](rows.__getitems__(keys)))  # noqa: B023
            times[name].append(1e6 * seconds / batch)
    return {name: median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, nargs="+", required=True, help="text files, also .xz")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of preparation (default: 5)")
    parser.add_argument("--batch", type=int, default=128, help="blocks collated at a time (default: 128)")
    parser.add_argument("--batches", type=int, default=200, help="batches collated (default: 200)")
    parser.add_argument("--output_dir", type=Path, help="folder for alignment.json (default: only print)")
    args = parser.parse_args()
    disable_progress_bars()
    lines = []
    for path in args.text:
        with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else open(path, encoding="utf-8") as file:
            lines += [line.rstrip("\n") for line in file if line.strip()]
    step = max(1, len(lines) // TRAINED_ON)
    student, teacher = train_wordpiece(lines[::step]), train_byte_level(lines[::step])
    with tempfile.TemporaryDirectory() as work:
        times, info = measure_preparation(lines, student, teacher, Path(work), args.rounds)
        collate = measure_collating(lines, student, teacher, Path(work), args.batch, args.batches)
    tokens = info["tokens"] + info["alignment"]["teacher_tokens"]
    rates = {name: tokens / median(values) for name, values in times.items()}
    ratios = [aligned / plain for aligned, plain in zip(times["aligned"], times["plain"])]
    results = {
        "command": " ".join(sys.argv), "machine": describe_machine("cpu"), "texts": len(lines),
        "characters": sum(map(len, lines)), "student_tokens": info["tokens"], "alignment": info["alignment"],
        "cpu_seconds": times, "aligned_over_plain": median(ratios), "collate_us": collate,
    }  # fmt: skip
    print(f"plain tokenization with both: {rates['plain']:,.0f} tokens/s; aligned blocks: {rates['aligned']:,.0f}")
    print(f"time over plain: {median(ratios):.2f}x (each round: {', '.join(f'{r:.2f}' for r in ratios)}; target 1.3x)")
    print(f"collate: {collate['student']:.1f} us per block, with alignment {collate['aligned']:.1f} us")
    print(json.dumps(info["alignment"], indent=1))
    if args.output_dir:
        args.output_dir.mkdir(parents=True, exist_ok=True)
        (args.output_dir / "alignment.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
