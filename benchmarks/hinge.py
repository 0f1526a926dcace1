"""Trains teachers with the paper's hinge loss and variants of it on a grounded world, and says which ones learn.

    vidlankd make-world --output_dir outputs/seed-0/world --seed 0
    OMP_NUM_THREADS=1 python benchmarks/hinge.py --world outputs/seed-0/world --seed 0 --output_dir outputs/hinge

Each row has text-to-video R@1 on held-out windows; the probe's accuracy on the teacher's noun states; and the share of
the variance of the clips' unit vectors that lies in their first principal direction: 1 means that all clips are on one
line. Finished teachers are kept: the same command again continues. `rows.json` holds the table.
"""

import argparse
import json
from pathlib import Path

import torch

from vidlankd_hf import VidLanKDTeacher, load_video_text
from vidlankd_hf.data.vocabulary import load_tokenizer
from vidlankd_hf.evaluation.grounding import encode_clips
from vidlankd_hf.experiments.grid import ExperimentRun, probe
from vidlankd_hf.experiments.world.recipe import LENGTH
from vidlankd_hf.utils.examples import flags

HINGE, ALONE, NARROW = {"contrast": "hinge"}, {"losses": "contrast"}, {"margin": 0.2}
ALL, LONG, FAST = {"contrast": "hinge_batch"}, {"max_steps": 4500}, {"learning_rate": 2e-3}
TEACHERS = {
    "softmax, with MLM (default)": {},
    "hinge, margin 1, with MLM (the paper's)": HINGE,
    "hinge, margin 1, with MLM, learning rate 2e-3": HINGE | FAST,
    "hinge, margin 1, with MLM, all negatives of the batch (`hinge_batch`)": ALL,
    "hinge, margin 1, alone": HINGE | ALONE,
    "hinge, margin 1, alone, 4,500 steps": HINGE | ALONE | LONG,
    "hinge, margin 1, alone, learning rate 2e-3": HINGE | ALONE | FAST,
    "hinge, margin 1, alone, all negatives of the batch": ALL | ALONE,
    "hinge, margin 0.5, alone": HINGE | ALONE | {"margin": 0.5},
    "hinge, margin 0.2, alone": HINGE | ALONE | NARROW,
    "hinge, margin 0.2, alone, all negatives of the batch": ALL | ALONE | NARROW,
    "hinge, margin 0.2, with MLM": HINGE | NARROW,
    "hinge, margin 0.2, with MLM, learning rate 2e-3": HINGE | NARROW | FAST,
    "hinge, margin 0.2, with MLM, batch of 128": HINGE | NARROW | {"per_device_train_batch_size": 128},
    "hinge, margin 0.2, with MLM, all negatives of the batch": ALL | NARROW,
    "hinge, margin 0.2, with MLM, 4,500 steps": HINGE | NARROW | LONG,
}
COLUMNS = ["teacher", "text-to-video R@1", "colour", "shape", "motion", "variance in one direction"]
CLIPS = 512


def first_direction(folder: Path, world: Path) -> float:
    """Share of the variance of the vectors of `CLIPS` clips that lies in their first principal direction."""
    tokenizer = load_tokenizer(str(folder))
    windows = load_video_text(str(world / "features"), str(world / "captions.jsonl"), tokenizer, max_length=LENGTH)
    clips = windows.select(range(0, len(windows), len(windows) // CLIPS)[:CLIPS])
    vectors = encode_clips(VidLanKDTeacher.from_pretrained(folder, trust_remote_code=False), tokenizer, clips)
    variances = torch.linalg.svdvals(vectors - vectors.mean(0)) ** 2
    return float(variances[0] / variances.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=Path, required=True, help="folder of `vidlankd make-world`")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument(
        "--output_dir", type=Path, default=Path("outputs/hinge"), help="a folder per teacher, rows.json"
    )
    args = parser.parse_args()
    rows = []
    for label, design in TEACHERS.items():
        folder = args.output_dir / "-".join(["teacher", *(str(value) for value in design.values())])
        options = {"world": args.world, "output_dir": folder, "seed": args.seed, "report_to": "none", **design}
        ExperimentRun(folder, "pretrain_teacher", flags(options), {**design, "seed": args.seed}).make(quiet=True)
        accuracy = {score["attribute"]: score["accuracy"] for score in probe(folder, args.world)}
        history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
        recall = next(row["eval_text_to_video_r@1"] for row in reversed(history) if "eval_text_to_video_r@1" in row)
        probed = [f"{accuracy[name]:.2f}" for name in ("colour", "shape", "motion")]
        rows.append([label, f"{100 * recall:.1f} %", *probed, f"{first_direction(folder, args.world):.2f}"])
        print(f"| {' | '.join(rows[-1])} |", flush=True)
    (args.output_dir / "rows.json").write_text(json.dumps({"columns": COLUMNS, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
