"""Script that tests start with `torchrun` or `accelerate launch`: trains with `helpers.train` and writes results.

Each argument is one run: its options, in JSON.
"""

import json
import os
import sys
import time
from pathlib import Path

import torch
from helpers import train
from transformers import TrainerCallback

from vidlankd_hf.reliability.launch import end_run


def bytes_of(tensors) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def shards(model) -> list[torch.Tensor]:
    """Returns the parameters on this rank: its shards under ZeRO-3."""
    return [getattr(p, "ds_tensor", p) for p in model.parameters()]


def optimizer_states(trainer) -> list[torch.Tensor]:
    optimizer = trainer.optimizer
    while hasattr(optimizer, "optimizer"):  # accelerate's and DeepSpeed's wrappers
        optimizer = optimizer.optimizer
    return [v for state in optimizer.state.values() for v in state.values() if torch.is_tensor(v) and v.numel() > 1]


class Slowly(TrainerCallback):
    """Slows down steps, and writes a file for each step and one with the process id. Process 1 can hang at a step."""

    def __init__(self, seconds: float, hang_at: int | None):
        self.seconds, self.hang_at = seconds, hang_at

    def on_step_end(self, args, state, control, **kwargs):
        folder = Path(args.output_dir)
        folder.mkdir(exist_ok=True)
        (folder / f"pid-{args.process_index}").write_text(str(os.getpid()))
        (folder / f"step-{state.global_step}").touch()
        time.sleep(self.seconds)
        if state.global_step == self.hang_at and args.process_index == 1:
            self.hang_here()

    def hang_here(self) -> None:
        time.sleep(600)


def run(options: dict):
    result = options.pop("result")
    seconds, hang_at = options.pop("seconds_a_step", None), options.pop("hang_at", None)
    trainer = train(**options, callbacks=[Slowly(seconds, hang_at)] if seconds else ())
    evaluation = trainer.evaluate()
    trainer.save_model()
    teacher = getattr(trainer, "teacher_model", None)
    seen = {
        "world_size": trainer.args.world_size,
        "distributed_type": trainer.accelerator.distributed_type.value,
        "mixed_precision": trainer.args.mixed_precision,
        "zero_stage": getattr(trainer.args.deepspeed_plugin, "zero_stage", None),
        "log_history": trainer.state.log_history,
        "evaluation": evaluation,
        "parameter_bytes_of_a_rank": bytes_of(shards(trainer.model)),
        "optimizer_bytes_of_a_rank": bytes_of(optimizer_states(trainer)),
        "teacher_bytes_of_a_rank": bytes_of(shards(teacher)) if teacher is not None else 0,
    }
    if trainer.is_world_process_zero():
        with open(result, "w") as file:
            json.dump(seen, file)
    return trainer


def main() -> None:
    for options in sys.argv[1:]:
        trainer = run(json.loads(options))
    end_run(trainer)


if __name__ == "__main__":
    main()
