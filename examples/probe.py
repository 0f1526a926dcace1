"""Scores what a text encoder knows about how the grounded world's nouns look, by a linear probe of its frozen states.

    python examples/probe.py --model outputs/student --world outputs/world \\
        --output_json outputs/probe.json

Any BERT checkpoint that `AutoModel` loads can be scored; every noun is scored by a probe that never saw it.
"""

import json
from pathlib import Path

from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

import vidlankd_hf  # noqa: F401  (so that AutoModel knows the teacher)
from vidlankd_hf.cli import CommandLine
from vidlankd_hf.experiments.world import probe_model
from vidlankd_hf.utils.io import atomic_write


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--model", default="outputs/student", help="a student, a teacher or any BERT, with tokenizer")
    parser.add_argument("--world", default="outputs/world", help="the folder with nouns.json")
    parser.add_argument("--output_json", help="where to write the scores; default: nowhere")
    parser.add_argument("--folds", type=int, default=4, help="of the cross-validation over nouns")
    parser.add_argument("--seed", type=int, default=0, help="of the folds")
    args = parser.parse()

    logging.set_verbosity_error()  # that a masked-language-model head is left aside is meant so
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModel.from_pretrained(args.model)
    scores = probe_model(model, tokenizer, args.world, folds=args.folds, seed=args.seed)

    print(f"{'attribute':<10} {'accuracy':>8} {'95 % interval':>15} {'chance':>7} {'nouns':>6}")
    for score in scores:
        interval = f"{score['low']:.2f} - {score['high']:.2f}"
        print(
            f"{score['attribute']:<10} {score['accuracy']:>8.3f} {interval:>15} {score['chance']:>7.2f} "
            f"{score['num_nouns']:>6}"
        )
    if args.output_json:
        Path(args.output_json).parent.mkdir(parents=True, exist_ok=True)
        atomic_write(args.output_json, json.dumps(scores, indent=2) + "\n")
        print(f"Scores written to {args.output_json}.")


if __name__ == "__main__":
    main()
