"""The private parts of `transformers.Trainer` in use are in one table, and the installed transformers has them all.

Runs with the oldest and the newest supported transformers.
"""

import ast
import inspect
import textwrap
from pathlib import Path

import pytest
from transformers import Trainer

import vidlankd_hf
from vidlankd_hf import DistillationTrainer, TeacherTrainer
from vidlankd_hf.evaluation.trainer import FinetuningTrainer
from vidlankd_hf.reliability.fault_tolerant_trainer import FaultTolerantTrainer
from vidlankd_hf.reliability.trainer_hooks import TRAINER_HOOKS
from vidlankd_hf.training.base_trainer import BaseTrainer

PACKAGE = Path(vidlankd_hf.__file__).parent
TRAINERS = (FaultTolerantTrainer, BaseTrainer, TeacherTrainer, DistillationTrainer, FinetuningTrainer)


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def names_of_transformers() -> set[str]:
    """Private methods and attributes of the stock Trainer."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(Trainer)))
    attributes = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    return {name for name in attributes | set(vars(Trainer)) if private(name)}


def uses(source: str, stock: set[str]) -> dict[str, str]:
    """Private names of the stock Trainer in a source: overridden in a class, called, or read and written."""
    found = {}
    tree = ast.parse(source)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in stock:
            found.setdefault(node.attr, "called" if id(node) in called else "attribute")
        elif isinstance(node, ast.Constant) and node.value in stock:  # getattr(trainer, "_name")
            found.setdefault(node.value, "attribute")
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            methods = [member.name for member in node.body if isinstance(member, ast.FunctionDef)]
            found.update(dict.fromkeys(stock.intersection(methods), "overridden"))
    return found


def test_every_private_name_in_use_is_in_the_table_and_no_other():
    stock, found = names_of_transformers(), {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name == "trainer_hooks.py":
            continue
        for name, use in uses(path.read_text(), stock).items():
            found[name] = "overridden" if "overridden" in (use, found.get(name)) else use
    assert found == {name: hook.use for name, hook in TRAINER_HOOKS.items()}


def test_uses_of_every_kind_are_found():
    source = """
class Mine(Trainer):
    def _save(self): self._evaluate(None, None)
    def show(self, trainer): return trainer._tr_loss, getattr(trainer, "_created_lr_scheduler")
"""
    assert uses(source, names_of_transformers()) == {
        "_save": "overridden", "_evaluate": "called", "_tr_loss": "attribute", "_created_lr_scheduler": "attribute",
    }  # fmt: skip


def test_few_private_names_are_in_use():
    assert len(TRAINER_HOOKS) <= 12
    assert sum(hook.use == "overridden" for hook in TRAINER_HOOKS.values()) <= 5


@pytest.mark.parametrize("name", TRAINER_HOOKS)
def test_installed_transformers_has_what_the_table_says(name):
    hook = TRAINER_HOOKS[name]
    if hook.parameters is None:
        assert f"self.{name} = " in inspect.getsource(Trainer)
    else:
        assert tuple(inspect.signature(getattr(Trainer, name)).parameters) == ("self", *hook.parameters)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_overridden_methods_take_every_argument_of_the_stock_ones(trainer):
    for name, method in vars(trainer).items():
        stock = getattr(Trainer, name, None)
        if name == "__init__" or not inspect.isfunction(method) or not inspect.isfunction(stock):
            continue
        ours, theirs = inspect.signature(method).parameters, inspect.signature(stock).parameters
        theirs = [p.name for p in theirs.values() if p.kind is not p.VAR_KEYWORD]
        if not any(p.kind is p.VAR_POSITIONAL or p.kind is p.VAR_KEYWORD for p in ours.values()):
            assert list(ours)[: len(theirs)] == theirs, name


def test_public_methods_return_what_the_overrides_rely_on():
    source = inspect.getsource(Trainer.set_initial_training_values)
    returned = [node.value for node in ast.walk(ast.parse(textwrap.dedent(source))) if isinstance(node, ast.Return)][
        -1
    ]
    names = [element.id for element in returned.elts]
    assert names[0] == "num_train_epochs" and names[-1] == "max_steps"
    assert "_internal_call" in inspect.signature(Trainer.save_model).parameters


def test_trainers_have_three_base_classes():
    for trainer in TRAINERS[2:]:
        assert [cls.__name__ for cls in trainer.__mro__[1:4]] == ["BaseTrainer", "FaultTolerantTrainer", "Trainer"]
