"""Started by tests with `torchrun` or `accelerate launch`: trains with helpers.train and writes what it saw."""

import json
import sys

import torch
from helpers import train

from vidlankd_hf.launch import end_run


def bytes_of(tensors) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def shards(model) -> list[torch.Tensor]:
    """What this rank holds of the parameters: its shard under ZeRO-3."""
    return [getattr(p, "ds_tensor", p) for p in model.parameters()]


def optimizer_states(trainer) -> list[torch.Tensor]:
    optimizer = trainer.optimizer
    while hasattr(optimizer, "optimizer"):  # accelerate's and DeepSpeed's wrappers
        optimizer = optimizer.optimizer
    return [v for state in optimizer.state.values() for v in state.values() if torch.is_tensor(v) and v.numel() > 1]


def main() -> None:
    options = json.loads(sys.argv[1])
    result = options.pop("result")
    trainer = train(**options)
    evaluation = trainer.evaluate()
    trainer.save_model()
    teacher = getattr(trainer, "teacher", None)
    seen = {
        "world_size": trainer.args.world_size,
        "distributed_type": trainer.accelerator.distributed_type.value,
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
    end_run(trainer)


if __name__ == "__main__":
    main()
