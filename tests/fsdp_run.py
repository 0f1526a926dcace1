"""Script that a test starts with `torchrun`: one step of a student sharded by PyTorch's FSDP2, on CPU."""

import sys

import torch
import torch.distributed as dist
from helpers import make_student, make_teacher, make_texts, make_tokenizer
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from vidlankd_hf import TextCollator
from vidlankd_hf.reliability.nan_detection import NonFiniteDetector, weights_are_finite
from vidlankd_hf.training.exact_means import count_items, scaled_loss

OBJECTIVES = {"nst": 30.0, "regression": 1.0}  # no negatives, which would be those of the own batch


def one_step(student, teacher, batch, step_items: torch.Tensor, ranks: int) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        states = teacher(batch["input_ids"], batch["attention_mask"]).last_hidden_state
    losses = student(**batch, teacher_states=states).losses
    scaled_loss(losses, student.loss_terms, count_items(batch), step_items, ranks).backward()
    return losses


def main() -> None:
    dist.init_process_group("gloo")
    rank, ranks, tokenizer = dist.get_rank(), dist.get_world_size(), make_tokenizer()
    mesh = dist.init_device_mesh("cpu", (ranks,))
    teacher = make_teacher(tokenizer, dropout=0.0).eval()
    students = [make_student(tokenizer, dropout=0.0) for _ in range(2)]
    for student in students:
        torch.manual_seed(2)
        student.add_objectives(OBJECTIVES, teacher.config.hidden_size)
    sharded, plain = students
    samples = [{**text, "sample_id": i, "epoch": 0} for i, text in enumerate(make_texts(4 * ranks))]
    batches = [TextCollator(tokenizer)(samples[4 * r : 4 * r + 4]) for r in range(ranks)]
    items = torch.stack([count_items(batch) for batch in batches]).sum(0)

    for layer in sharded.bert.encoder.layer:
        fully_shard(layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    assert all(isinstance(p, DTensor) and p.to_local().numel() < p.numel() for p in sharded.parameters())
    losses = one_step(sharded, teacher, batches[rank], items, ranks)
    for batch in batches:
        one_step(plain, teacher, batch, items, 1)

    expected = dict(plain.named_parameters())
    for name, parameter in sharded.named_parameters():
        torch.testing.assert_close(
            parameter.grad.full_tensor(), expected[name].grad, msg=lambda m, n=name: f"{n}: {m}"
        )
    detector = NonFiniteDetector(list(losses), torch.device("cpu"))
    norm = torch.nn.utils.clip_grad_norm_(sharded.parameters(), 1.0)
    detector.record_gradient(norm, 0, 0)
    torch.testing.assert_close(detector.norms[-1], torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0))
    assert weights_are_finite(sharded)
    state = get_model_state_dict(sharded, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if rank == 0:
        exported = plain.export(state)
        for name, tensor in plain.export().state_dict().items():
            assert torch.equal(exported.state_dict()[name], tensor), name
        plain.save_distillation(sys.argv[1], state)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
