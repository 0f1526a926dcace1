"""Dropout on CPUs has the same distribution as torch's."""

import copy

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM

from vidlankd_hf.models.attention import CPU_ATTENTION
from vidlankd_hf.models.cpu_kernels import CpuDropout, cpu_dropout, use_cpu_attention, use_cpu_dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_elements_are_dropped_independently_with_the_given_probability(p, dtype):
    torch.manual_seed(0)
    dropped = (cpu_dropout(torch.ones(1000, 1003, dtype=dtype), p) == 0).flatten().double()
    error = 5 * (p * (1 - p) / len(dropped)) ** 0.5
    assert abs(dropped.mean() - p) < error
    for distance in (1, 2, 3, 4):  # one random number serves four neighboring elements
        both = (dropped[distance:] * dropped[:-distance]).mean()
        assert abs(both - p**2) < error
    for place in range(4):
        assert abs(dropped[place::4].mean() - p) < 2 * error


def test_kept_elements_are_scaled_so_that_the_mean_is_kept():
    torch.manual_seed(0)
    states = torch.rand(7, 11, 13, dtype=torch.float64) + 1
    result = cpu_dropout(states, 0.1)
    ratio = (result / states)[result != 0]
    assert torch.allclose(ratio, torch.full_like(ratio, 1 / (1 - round(0.1 * 2**16) / 2**16)), rtol=1e-15)
    assert result.shape == states.shape and 0 < (result == 0).sum() < 300


def test_gradients_are_dropped_where_the_states_were():
    def dropped(states):
        torch.manual_seed(3)
        return cpu_dropout(states, 0.4)

    states = torch.rand(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(dropped, states.clone())
    transposed = torch.rand(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda states: dropped(states.T), transposed)


def test_dropout_with_probability_0_or_1_and_of_empty_tensors():
    assert cpu_dropout(torch.ones(5), 1.0).tolist() == [0.0] * 5
    assert cpu_dropout(torch.ones(5), 0.0).tolist() == [1.0] * 5
    assert cpu_dropout(torch.ones(0, 3), 0.5).shape == (0, 3)
    states = torch.ones(50)
    assert CpuDropout(0.5).eval()(states) is states and CpuDropout(0.0)(states).equal(states)


def test_compiled_dropout_is_part_of_the_graph_and_equals_eager_dropout():
    """Including the backward pass, in which the partitioner of this backend recomputes what it can."""
    layers = nn.Sequential(nn.Linear(8, 8), CpuDropout(0.5), nn.GELU(), CpuDropout(0.5), nn.Linear(8, 8)).double()
    states = torch.rand(6, 8, dtype=torch.float64)
    compiled = torch.compile(layers, fullgraph=True, backend="aot_eager_decomp_partition")

    def gradients(model):
        torch.manual_seed(0)
        outputs = model(states)
        return outputs, *torch.autograd.grad(outputs.square().sum(), list(layers.parameters()))

    for ours, eager in zip(gradients(compiled), gradients(layers), strict=True):
        assert torch.allclose(ours, eager, rtol=1e-12)


def small_bert():
    return BertForMaskedLM(
        BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=50)
    )


def test_models_evaluate_and_save_as_before(tmp_path):
    model = small_bert().eval()
    changed = copy.deepcopy(model)
    use_cpu_dropout(changed)
    use_cpu_attention(changed)
    assert changed.config._attn_implementation == CPU_ATTENTION and model.config._attn_implementation == "sdpa"
    assert {type(m) for m in changed.modules() if isinstance(m, nn.Dropout)} == {CpuDropout}

    ids, mask = torch.randint(0, 50, (3, 9)), torch.ones(3, 9, dtype=torch.long)
    mask[1, 4:] = 0
    assert torch.equal(changed(ids, attention_mask=mask).logits, model(ids, attention_mask=mask).logits)
    changed.save_pretrained(tmp_path / "changed")
    model.save_pretrained(tmp_path / "model")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "changed" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


def test_dropout_differs_between_layers_and_passes():
    model = small_bert()
    use_cpu_dropout(model)
    use_cpu_attention(model)
    ids = torch.randint(0, 50, (3, 9))
    torch.manual_seed(0)
    first, second = model.train()(ids).logits, model(ids).logits
    torch.manual_seed(0)
    assert torch.equal(model(ids).logits, first) and not torch.equal(first, second)
