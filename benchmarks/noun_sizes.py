"""Measures what models know about the size of real nouns: models of `vidlankd real-nouns`.

    vidlankd real-nouns --benchmarks BENCHMARKS --text TEXT --sizes --output_dir outputs/sizes
    python benchmarks/noun_sizes.py --benchmarks BENCHMARKS --data outputs/sizes/data \
        --seeds outputs/sizes/seed-0 --models students/text_only students/regression_headless_10 teacher

A ridge regression on the states of a noun predicts the logarithm of its size; it is fitted to other nouns, like the
probe of the report. R2 is the share of the variance that it explains, over all pictured nouns of known size. `pairs`
is the share of right answers to the size comparisons of Liu et al. (2022) whose two nouns are pictured: the larger
prediction wins. Values are means over seeds; differences to the first model have a 95 % interval over nouns.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from sklearn.metrics import r2_score
from transformers import AutoTokenizer

from vidlankd_hf.evaluation.probing import noun_states
from vidlankd_hf.evaluation.zero_shot import ZERO_SHOT
from vidlankd_hf.experiments.real_nouns.scores import REPEATS, cross_predicted
from vidlankd_hf.experiments.real_nouns.sizes import CENTIMETERS
from vidlankd_hf.models.load_teacher import load_teacher
from vidlankd_hf.utils.json_files import read_json

COLUMNS = ["model", "R2", "difference", "95 % interval", "pairs"]
RESAMPLES = 2000


def predicted_sizes(folder: Path, nouns: list[str], sizes: np.ndarray) -> np.ndarray:
    """The logarithm of the size of every noun `[N]`, as a probe of the model predicts it."""
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    states = noun_states(load_teacher(folder).eval(), tokenizer, nouns)
    return np.mean([cross_predicted(states, sizes, repeat) for repeat in range(REPEATS)], axis=0)


def interval(predicted: np.ndarray, reference: np.ndarray, sizes: np.ndarray) -> list[float]:
    """The 95 % interval over nouns of the difference in R2 between predictions `[seeds, N]`, mean over seeds."""
    draws = np.random.default_rng(0).integers(0, len(sizes), (RESAMPLES, len(sizes)))
    differences = [
        np.mean([r2_score(sizes[i], p[i]) - r2_score(sizes[i], r[i]) for p, r in zip(predicted, reference)])
        for i in draws
    ]
    return [float(value) for value in np.quantile(differences, (0.025, 0.975))]


def decided(predicted: dict[str, float], items: list[dict]) -> float:
    """Share of comparisons in which the larger prediction belongs to the larger object (label 0: the first one)."""
    larger = [predicted[item["object"]] > predicted[item["other"]] for item in items]
    return float(np.mean([said == (item["label"] == 0) for said, item in zip(larger, items)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmarks", type=Path, required=True, help="folder that contains visual_commonsense")
    parser.add_argument("--data", type=Path, required=True, help="the folder `data` that `vidlankd real-nouns` wrote")
    parser.add_argument("--seeds", type=Path, nargs="+", required=True, help="folders of seeds that it wrote")
    parser.add_argument("--models", nargs="+", required=True, help="folders inside each seed: students or teachers")
    parser.add_argument("--output_json", type=Path, help="also write the table there")
    args = parser.parse_args()
    pictured = read_json(args.data / "world.json", dict, "run `vidlankd real-nouns`")["nouns"]
    nouns = [noun for noun in pictured if noun in CENTIMETERS]
    sizes, known = np.log([CENTIMETERS[noun] for noun in nouns]), set(nouns)
    items = [i for i in ZERO_SHOT["spatial_size"].items(args.benchmarks) if {i["object"], i["other"]} <= known]
    print(f"{len(nouns)} nouns, {len(items)} comparisons.\n| {' | '.join(COLUMNS)} |", flush=True)
    rows, reference = [], None
    for name in args.models:
        predicted = np.array([predicted_sizes(seed / name, nouns, sizes) for seed in args.seeds])
        scores = [r2_score(sizes, of_seed) for of_seed in predicted]
        row = [name, f"{np.mean(scores):.2f}", "", ""]
        if reference is None:
            reference = predicted
        else:
            low, high = interval(predicted, reference, sizes)
            difference = np.mean(scores) - np.mean([r2_score(sizes, of_seed) for of_seed in reference])
            row[2:] = f"{difference:+.2f}", f"{low:+.2f} to {high:+.2f}"
        rows.append([*row, f"{np.mean([decided(dict(zip(nouns, of_seed)), items) for of_seed in predicted]):.2f}"])
        print(f"| {' | '.join(rows[-1])} |", flush=True)
    if args.output_json is not None:
        args.output_json.write_text(json.dumps({"columns": COLUMNS, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
