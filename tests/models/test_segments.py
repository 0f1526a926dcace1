"""Pooling of token states to segments equals a naive loop, and changes nothing where segments are tokens."""

import pytest
import torch
from helpers import make_student, make_tokenizer

from vidlankd_hf.models.segments import pool, pool_windows, pooling_weights

ALL = {"nst": 10.0, "crd": 1.0, "infonce": 1.0, "regression": 1.0}


def naive(states, segments, count, last):
    """`[B, S, D]` by loops."""
    pooled = torch.zeros(len(states), count, states.shape[-1], dtype=states.dtype)
    for b, row in enumerate(segments.tolist()):
        for s in range(count):
            inside = [states[b, i] for i, segment in enumerate(row) if segment == s]
            if inside:
                pooled[b, s] = inside[-1] if last else sum(inside) / len(inside)
    return pooled


def random_case(dtype=torch.float64, batch=3, length=11, count=6, width=5):
    generator = torch.Generator().manual_seed(0)
    segments = torch.randint(-1, count, (batch, length), generator=generator).sort(1).values
    segments[0, 4] = -1  # a token of no segment between others
    segments[1][segments[1] == 2] = -1  # an empty segment
    return torch.randn(batch, length, width, dtype=dtype, generator=generator), segments, count


@pytest.mark.parametrize("last", [False, True])
def test_pooled_states_and_their_gradients_equal_a_loop(last):
    states, segments, count = random_case()
    ours, theirs = (states.clone().requires_grad_() for _ in range(2))
    pooled, expected = pool(ours, segments, count, last), naive(theirs, segments, count, last)
    torch.testing.assert_close(pooled, expected, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(pooled)
    for value in (pooled, expected):
        (value * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-12)
    assert (ours.grad[segments == -1] == 0).all()


def test_weights_of_a_segment_sum_to_one_and_those_of_an_empty_one_are_zero():
    _, segments, count = random_case()
    for last in (False, True):
        sums = pooling_weights(segments, count, last).sum(-1)
        filled = (segments[:, None] == torch.arange(count)[:, None]).any(-1)
        torch.testing.assert_close(sums, filled.float())
        assert not filled.all()


@pytest.mark.parametrize("last", [False, True])
def test_more_segments_and_padding_change_no_state(last):
    states, segments, count = random_case()
    longer = torch.cat([states, 100 * torch.ones(3, 4, 5, dtype=states.dtype)], 1)
    padded = torch.cat([segments, torch.full((3, 4), -1)], 1)
    pooled = pool(longer, padded, count + 3, last)
    torch.testing.assert_close(pooled[:, :count], pool(states, segments, count, last), rtol=1e-12, atol=1e-12)
    assert (pooled[:, count:] == 0).all()


def test_bfloat16_states_are_pooled_in_float32_also_under_autocast():
    states, segments, count = random_case(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        pooled = pool(states, segments, count)
    assert pooled.dtype == torch.float32
    expected = naive(states.double(), segments, count, False).float()
    torch.testing.assert_close(pooled, expected, rtol=1e-6, atol=1e-6)


def test_states_of_several_windows_are_found_by_their_positions():
    """The second text was read in two windows; the first special token of both belongs to its segment 0."""
    states = torch.arange(3 * 4 * 2.0).view(3, 4, 2)
    positions = torch.tensor([[0, 1, 2, 3, 0, 0, 0, 0], [4, 5, 6, 7, 8, 9, 10, 11]])
    segments = torch.tensor([[0, 1, 1, 2, -1, -1, -1, -1], [0, 1, 2, 3, 0, 2, 2, 3]])
    pooled, flat = pool_windows(states, positions, segments, 4), states.flatten(0, 1)
    torch.testing.assert_close(pooled[0, :3], torch.stack([flat[0], (flat[1] + flat[2]) / 2, flat[3]]))
    assert (pooled[0, 3] == 0).all()
    expected = [(flat[4] + flat[8]) / 2, flat[5], (flat[6] + flat[9] + flat[10]) / 3, (flat[7] + flat[11]) / 2]
    torch.testing.assert_close(pooled[1], torch.stack(expected))


# ---- in the student ----


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def losses_and_gradients(student, batch, **taught):
    student.zero_grad()
    output = student(**batch, **taught)
    output.loss.backward()
    return output.losses, {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}


def masked_batch(padded: bool):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 60, (4, 9), generator=generator)
    positions = torch.randint(0, 5, (4, 2), generator=generator)
    batch = {"input_ids": ids, "masked_positions": positions, "masked_labels": ids.gather(1, positions)}
    if padded:
        batch["attention_mask"] = (torch.arange(9) < torch.tensor([9, 7, 5, 9])[:, None]).long()
    return batch


@pytest.mark.parametrize("objectives", [*({name: weight} for name, weight in ALL.items()), {**ALL, "voken": 1.0}])
@pytest.mark.parametrize("padded", [False, True])
def test_segments_that_are_tokens_give_the_loss_and_gradients_of_tokens(tokenizer, objectives, padded):
    student = make_student(tokenizer, dropout=0.0)
    options = {**objectives, "voken": {"weight": 1.0, "num_vokens": 7}} if "voken" in objectives else objectives
    student.add_objectives(options, teacher_hidden_size=32)
    batch, states = masked_batch(padded), torch.randn(4, 9, 32, generator=torch.Generator().manual_seed(2))
    if "voken" in objectives:
        batch["voken_ids"] = batch["input_ids"] % 7
    mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
    expected, gradients = losses_and_gradients(student, batch, teacher_states=states)
    segments = torch.arange(9).where(mask.bool(), -1).expand(4, -1)
    positions = torch.arange(4 * 9).view(4, 9)
    forced = {
        "segments": segments,
        "segment_mask": mask,
        "teacher_states": pool_windows(states, positions, segments, 9),
    }
    losses, ours = losses_and_gradients(student, batch, **forced)
    assert losses.keys() == expected.keys() and ours.keys() == gradients.keys()
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-7)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, gradients[name], rtol=1e-6, atol=1e-6)


def test_objectives_compare_the_heads_of_pooled_states(tokenizer):
    student = make_student(tokenizer, dropout=0.0)
    student.add_objectives({"regression": 1.0}, teacher_hidden_size=48)
    segments = torch.tensor([[0, 1, 1, 2, 2, 2, -1, 3, 4], [0, 0, 1, 1, 2, -1, -1, -1, -1]]).repeat(2, 1)
    mask, states = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).repeat(2, 1), torch.randn(4, 5, 48)
    output = student(**masked_batch(False), teacher_states=states, segments=segments, segment_mask=mask)
    heads = student.distillation_heads["regression"](naive(output.last_hidden_state, segments, 5, False))
    squares = (heads - torch.nn.functional.normalize(states, dim=-1)).square().sum(-1)
    torch.testing.assert_close(output.losses["regression"], squares[mask.bool()].mean())


def test_segments_without_their_mask_are_refused(tokenizer):
    with pytest.raises(ValueError, match="only one of segments .* and segment_mask .*: give both"):
        make_student(tokenizer)(**masked_batch(False), segments=torch.zeros(4, 9, dtype=torch.long))
