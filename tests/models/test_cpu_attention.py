"""Attention on CPUs computes the same as SDPA, with dropout and for short sequences in low precision."""

import pytest
import torch
from helpers import make_student, make_tokenizer, train
from torch.nn import functional as F
from transformers import BertConfig, BertModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from vidlankd_hf.models import cpu_kernels
from vidlankd_hf.models.attention import CPU_ATTENTION
from vidlankd_hf.models.cpu_kernels import SHORT, cpu_attention, cpu_dropout, use_cpu_attention


def queries_keys_values(length=8, dtype=torch.float64):
    torch.manual_seed(0)
    return [torch.randn(2, 3, length, 4, dtype=dtype, requires_grad=True) for _ in range(3)]


def attention_module():
    return BertModel(BertConfig(num_hidden_layers=1)).encoder.layer[0].attention.self


@pytest.fixture
def matmul_precision():
    before = torch.get_float32_matmul_precision()
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("padded", [False, True])
def test_attention_with_dropout_equals_naive_attention_with_the_same_mask(padded):
    q, k, v = queries_keys_values()
    mask = torch.ones(2, 1, 1, 8, dtype=torch.bool)
    mask[1, ..., 5:] = False
    module = attention_module()

    torch.manual_seed(1)
    kept = cpu_dropout(torch.ones(2, 3, 8, 8, dtype=torch.float64), 0.3)
    scores = torch.einsum("bhid,bhjd->bhij", q, k) / 2
    shares = (scores.masked_fill(~mask, -torch.inf) if padded else scores).softmax(-1)
    expected = torch.einsum("bhij,bhjd->bihd", shares * kept, v)

    torch.manual_seed(1)
    result, _ = cpu_attention(module, q, k, v, mask if padded else None, dropout=0.3)
    assert torch.allclose(result, expected, rtol=1e-12, atol=1e-14)
    ours, naive = (torch.autograd.grad(output.sum(), (q, k, v)) for output in (result, expected))
    for gradient, reference in zip(ours, naive):
        assert torch.allclose(gradient, reference, rtol=1e-10, atol=1e-14)

    undropped, _ = cpu_attention(module, q, k, v, mask if padded else None)
    plain = F.scaled_dot_product_attention(q, k, v, attn_mask=mask if padded else None)
    assert torch.allclose(undropped, plain.transpose(1, 2))


def test_float_masks_are_passed_to_sdpa():
    q, k, v = queries_keys_values()
    module = attention_module()
    added = torch.zeros(2, 1, 8, 8, dtype=torch.float64)
    assert cpu_attention(module, q, k, v, added, dropout=0.3)[0].shape == (2, 8, 3, 4)


def products_of(monkeypatch, q, k, v, **kwargs):
    """Returns the result of `cpu_attention`, and whether it called SDPA."""
    asked = []

    def sdpa(*args, **kwargs):
        asked.append(True)
        return sdpa_attention_forward(*args, **kwargs)

    monkeypatch.setattr(cpu_kernels, "sdpa_attention_forward", sdpa)
    return cpu_attention(attention_module(), q, k, v, **kwargs)[0], bool(asked)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    "dtype, precision, tolerance", [(torch.bfloat16, "highest", 2e-2), (torch.float32, "medium", 2e-2)]
)
def test_short_sequences_in_low_precision_use_matrix_products_and_equal_sdpa(
    monkeypatch, matmul_precision, dtype, precision, tolerance, padded
):
    mask = torch.ones(2, 1, 1, 8, dtype=torch.bool)
    mask[1, ..., 5:] = False
    mask = mask if padded else None
    exact = queries_keys_values()
    expected = F.scaled_dot_product_attention(*exact, attn_mask=mask).transpose(1, 2)
    naive = torch.autograd.grad(expected.sum(), exact)
    inputs = [x.detach().to(dtype).requires_grad_() for x in exact]
    matmul_precision(precision)
    result, by_sdpa = products_of(monkeypatch, *inputs, attention_mask=mask)
    gradients = torch.autograd.grad(result.sum(), inputs)
    assert not by_sdpa and result.dtype == dtype
    for ours, reference in zip((result, *gradients), (expected, *naive), strict=True):
        assert (ours.double() - reference).abs().max() < tolerance


@pytest.mark.parametrize("length, grad, dtype, precision", [
    (8, True, torch.float32, "highest"), (8, False, torch.bfloat16, "highest"),
    (SHORT, True, torch.bfloat16, "highest"), (SHORT, False, torch.float32, "medium"),
    (8, True, torch.float64, "medium"),
])  # fmt: skip
def test_other_cases_use_sdpa(monkeypatch, matmul_precision, length, grad, dtype, precision):
    inputs = [x.detach().requires_grad_(grad) for x in queries_keys_values(length, dtype)]
    matmul_precision(precision)
    assert products_of(monkeypatch, *inputs, attention_mask=None)[1]


def test_cpu_runs_use_it_in_student_and_teacher(tmp_path):
    trainer = train("student", tmp_path, {"crd": 1.0}, max_steps=1)
    for model in (trainer.model, trainer.teacher_model.text_model):
        assert model.config._attn_implementation == CPU_ATTENTION


@pytest.mark.parametrize("dtype, precision", [
    (torch.float32, "highest"), (torch.float32, "medium"), (torch.bfloat16, "highest"),
])  # fmt: skip
def test_a_layer_with_it_compiles_as_one_graph(matmul_precision, dtype, precision):
    model = make_student(make_tokenizer()).base_model.eval()
    use_cpu_attention(model)
    layer = model.encoder.layer[0].attention  # torch 2.6 cannot trace the complete model
    states = torch.randn(2, 6, model.config.hidden_size)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    matmul_precision(precision)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        torch.testing.assert_close(compiled(states)[0], layer(states)[0], rtol=2e-2, atol=2e-2)
