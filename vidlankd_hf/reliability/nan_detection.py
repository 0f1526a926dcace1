"""Losses and gradients that are not finite: latched on the device, read where the host waits anyway, and reported."""

import torch
from torch import Tensor

NEVER = 2**62
NORMS = 16


class NonFiniteError(RuntimeError):
    """A loss, gradient or weight is NaN or infinite; the message says where, the report beside it says more."""


class NonFiniteDetector:
    """The first micro-batch at which each watched value was not finite. Nothing is read by the host until [`read`].

    Args:
        components: Names of the losses; `gradient` is added.
        device: Where they are.
    """

    def __init__(self, components: list[str], device: torch.device):
        self.names = [*components, "gradient"]
        self.first = torch.full((len(self.names),), NEVER, dtype=torch.int64, device=device)
        self.norms = torch.zeros(NORMS, device=device)

    def record_losses(self, losses: list[Tensor], position: int) -> None:
        """Losses of a micro-batch, in the order of the components; `position` counts micro-batches of the run."""
        seen = torch.where(torch.stack([loss.detach().float() for loss in losses]).isfinite(), NEVER, position)
        self.first[:-1] = torch.minimum(self.first[:-1], seen)

    def record_gradient(self, norm: Tensor | float | None, step_begin: int, position: int) -> None:
        """The gradient's norm of the step whose micro-batches are `step_begin` to `position`."""
        if norm is None:
            return
        if hasattr(norm, "full_tensor"):
            norm = norm.full_tensor()
        norm = torch.as_tensor(norm, dtype=torch.float32, device=self.first.device).detach()
        rolled = torch.cat([self.norms[1:], norm.reshape(1)])
        self.norms = torch.where((self.first < step_begin).any(), self.norms, rolled)
        self.first[-1:] = torch.minimum(self.first[-1:], torch.where(norm.isfinite(), NEVER, position))


def weights_are_finite(model: torch.nn.Module) -> Tensor:
    """0-dim bool tensor on the device, over what this process holds of the floating-point parameters."""
    finite = []
    for parameter in model.parameters():
        held = getattr(parameter, "ds_tensor", parameter).detach()
        held = held.to_local() if hasattr(held, "to_local") else held
        if held.is_floating_point():
            finite.append(held.isfinite().all())
    return torch.stack(finite).all()


def first_bad(latched: Tensor, names: list[str]) -> tuple[int, list[tuple[int, str]]] | None:
    """Of `latched [ranks, names]` on the host: the first bad position, and which (rank, name) were bad there."""
    position = int(latched.min())
    if position == NEVER:
        return None
    bad = (latched == position).nonzero().tolist()
    losses = [(rank, names[i]) for rank, i in bad if names[i] != "gradient"]
    return position, losses or [(rank, "gradient") for rank, _ in bad]
