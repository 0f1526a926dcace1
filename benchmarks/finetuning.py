"""Times fine-tuning steps: ours, a hand-written loop with dynamic padding, and one that pads to a fixed length.

    python benchmarks/finetuning.py --model MODEL --task sst2 --data DATA

All train the same model on the same rows with the task's recipe. They are timed in turn, round by round, so that a
busy moment of the machine hits all of them; the first step of each is not counted.
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
    """When each step ended."""

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


def by_hand(model, task, tokenizer, features, steps: int, batch: int, rate: float) -> float:
    """The usual loop: random order, each batch padded to its longest sequence or, if all are as long, to that."""
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
    parser.add_argument("--model", required=True)
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--data", help="folder in the official layout; default: the Hub")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output_json")
    args = parser.parse_args()
    logging.set_verbosity_error()
    task = TASKS[args.task]
    batch, rate = task.recipe["per_device_train_batch_size"], task.recipe["learning_rate"]
    tokenizer, options = AutoTokenizer.from_pretrained(args.model), recipe_options(task)
    rows = read_rows(task, args.data, "train", args.rows)
    features = task.head.encode(rows, tokenizer, options)
    padded = [
        {**feature, **tokenizer.pad({k: feature[k] for k in tokenizer.model_input_names if k in feature},
                                    padding="max_length", max_length=options.max_length)}
        for feature in features
    ]  # fmt: skip
    ways = {
        "ours": (ours, features),
        "dynamic padding by hand": (by_hand, features),
        "fixed length": (by_hand, padded),
    }
    rates = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, (way, given) in ways.items():
            set_seed(1)
            model = task.head.auto.from_pretrained(args.model, **task.head.model_options(task.labels))
            seconds = way(model, task, tokenizer, given, args.steps, batch, rate)
            rates[name].append((args.steps - 1) * batch / seconds)
    print(f"{task.title}, batches of {batch}, {args.steps} steps, median of {args.rounds} rounds")
    for name, several in rates.items():
        ratio = median(a / b for a, b in zip(rates["ours"], several))
        print(f"{name:<24} {median(several):8.1f} samples/s   ours is {ratio:.2f} x")
    if args.output_json:
        Path(args.output_json).write_text(json.dumps(rates, indent=1) + "\n")


if __name__ == "__main__":
    main()
