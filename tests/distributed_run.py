"""Started by tests with `torchrun` or `accelerate launch`: trains with helpers.train and writes what it saw."""

import json
import sys

import torch
from helpers import train


def main() -> None:
    options = json.loads(sys.argv[1])
    result = options.pop("result")
    trainer = train(**options)
    evaluation = trainer.evaluate()
    trainer.save_model()
    teacher = getattr(trainer, "teacher", None)
    shards = [getattr(p, "ds_tensor", p) for p in teacher.parameters()] if teacher is not None else []
    if trainer.is_world_process_zero():
        seen = {
            "world_size": trainer.args.world_size,
            "distributed_type": trainer.accelerator.distributed_type.value,
            "log_history": trainer.state.log_history,
            "evaluation": evaluation,
            "teacher_bytes_of_a_rank": sum(p.numel() * p.element_size() for p in shards),
        }
        with open(result, "w") as file:
            json.dump(seen, file)
    trainer.accelerator.end_training()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
