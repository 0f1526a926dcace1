"""Times a distillation step with a teacher that has another tokenizer, compared with one that has the student's.

    python benchmarks/segments.py --size small --output_dir outputs/segments

Both teachers read as many tokens as the student, in one window. Variants:
  same       the teacher has the student's tokenizer and reads the student's masked tokens
  tokens     states are pooled, and every token is a segment: as many segments as possible
  segments   states are pooled, and a segment has 1 to 3 tokens of each model

On a CPU, the time of a step includes making its batch. Variants are interleaved, each with one untimed step
before the timed one, so that other work on the machine slows down all of them alike. Needs torch and transformers.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import median

import numpy as np
import torch
from measuring import describe_machine
from step import OBJECTIVES, VOCABULARY, make_tokenizer, step_seconds
from step_variants import BLOCK, Ours, make_models

from vidlankd_hf.data.vocabulary import tokenizer_fingerprint


def numbers(rng: np.random.Generator, count: int) -> np.ndarray:
    """Divides `BLOCK` tokens at random among `count` segments; returns the segment of each token."""
    cuts = np.sort(rng.choice(np.arange(1, BLOCK), count - 1, replace=False))
    return np.repeat(np.arange(count, dtype=np.uint16), np.diff([0, *cuts, BLOCK]))


class Aligned(list):
    """Samples that the trainer only checks; `info` says for which teacher they are."""

    def __init__(self, tokenizer, sample: dict):
        super().__init__([sample] * 2)
        self.info = {"alignment": {"teacher_tokenizer": tokenizer_fingerprint(tokenizer), "teacher_length": BLOCK + 2}}


class Segments(Ours):
    segments = BLOCK * 2 // 3

    def data(self, tokenizer):
        self.rng = np.random.default_rng(0)
        row = np.full(BLOCK, 5, np.uint16)
        return {"train_dataset": Aligned(tokenizer, self.sample(row)), "teacher_tokenizer": tokenizer}

    def sample(self, row):
        return {
            "input_ids": row,
            "segments": numbers(self.rng, self.segments),
            "teacher_ids": row[::-1],
            "teacher_segments": numbers(self.rng, self.segments),
            "teacher_windows": np.array([BLOCK]),
        }


class Tokens(Segments):
    segments = BLOCK


VARIANTS = {"same": Ours, "tokens": Tokens, "segments": Segments}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small", help="size of student and teacher (default: %(default)s)")
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=["nst", "crd", "both"])
    parser.add_argument("--batch", type=int, default=8, help="sequences of 128 tokens per step (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="timed steps per variant (default: %(default)s)")
    parser.add_argument("--output_dir", type=Path, help="folder for segments.json (default: only print)")
    args = parser.parse_args()
    device, tokenizer, found = "cuda" if torch.cuda.is_available() else "cpu", make_tokenizer(), []
    rows = np.random.default_rng(0).integers(5, VOCABULARY, (args.rounds + 1, args.batch, BLOCK), dtype=np.uint16)
    print("| objectives | variant | ms per step | relative to the same tokenizer |\n|---|---|---|---|")
    for name in args.objectives:
        steps, times = {}, {variant: [] for variant in VARIANTS}
        for variant, kind in VARIANTS.items():
            teacher, student = make_models(args.size, args.size, OBJECTIVES[name], tokenizer, 0.1, device)
            steps[variant] = kind(teacher, student, tokenizer, OBJECTIVES[name], device, bf16=False)
            steps[variant].step(steps[variant].collate(rows[-1], 0))
        for turn in range(args.rounds):
            for variant, one in steps.items():
                one.step(one.collate(rows[-1], turn))  # untimed: it allocates the memory that another variant freed
                times[variant].append(step_seconds(one, rows[turn], turn))
        for variant, seconds in times.items():
            ratio = median(seconds) / median(times["same"])
            found.append({"objectives": name, "variant": variant, "seconds": seconds, "ratio": ratio})
            print(f"| {name} | {variant} | {1000 * median(seconds):.1f} | {ratio:.3f}x |", flush=True)
    if args.output_dir:
        args.output_dir.mkdir(parents=True, exist_ok=True)
        content = {"command": " ".join(sys.argv), "machine": describe_machine(device), "rows": found}
        (args.output_dir / "segments.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
