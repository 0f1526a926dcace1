"""Probes what a model knows about the nouns of the grounded world.

    vidlankd probe --model outputs/student --world outputs/world \\
        --output_json outputs/probe.json

Any model that can be a teacher can be probed: a BERT, a CLIP, a language model.
Every noun is scored by a linear probe that was fitted without it. Accuracies
have 95 % intervals.
"""

import json
from pathlib import Path

from transformers.utils import logging

from vidlankd_hf import load_teacher
from vidlankd_hf.cli import CommandLine, run_example
from vidlankd_hf.data.vocabulary import load_tokenizer
from vidlankd_hf.experiments.world import probe_model
from vidlankd_hf.utils.io import atomic_write


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--model", default="outputs/student", help="any model that reads text, with tokenizer")
    parser.add_argument("--world", default="outputs/world", help="folder with nouns.json")
    parser.add_argument("--output_json", help="file for the scores; default: none")
    parser.add_argument("--folds", type=int, default=4, help="folds of the cross-validation over nouns")
    parser.add_argument("--seed", type=int, default=0, help="seed of the folds")
    args = parser.parse()

    logging.set_verbosity_error()  # the masked-language-model head is left out on purpose
    model = load_teacher(args.model)
    tokenizer = load_tokenizer(args.model)
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
    run_example(main)
