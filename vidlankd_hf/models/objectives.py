"""Converts objectives as a user writes them to the recipe that configurations and checkpoints hold."""

import json
from pathlib import Path
from typing import Any

from torch import nn

from ..utils.messages import nearest
from .losses import OBJECTIVES

# What an objective can compare, by the name in its `needs` -> what the student's forward pass must then be given.
NEEDED = {
    "hidden": "teacher_states [B, L, Dt]",
    "logits": "teacher_logits [B, M, V]",
    "vokens": "voken_ids [B, L], which `vidlankd vokenize` makes",
}


def objectives_recipe(objectives: dict[str, Any]) -> dict[str, dict]:
    """Converts objectives as a user gives them to `{name: {"weight": w, **options}}`, which JSON can hold.

    An instance of your own class is recorded with its import path as `"class"`.

    Args:
        objectives: As in [`DistillationStudent.add_objectives`], or a recipe.

    Raises:
        ValueError: For an unknown name, a wrong weight or option, or an instance that cannot be an objective.
    """
    recipe, own = {}, own_losses(objectives)
    for name, value in sorted(objectives.items()):  # the order of the sum, the same after loading
        options = _with_options(value)
        weight, loss, path = (options.pop(key, None) for key in ("weight", "loss", "class"))
        if name in own:
            path = f"{type(loss).__module__}.{type(loss).__qualname__}"
        elif path is None and name not in OBJECTIVES:
            raise ValueError(
                f"unknown objective {name!r}: choose from {', '.join(OBJECTIVES)}, or give an instance of your own "
                f"class: {{{name!r}: MyLoss()}}{nearest(name, OBJECTIVES)}"
            )
        elif loss is not None:
            options |= {k: v for k, v in vars(loss).items() if not k.startswith("_") and k != "training"}
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < float("inf"):
            raise ValueError(f"objective {name!r} has weight {weight!r}: give a number greater than 0")
        head = options.pop("head", True)
        if not isinstance(head, bool):
            raise ValueError(f"objective {name!r} has head {head!r}: give true or false")
        if path is not None and options:
            raise ValueError(f"objective {name!r} is {path}: give the options {options} to its constructor instead")
        try:
            objective = loss if path is not None else OBJECTIVES[name](**options)
        except TypeError as error:
            raise ValueError(f"objective {name!r} does not take the options {options}: {error}") from error
        if not head and objective is not None and "hidden" not in objective.needs:
            raise ValueError(f"objective {name!r} has no distillation head: leave out 'head': false")
        options |= {} if path is None else {"class": path}
        recipe[name] = {"weight": float(weight), **({} if head else {"head": False}), **options}
    return recipe


def own_losses(objectives: dict[str, Any]) -> dict[str, nn.Module]:
    """Returns the losses of the user's own classes among `objectives`, by name.

    Raises:
        ValueError: For an instance that cannot be an objective.
    """
    found = {}
    for name, value in objectives.items():
        loss = _with_options(value).get("loss")
        if loss is None or type(loss) is OBJECTIVES.get(name):
            continue
        if not isinstance(loss, nn.Module):
            raise ValueError(f"objective {name!r} has loss {loss!r}: give an instance of a torch.nn.Module")
        kind, needs, mean_over = type(loss).__name__, getattr(loss, "needs", None), getattr(loss, "mean_over", None)
        if name in OBJECTIVES:
            raise ValueError(
                f"objective {name!r} is a {OBJECTIVES[name].__name__}, but a {kind} was given: give it another name"
            )
        if not needs or not set(needs) <= set(NEEDED) or mean_over not in ("masked_tokens", "tokens", "sequences"):
            raise ValueError(
                f"objective {name!r}: {kind} has needs {needs!r} and mean_over {mean_over!r}. Set `needs` to what it "
                "compares, {'hidden'} or {'logits'}, and `mean_over` to what its value is a mean over, 'tokens', "
                "'sequences' or 'masked_tokens'"
            )
        found[name] = loss
    return found


def _with_options(value: Any) -> dict[str, Any]:
    """Converts one objective as a user gives it to `{"weight": ..., "loss": instance, **options}`."""
    if isinstance(value, (nn.Module, type)):
        return {"weight": 1.0, "loss": value}
    if isinstance(value, (tuple, list)):
        weight, loss = value
        return {"weight": weight, "loss": loss}
    if isinstance(value, dict):
        return {"weight": 1.0, **value} if "loss" in value else dict(value)
    return {"weight": value}


def read_recipe(path: Path) -> dict:
    """Reads the recipe of an exported student.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
        objectives, width = recipe["objectives"].values(), recipe["teacher_hidden_size"]
        if type(width) not in (int, type(None)) or not all(isinstance(options, dict) for options in objectives):
            raise ValueError("an entry has another type")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error!r}): restore it, or remove its folder") from error
    return recipe
