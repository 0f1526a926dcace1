"""A run stopped and resumed equals the uninterrupted one bit for bit, dropout on."""

import pytest
import torch
from helpers import logged, train


@pytest.mark.parametrize(
    "kind, names",
    [
        ("teacher", ("loss", "grad_norm", "contrast_loss", "mlm_loss")),
        ("student", ("loss", "grad_norm", "mlm_loss", "nst_loss", "crd_loss")),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_run_equals_uninterrupted_run_bit_for_bit(tmp_path, kind, names, workers):
    options = {
        "objectives": {"nst": 30.0, "crd": 1.0} if kind == "student" else None,
        "dropout": 0.1,
        "max_steps": 20,
        "gradient_accumulation_steps": 2,
        "save_strategy": "steps",
        "save_steps": 10,
        "dataloader_num_workers": workers,
    }
    whole = train(kind, tmp_path / "whole", **options)
    train(kind, tmp_path / "parts", **options, stop_after=10)
    resumed = train(kind, tmp_path / "parts", **options, resume=str(tmp_path / "parts" / "checkpoint-10"))
    assert resumed.state.global_step == 20
    assert logged(whole, *names)[10:] == logged(resumed, *names)[10:]
    for (name, a), b in zip(whole.model.state_dict().items(), resumed.model.state_dict().values()):
        assert torch.equal(a, b), name
