"""Measures what distillation costs in MLM loss, with an interval: students of `vidlankd ablate` against text only.

    vidlankd ablate --seeds 1 2 3 --table steps
    OMP_NUM_THREADS=1 python benchmarks/language_price.py --seeds outputs/ablations/seed-{1,2,3} \
        --students crd_twice regression_headless_twice --reference text_only_twice

A training run masks each of its 192 held-out blocks of text once, which leaves about 900 masked tokens. Here, each
block is masked `--masks` times, in the same way for all students. The interval is a bootstrap over the blocks of each
seed, so it holds for these students and other text of the same worlds. The differences of single seeds, which are
printed too, show how much the training adds.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForMaskedLM

from vidlankd_hf.data.collators import TextCollator
from vidlankd_hf.data.text_blocks import load_text_blocks
from vidlankd_hf.data.vocabulary import load_tokenizer
from vidlankd_hf.experiments.ablations.tables import ROWS
from vidlankd_hf.experiments.world.recipe import STUDENT_RECIPE
from vidlankd_hf.training.build import split_blocks
from vidlankd_hf.training.sampler import EpochDataset

COLUMNS = ["student", "MLM loss", "difference", "95 % interval", "difference of each seed", "accuracy ratio"]
RESAMPLES = 2000


def masked_batches(world: Path, tokenizer, masks: int) -> list[dict[str, torch.Tensor]]:
    """The held-out blocks that training evaluates, masked `masks` times: one batch for each time."""
    blocks = load_text_blocks(str(world / "text"), tokenizer, block_tokens=STUDENT_RECIPE["block_tokens"])
    held_out = EpochDataset(split_blocks(blocks, None, STUDENT_RECIPE["per_device_eval_batch_size"])[1])
    collator, samples = TextCollator(tokenizer), [held_out[i] for i in range(len(held_out))]
    return [collator([{**sample, "epoch": epoch} for sample in samples]) for epoch in range(masks)]


@torch.inference_mode()
def scores(folder: Path, batches: list[dict[str, torch.Tensor]]) -> tuple[np.ndarray, float]:
    """Returns the MLM loss of every block `[N]`, its mean over masks and masked tokens, and the accuracy."""
    model = AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=False).eval()
    losses, correct, masked = 0.0, 0, 0
    for batch in batches:
        logits = model(batch["input_ids"], attention_mask=batch.get("attention_mask")).logits
        rows = torch.arange(len(logits))[:, None]
        logits, labels = logits[rows, batch["masked_positions"]], batch["masked_labels"]
        real = labels != -100
        loss = cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none")
        losses = losses + (loss.sum(1) / real.sum(1)).numpy() / len(batches)
        correct, masked = correct + int((logits.argmax(-1) == labels).sum()), masked + int(real.sum())
    return losses, correct / masked


def compare(ours: list[np.ndarray], theirs: list[np.ndarray]) -> tuple[list[float], tuple[float, float]]:
    """Returns the difference of each seed, and the 95 % interval of their mean over other blocks."""
    generator, draws = np.random.default_rng(0), np.zeros(RESAMPLES)
    differences = [a - b for a, b in zip(ours, theirs)]
    for difference in differences:
        chosen = generator.integers(len(difference), size=(RESAMPLES, len(difference)))
        draws += difference[chosen].mean(1) / len(differences)
    low, high = np.quantile(draws, [0.025, 0.975])
    return [float(difference.mean()) for difference in differences], (float(low), float(high))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=Path, nargs="+", required=True, help="folders that `vidlankd ablate` wrote")
    parser.add_argument("--students", nargs="+", required=True, help="their names")
    parser.add_argument("--reference", default="text_only", help="the student to compare with; default: text_only")
    parser.add_argument("--masks", type=int, default=16, help="how often each block is masked; default: 16")
    parser.add_argument("--output_json", type=Path, help="also write the table there")
    args = parser.parse_args()
    found: dict[str, list] = {name: [] for name in [args.reference, *args.students]}
    for seed in args.seeds:
        batches = masked_batches(seed / "world", load_tokenizer(str(seed / "teacher")), args.masks)
        for name in found:
            found[name].append(scores(seed / "students" / name, batches))
    base, rows = found[args.reference], []
    for name, results in found.items():
        mean = np.mean([losses.mean() for losses, _ in results])
        rows.append([ROWS[name].label, f"{mean:.3f}", "", "", "", ""])
        if name != args.reference:
            each, (low, high) = compare([losses for losses, _ in results], [losses for losses, _ in base])
            ratio = np.mean([ours / theirs for (_, ours), (_, theirs) in zip(results, base)])
            rows[-1][2:] = [f"{np.mean(each):+.3f}", f"{low:+.3f} to {high:+.3f}",
                            ", ".join(f"{value:+.3f}" for value in each), f"{ratio:.3f}"]  # fmt: skip
        print(f"| {' | '.join(rows[-1])} |", flush=True)
    if args.output_json is not None:
        args.output_json.write_text(json.dumps({"columns": COLUMNS, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
