"""Probes students of `vidlankd ablate` before and behind their distillation head.

    vidlankd ablate --seeds 1 2 3 --table objectives heads
    OMP_NUM_THREADS=1 python benchmarks/heads.py --seeds outputs/ablations/seed-{1,2,3}

An objective compares the outputs of the head with the teacher's states, so a linear probe of the student's own states
may miss a part of what the student learned. Accuracy is the mean of colour, shape and motion, as in the tables of
`ablate`.
"""

import argparse
import json
from pathlib import Path
from statistics import mean

from torch import Tensor, nn

from vidlankd_hf import VidLanKDStudent
from vidlankd_hf.data.vocabulary import load_tokenizer
from vidlankd_hf.experiments.ablations.report import accuracy
from vidlankd_hf.experiments.world.probe import probe_model

COLUMNS = ["student", "probe of its states", "probe of the head's outputs", "probe without a head"]


class BehindHead(nn.Module):
    """A student's encoder, followed by the head of one of its objectives."""

    def __init__(self, student: VidLanKDStudent, objective: str):
        super().__init__()
        self.student, self.head = student, student.distillation_heads[objective]

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(self.student.base_model(input_ids, attention_mask=attention_mask).last_hidden_state)


def probes(seed: Path, objective: str) -> list[float]:
    """Accuracy of the student with a head, before and behind it, and of the student without one."""
    found = []
    for name in (objective, f"{objective}_headless"):
        folder = seed / "students" / name
        student = VidLanKDStudent.from_pretrained(folder, trust_remote_code=False)
        tokenizer = load_tokenizer(str(folder))
        models = [student, BehindHead(student, objective)] if name == objective else [student]
        found += [accuracy(probe_model(model.eval(), tokenizer, seed / "world")) for model in models]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=Path, nargs="+", required=True, help="folders that `vidlankd ablate` wrote")
    parser.add_argument("--output_json", type=Path, help="also write the table there")
    args = parser.parse_args()
    rows = []
    for objective, label in (("regression", "regression"), ("crd", "CRD"), ("nst", "NST")):
        scores = [probes(seed, objective) for seed in args.seeds]
        rows.append([label, *(f"{mean(values):.2f}" for values in zip(*scores))])
        print(f"| {' | '.join(rows[-1])} |", flush=True)
    if args.output_json is not None:
        args.output_json.write_text(json.dumps({"columns": COLUMNS, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
