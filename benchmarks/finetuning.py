"""Measures training samples per second of fine-tuning, compared with two loops in plain PyTorch.

    python benchmarks/finetuning.py --model outputs/student --data tasks/ --task sst2

- `ours`: the trainer of this package, with steps of similar length.
- `dynamic padding`: the usual loop in random order; each batch is padded to its longest sequence.
- `fixed length`: the same loop; every sequence is padded to the recipe's maximum length.

All three train the same model on the same features with fused AdamW. They are interleaved, round by round, so that a
busy moment of the machine affects all of them. The first step of each run is not timed.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from torch.nn.utils import clip_grad_norm_
from transformers import AutoTokenizer, TrainerCallback, get_linear_schedule_with_warmup, set_seed
from transformers.utils import logging

from vidlankd_hf.evaluation import TASKS
from vidlankd_hf.evaluation.arguments import FinetuningArguments
from vidlankd_hf.evaluation.finetune import recipe_options
from vidlankd_hf.evaluation.heads import Collator
from vidlankd_hf.evaluation.reading import read_rows
from vidlankd_hf.evaluation.trainer import FinetuningTrainer


class Clock(TrainerCallback):
    """Records the time at which each step ends."""

    def __init__(self):
        self.ends = []

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(time.perf_counter())


def ours(model, task, tokenizer, features, steps: int, batch: int, rate: float) -> float:
    with tempfile.TemporaryDirectory() as folder:
        args = FinetuningArguments(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=batch, learning_rate=rate,
            report_to="none", disable_tqdm=True, logging_strategy="no", seed=1,
        )  # fmt: skip
        clock = Clock()
        trainer = FinetuningTrainer(model, args, task.head, tokenizer, features, callbacks=[clock])
        trainer.train()
    return clock.ends[-1] - clock.ends[0]


def plain_loop(model, task, tokenizer, features, steps: int, batch: int, rate: float) -> float:
    """The usual loop in random order. Each batch is padded to its longest sequence."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    order = torch.Generator().manual_seed(1)
    loader = torch.utils.data.DataLoader(
        features, batch, shuffle=True, collate_fn=Collator(tokenizer), generator=order
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, steps)
    ends = []
    while len(ends) < steps:
        for inputs in loader:
            loss = model(**{name: value.to(device) for name, value in inputs.items()}).loss
            loss.backward()
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            ends.append(time.perf_counter())
            if len(ends) == steps:
                break
    return ends[-1] - ends[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder or Hub id of an encoder with its tokenizer")
    parser.add_argument("--task", default="sst2", help="key of TASKS")
    parser.add_argument("--data", help="folder in the official layout; default: the Hub")
    parser.add_argument("--rows", type=int, default=4000, help="maximum number of training rows")
    parser.add_argument("--steps", type=int, default=30, help="optimizer steps per round and variant")
    parser.add_argument("--rounds", type=int, default=3, help="rounds over the variants")
    parser.add_argument("--output_json", help="file for the samples per second of every round")
    args = parser.parse_args()
    logging.set_verbosity_error()
    task = TASKS[args.task]
    batch, rate = task.recipe["per_device_train_batch_size"], task.recipe["learning_rate"]
    tokenizer, options = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False), recipe_options(task)
    rows = read_rows(task, args.data, "train", args.rows)
    features = task.head.encode(rows, tokenizer, options)
    padded = [
        {**feature, **tokenizer.pad({k: feature[k] for k in tokenizer.model_input_names if k in feature},
                                    padding="max_length", max_length=options.max_length)}
        for feature in features
    ]  # fmt: skip
    variants = {
        "ours": (ours, features),
        "dynamic padding": (plain_loop, features),
        "fixed length": (plain_loop, padded),
    }
    rates = {name: [] for name in variants}
    for _ in range(args.rounds):
        for name, (train, given) in variants.items():
            set_seed(1)
            model = task.head.auto.from_pretrained(
                args.model, trust_remote_code=False, **task.head.model_options(task.labels)
            )
            seconds = train(model, task, tokenizer, given, args.steps, batch, rate)
            rates[name].append((args.steps - 1) * batch / seconds)
    print(f"{task.title}, batches of {batch}, {args.steps} steps, median of {args.rounds} rounds")
    for name, several in rates.items():
        ratio = median(a / b for a, b in zip(rates["ours"], several))
        print(f"{name:<24} {median(several):8.1f} samples/s   ours is {ratio:.2f}x as fast")
    if args.output_json:
        Path(args.output_json).write_text(json.dumps(rates, indent=1) + "\n")


if __name__ == "__main__":
    main()
