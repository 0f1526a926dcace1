"""A training step never waits for the device: no value is read back to the host except at logging and saving."""

import pytest
import torch
from helpers import train
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback

aten = torch.ops.aten
# What makes a GPU's host wait: reading a scalar, and results whose size depends on the data.
WAITING = {
    aten._local_scalar_dense.default, aten.item.default, aten.nonzero.default, aten.masked_select.default,
    aten.is_nonzero.default, aten.equal.default, aten._unique2.default,
}  # fmt: skip
FUSED = "adamw_torch_fused"  # the default from torch 2.8 on; on CPUs the other one reads its count of steps


class HostReads(TorchDispatchMode):
    """Collect operations that make the host wait; copies to the host are found by name, as they are free on CPU."""

    copies = ("cpu", "numpy", "tolist")

    def __init__(self):
        super().__init__()
        self.seen = []

    def __enter__(self):
        self.originals = {name: getattr(torch.Tensor, name) for name in self.copies}
        for name, original in self.originals.items():

            def copy(tensor, *args, _name=name, _original=original, **kwargs):
                self.seen.append(_name)
                return _original(tensor, *args, **kwargs)

            setattr(torch.Tensor, name, copy)
        return super().__enter__()

    def __exit__(self, *exc):
        for name, original in self.originals.items():
            setattr(torch.Tensor, name, original)
        return super().__exit__(*exc)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        boolean_index = function is aten.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1])
        if function in WAITING or boolean_index:
            self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


class During(TrainerCallback):
    """Keep a context open from the beginning of one step to the end of another, data loading included."""

    def __init__(self, context, first: int, last: int):
        self.context, self.first, self.last = context, first, last

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.first:
            self.context.__enter__()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.last:
            self.context.__exit__(None, None, None)


@pytest.mark.parametrize("kind, objectives", [("bert", {"nst": 1.0, "crd": 1.0, "infonce": 1.0, "regression": 1.0}),
                                              ("bert", {}), ("roberta", {"crd": 1.0}), ("modernbert", {"crd": 1.0}),
                                              ("another_tokenizer", {"nst": 1.0, "crd": 1.0}),
                                              ("teacher", None), ("mil_nce", None)])  # fmt: skip
def test_step_reads_nothing_back_to_the_host(tmp_path, kind, objectives):
    reads = HostReads()
    what = {"kind": "student", "student_model_type": kind}
    if kind == "another_tokenizer":
        what = {"kind": "student", "aligned": True, "teacher_layer": [-2, -1]}
    if kind in ("teacher", "mil_nce"):
        what = {"kind": "teacher", "design": {"contrast": "mil_nce" if kind == "mil_nce" else "infonce"}}
    trainer = train(**what, output_dir=tmp_path, objectives=objectives, max_steps=6, logging_steps=100,
                    gradient_accumulation_steps=2, dataloader_num_workers=1, optim=FUSED,
                    callbacks=[During(reads, 1, 6)])  # fmt: skip
    assert trainer.state.global_step == 6
    assert reads.seen == []


def test_reading_a_loss_in_a_step_is_seen(tmp_path):
    class Reading(TrainerCallback):
        def on_substep_end(self, args, state, control, model=None, **kwargs):
            next(model.parameters()).detach().sum().cpu().item()

    reads = HostReads()
    train("student", tmp_path, {}, max_steps=4, logging_steps=100, gradient_accumulation_steps=2,
          dataloader_num_workers=1, optim=FUSED, callbacks=[Reading(), During(reads, 1, 3)])  # fmt: skip
    assert sorted(reads.seen) == sorted(2 * ["cpu", "aten._local_scalar_dense.default"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_step_never_waits_for_the_gpu(tmp_path):
    class Erring:
        def __enter__(self):
            torch.cuda.set_sync_debug_mode("error")

        def __exit__(self, *exc):
            torch.cuda.set_sync_debug_mode("default")

    train("student", tmp_path, {"nst": 1.0, "crd": 1.0}, max_steps=8, logging_steps=100, use_cpu=False,
          callbacks=[During(Erring(), 2, 7)])  # fmt: skip
