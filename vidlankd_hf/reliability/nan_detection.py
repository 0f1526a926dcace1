"""Detects losses and gradients that are not finite on the device, and reports them where the host waits anyway."""

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from ..utils.io import atomic_write
from . import run_dir

NEVER = 2**62
NORMS = 16


class NonFiniteError(RuntimeError):
    """A loss, gradient or weight is NaN or infinite; the message says where, and the report file has the details."""


class NonFiniteDetector:
    """Holds the first micro-batch at which each watched value was not finite; the host may read `first` at any time.

    Args:
        components: Names of the losses; `gradient` is added.
        device: Where the losses are.
    """

    def __init__(self, components: list[str], device: torch.device):
        self.names = [*components, "gradient"]
        self.first = torch.full((len(self.names),), NEVER, dtype=torch.int64, device=device)
        self.norms = torch.zeros(NORMS, device=device)

    def record_losses(self, losses: list[Tensor], position: int) -> None:
        """Records the losses of a micro-batch.

        Args:
            losses: 0-dim tensors in the order of the components.
            position: Number of the micro-batch in the run.
        """
        seen = torch.where(torch.stack([loss.detach().float() for loss in losses]).isfinite(), NEVER, position)
        self.first[:-1] = torch.minimum(self.first[:-1], seen)

    def record_gradient(self, norm: Tensor | float | None, step_begin: int, position: int) -> None:
        """Records the gradient norm of the step whose micro-batches are `step_begin` to `position`."""
        if norm is None:
            return
        if hasattr(norm, "full_tensor"):
            norm = norm.full_tensor()
        if isinstance(norm, Tensor):
            norm = norm.detach().to(self.first.device, torch.float32)
        else:  # from DeepSpeed; copying it to the device would wait
            norm = torch.full((), norm, device=self.first.device)
        rolled = torch.cat([self.norms[1:], norm.reshape(1)])
        self.norms = torch.where((self.first < step_begin).any(), self.norms, rolled)
        self.first[-1:] = torch.minimum(self.first[-1:], torch.where(norm.isfinite(), NEVER, position))


def weights_are_finite(model: torch.nn.Module) -> Tensor:
    """Whether the floating-point parameters that this process holds are finite: a 0-dim bool tensor on the device."""
    finite = []
    for parameter in model.parameters():
        held = getattr(parameter, "ds_tensor", parameter).detach()
        held = held.to_local() if hasattr(held, "to_local") else held
        if held.is_floating_point():
            finite.append(held.isfinite().all())
    return torch.stack(finite).all()


def first_bad(recorded: Tensor, names: list[str]) -> tuple[int, list[tuple[int, str]]] | None:
    """The first bad position in `recorded [ranks, names]` (on the host), and each (rank, name) that is bad there."""
    position = int(recorded.min())
    if position == NEVER:
        return None
    bad = (recorded == position).nonzero().tolist()
    losses = [(rank, names[i]) for rank, i in bad if names[i] != "gradient"]
    return position, losses or [(rank, "gradient") for rank, _ in bad]


def stop_with_report(
    trainer: Trainer, detector: NonFiniteDetector | None, position: int | None, bad: list[tuple[int, str]]
) -> None:
    """Prints and writes the report `nonfinite-step-<n>.json`, and raises an error.

    Args:
        trainer: The run.
        detector: Holds the gradient norms of the last steps.
        position: Number of the bad micro-batch in the run; `None` for weights, which are bad now.
        bad: (rank, component) of everything that is not finite there.

    Raises:
        NonFiniteError: Always.
    """
    args = trainer.args
    accumulation, ranks = args.gradient_accumulation_steps, sorted({rank for rank, _ in bad})
    step = trainer.state.global_step if position is None else position // accumulation + 1
    components = sorted({name for _, name in bad})
    micro_steps = [] if position is None else [position % accumulation]
    if components == ["gradient"]:
        micro_steps, ranks = range(accumulation), range(args.world_size)
    samples = {rank: [i for m in micro_steps for i in _sample_ids(trainer, step, m, rank)] for rank in ranks}
    command = f"{run_dir.command()} --logging_steps 1 --logging_strategy steps"
    report = {
        "step": step,
        "components": components,
        "sample_ids_of_processes": samples,
        "gradient_norms": detector.norms[-step:].tolist() if detector is not None else [],
        "last_checkpoint": run_dir.newest_name(args.output_dir),
        "replay": command,
    }
    message = (
        f"{', '.join(components)} not finite {'by' if position is None else 'in'} step {step} for the samples "
        f"{samples}. No checkpoint contains it. To replay the step from the last checkpoint "
        f"({report['last_checkpoint']}):\n    {command}"
    )
    where = publish(report, Path(args.output_dir) / f"nonfinite-step-{step}.json") if args.process_index == 0 else ""
    raise NonFiniteError(f"{message}\n{where}".rstrip())


def publish(report: dict[str, Any], path: Path) -> str:
    """Prints a report to stderr, writes it, and returns where it is. Never fails, because it explains a failure."""
    text = json.dumps(report, indent=2) + "\n"
    with suppress(OSError, ValueError):  # stderr may be a file on a full disk, or closed
        sys.stderr.write(text)
        sys.stderr.flush()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, text)
    except OSError as error:
        return f"The report is on stderr only: {path} could not be written ({error})."
    return f"Report: {path}"


def _sample_ids(trainer: Trainer, step: int, micro_step: int, rank: int) -> list[int]:
    """Ids of a micro-batch's samples on a rank, computed only from the order of the samples."""
    sampler, args = trainer._get_train_sampler(), trainer.args
    batch = (step - 1) * args.gradient_accumulation_steps + micro_step
    epoch, batch = divmod(batch, len(sampler) // (args.train_batch_size * args.world_size))
    sampler.set_epoch(epoch)
    first = (batch * args.world_size + rank) * args.train_batch_size
    return [key % sampler.size for key in list(sampler)[first : first + args.train_batch_size]]
