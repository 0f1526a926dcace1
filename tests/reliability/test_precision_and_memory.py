"""Options that change speed or memory change no loss beyond their precision."""

from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from helpers import logged, train
from transformers import AutoModelForMaskedLM

from vidlankd_hf import DistillationConfig
from vidlankd_hf.models.load_teacher import DTYPES
from vidlankd_hf.training.distillation_trainer import _zero3_engine
from vidlankd_hf.training.script_arguments import StudentArguments

OBJECTIVES = {"nst": 30.0, "regression": 1.0}
NAMES = ("loss", "grad_norm", "mlm_loss", "nst_loss", "regression_loss")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return train("student", tmp_path_factory.mktemp("plain"), OBJECTIVES)


def assert_close_logs(one, other, rel, names=NAMES):
    for a, b in zip(logged(one, *names), logged(other, *names), strict=True):
        assert a == pytest.approx(b, rel=rel)


def test_bf16_autocast_trains_like_fp32_within_its_precision(tmp_path, plain):
    half = train("student", tmp_path, OBJECTIVES, bf16=True)
    assert_close_logs(half, plain, rel=0.03)
    assert logged(half, "mlm_loss") != logged(plain, "mlm_loss")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_teacher_in_half_precision_trains_the_student_like_one_in_fp32(tmp_path, plain, dtype):
    half = train("student", tmp_path, OBJECTIVES, teacher_dtype=dtype)
    assert next(half.teacher_model.parameters()).dtype == dtype
    assert next(half.model.parameters()).dtype == torch.float32
    assert_close_logs(half, plain, rel=0.03)
    assert logged(half, "nst_loss") != logged(plain, "nst_loss")


def test_every_dtype_of_a_teacher_can_be_asked_for_on_the_command_line():
    assert get_args(StudentArguments.__dataclass_fields__["teacher_dtype"].type) == DTYPES


def test_a_quantized_teacher_is_refused_under_zero3():
    with pytest.raises(ValueError, match="ZeRO-3 cannot shard a quantized teacher: load it in bfloat16"):
        _zero3_engine(SimpleNamespace(quantization_method="bitsandbytes"), {})


@pytest.mark.parametrize("kind", ["student", "teacher"])
def test_gradient_checkpointing_changes_no_loss_and_no_gradient(tmp_path, kind):
    objectives, names = (OBJECTIVES, NAMES) if kind == "student" else (None, ("loss", "grad_norm", "contrast_loss"))
    runs = [train(kind, tmp_path / str(on), objectives, gradient_checkpointing=on) for on in (False, True)]
    assert runs[1].model.is_gradient_checkpointing
    assert_close_logs(*runs, rel=1e-6, names=names)


def test_matmul_precision_is_what_was_asked_for_and_highest_by_default(tmp_path):
    train("student", tmp_path / "a", max_steps=1, matmul_precision="medium")
    assert torch.get_float32_matmul_precision() == "medium"
    train("student", tmp_path / "b", max_steps=1)
    assert torch.get_float32_matmul_precision() == "highest"
    with pytest.raises(ValueError, match="matmul_precision is 'low': choose one of highest, high, medium"):
        DistillationConfig(output_dir=str(tmp_path), matmul_precision="low", use_cpu=True, report_to="none")


@pytest.mark.slow
def test_compiled_training_equals_eager_training_and_saves_the_same_model(tmp_path, plain):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    trainer = train("student", tmp_path, OBJECTIVES, torch_compile=True)
    assert_close_logs(trainer, plain, rel=1e-4)
    assert 0 < torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert trainer.evaluate()["eval_mlm_loss"] == pytest.approx(plain.evaluate()["eval_mlm_loss"], rel=1e-4)
    trainer.save_model()
    saved = AutoModelForMaskedLM.from_pretrained(tmp_path).state_dict()
    assert saved.keys() == plain.model.export().state_dict().keys()
    assert "| Teacher | VidLanKDTeacher |" in (tmp_path / "README.md").read_text()
