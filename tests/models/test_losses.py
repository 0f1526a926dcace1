"""Every loss equals its formula as naive loops in float64, in value and gradient, and ignores padding."""

import itertools

import pytest
import torch

from vidlankd_hf.models.contrast import VideoTextContrast
from vidlankd_hf.models.losses import (  # fmt: skip
    OBJECTIVES,
    CRDLoss,
    InfoNCELoss,
    NSTLoss,
    RegressionLoss,
    SoftLabelLoss,
    VokenLoss,
)

LENGTHS = [5, 3, 4, 1]
WITHOUT_VOKEN = [name for name in OBJECTIVES if name != "voken"]


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def ragged_mask(lengths=LENGTHS, length=5):
    return (torch.arange(length) < torch.tensor(lengths)[:, None]).long()


def naive_nst(student, teacher, mask):
    total = 0.0
    for s, t, real in zip(student, teacher, mask.bool()):
        s, t = s[real].T, t[real].T  # neurons x tokens
        s = [x / x.norm() for x in s]
        t = [x / x.norm() for x in t]

        def kernel_mean(xs, ys):
            return sum((x @ y) ** 2 for x, y in itertools.product(xs, ys)) / (len(xs) * len(ys))

        total = total + kernel_mean(s, s) - 2 * kernel_mean(s, t) + kernel_mean(t, t)
    return total / len(student)


def positions(student, teacher, mask):
    """Yields, for each real token, its similarities to its own teacher state and to those of other sequences."""
    for b, i in itertools.product(range(mask.shape[0]), range(mask.shape[1])):
        if mask[b, i]:
            own = student[b, i] @ teacher[b, i]
            others = [student[b, i] @ teacher[c, i] for c in range(len(mask)) if c != b and mask[c, i]]
            yield own, others


def naive_crd(student, teacher, mask, temperature=0.07, noise_ratio=1.0):
    def h(similarity):
        e = torch.exp(similarity / temperature)
        return e / (e + noise_ratio)

    terms = [
        -torch.log(h(own)) - sum(torch.log(1 - h(other)) for other in others)
        for own, others in positions(student, teacher, mask)
    ]
    return sum(terms) / len(terms)


def naive_infonce(student, teacher, mask, temperature=0.1):
    terms = [
        -torch.log(torch.exp(own / temperature) / sum(torch.exp(x / temperature) for x in [own, *others]))
        for own, others in positions(student, teacher, mask)
    ]
    return sum(terms) / len(terms)


def naive_regression(student, teacher, mask):
    distances = [((student[b, i] - teacher[b, i]) ** 2).sum() for b, i in mask.nonzero().tolist()]
    return sum(distances) / len(distances)


def naive_nst_over_tokens(student, teacher, mask):
    total = 0.0
    for s, t, real in zip(student, teacher, mask.bool()):
        s, t = s[real], t[real]

        def kernel_mean(xs, ys):
            return sum((x @ y) ** 2 for x, y in itertools.product(xs, ys)) / (len(xs) * len(ys))

        total = total + kernel_mean(s, s) - 2 * kernel_mean(s, t) + kernel_mean(t, t)
    return total / len(student)


def naive_soft_label(student, teacher, mask, temperature=2.0):
    terms = []
    for b, i in mask.nonzero().tolist():
        p, q = (torch.exp(x[b, i] / temperature) for x in (teacher, student))
        p, q = p / p.sum(), q / q.sum()
        terms.append(temperature**2 * sum(p[v] * (torch.log(p[v]) - torch.log(q[v])) for v in range(len(p))))
    return sum(terms) / len(terms)


def test_voken_loss_is_the_mean_cross_entropy_over_tokens_with_a_voken():
    logits = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    vokens = torch.tensor([[-100, 0, 4, -100], [-100, 2, 2, 1], [-100, -100, -100, -100]])
    terms = []
    for b, i in (vokens >= 0).nonzero().tolist():
        e = torch.exp(logits[b, i])
        terms.append(-torch.log(e[vokens[b, i]] / e.sum()))
    naive = sum(terms) / 5
    (expected,) = torch.autograd.grad(naive, logits)
    loss = VokenLoss(5)(logits, vokens)
    torch.testing.assert_close(loss, naive)
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], expected)
    assert VokenLoss(5)(logits, torch.full_like(vokens, -100)) == 0


CASES = {
    "nst": (NSTLoss(), naive_nst, 7),
    "crd": (CRDLoss(), naive_crd, 8),
    "crd, other options": (
        CRDLoss(temperature=0.2, noise_ratio=0.3),
        lambda *a: naive_crd(*a, temperature=0.2, noise_ratio=0.3),
        8,
    ),
    "infonce": (InfoNCELoss(), naive_infonce, 8),
    "regression": (RegressionLoss(), naive_regression, 8),
    "nst over tokens": (NSTLoss(axis="tokens"), naive_nst_over_tokens, 8),
    "soft label": (SoftLabelLoss(), naive_soft_label, 8),
    "soft label, other temperature": (
        SoftLabelLoss(temperature=0.5),
        lambda *a: naive_soft_label(*a, temperature=0.5),
        8,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_objective_equals_naive_loops_in_value_and_gradient(case):
    loss, naive, student_width = CASES[case]
    teacher, mask = unit(4, 5, 8, seed=2), ragged_mask()
    results = []
    for function in (loss, naive):
        student = unit(4, 5, student_width, seed=1).requires_grad_()
        value = function(student, teacher, mask)
        value.backward()
        results.append((value.detach(), student.grad))
    (value, gradient), (naive_value, naive_gradient) = results
    torch.testing.assert_close(value, naive_value, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(gradient, naive_gradient, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", WITHOUT_VOKEN)
def test_padding_changes_neither_loss_nor_gradient(name):
    loss = OBJECTIVES[name]()
    mask = ragged_mask()
    longer = torch.nn.functional.pad(mask, (0, 3))
    states = [unit(4, 5, 8, seed=s) for s in (1, 2)]
    padded = [torch.cat([s, unit(4, 3, 8, seed=9)], dim=1) for s in states]
    for s in padded:
        s[:, :5][mask == 0] = 123.0  # values at padding must not matter
    plain, with_padding = states[0].requires_grad_(), padded[0].requires_grad_()
    first, second = loss(plain, states[1], mask), loss(with_padding, padded[1], longer)
    first.backward()
    second.backward()
    torch.testing.assert_close(first, second, rtol=1e-9, atol=0)
    torch.testing.assert_close(plain.grad[mask == 1], with_padding.grad[:, :5][mask == 1], rtol=1e-9, atol=1e-15)
    assert (with_padding.grad[longer == 0] == 0).all()


@pytest.mark.parametrize("name", WITHOUT_VOKEN)
def test_objectives_compute_in_float32_from_lower_precision(name):
    states = [unit(4, 5, 8, seed=s).bfloat16() for s in (1, 2)]
    loss = OBJECTIVES[name]()(*states, ragged_mask())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, OBJECTIVES[name]()(states[0].float(), states[1].float(), ragged_mask()))


def test_nst_is_zero_for_equal_states_and_for_permuted_neurons():
    states, mask = unit(4, 5, 8), ragged_mask()
    permuted = states[..., torch.randperm(8, generator=torch.Generator().manual_seed(0))]
    assert NSTLoss()(states, states, mask) == 0
    assert NSTLoss()(states, permuted, mask) < 1e-12
    assert NSTLoss()(states, unit(4, 5, 8, seed=3), mask) > 1e-3


@pytest.mark.parametrize("name", ["crd", "infonce"])
def test_negatives_of_other_processes_give_the_loss_of_one_large_batch(name):
    """Sequences 0 and 1 with 2 and 3 as `others`, and vice versa."""
    loss, mask, teacher, whole = OBJECTIVES[name](), ragged_mask(), unit(4, 5, 8, seed=2), unit(4, 5, 8, seed=1)
    split = whole.clone().requires_grad_()
    whole.requires_grad_()
    expected = loss(whole, teacher, mask)
    expected.backward()
    first, second = slice(0, 2), slice(2, 4)
    value = sum(
        loss(split[ours], teacher[ours], mask[ours], (teacher[other], mask[other])) * mask[ours].sum() / mask.sum()
        for ours, other in ((first, second), (second, first))
    )
    value.backward()
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(split.grad, whole.grad, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", ["crd", "infonce"])
def test_contrast_without_negatives_is_an_error(name):
    with pytest.raises(ValueError, match="batch size of 2 or more"):
        OBJECTIVES[name]()(unit(1, 5, 8), unit(1, 5, 8), ragged_mask([5]))


@pytest.mark.parametrize("name", ["crd", "infonce", "regression"])
def test_states_of_different_widths_are_an_error_that_names_both(name):
    with pytest.raises(ValueError, match="7 features.*8"):
        OBJECTIVES[name]()(unit(4, 5, 7), unit(4, 5, 8), ragged_mask())


def test_only_nst_over_neurons_takes_states_of_different_widths():
    same = {name: loss.same_width for name in OBJECTIVES if "hidden" in (loss := OBJECTIVES[name]()).needs}
    assert same == {"nst": False, "crd": True, "infonce": True, "regression": True}
    assert NSTLoss(axis="tokens").same_width
    assert NSTLoss()(unit(4, 5, 7), unit(4, 5, 8), ragged_mask()).isfinite()


@pytest.mark.parametrize(
    "loss, options",
    [(CRDLoss, {"temperature": 0.0}), (CRDLoss, {"noise_ratio": -1.0}), (SoftLabelLoss, {"temperature": 0}),
     (NSTLoss, {"axis": "time"})],
)  # fmt: skip
def test_invalid_options_are_an_error(loss, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        loss(**options)


VIDEOS = [0, 0, 1, 2]  # the first two sentences are from the same video


def naive_hinge(tokens, clips, mask, margin=1.0, batch=False):
    total, count, size = 0.0, 0, len(clips)
    for b in range(size):
        others = [(b + step) % size for step in range(1, size) if VIDEOS[(b + step) % size] != VIDEOS[b]]
        for i in range(mask.shape[1]):
            if not mask[b, i]:
                continue
            count += 1
            own = tokens[b, i] @ clips[b]
            chosen = others if batch else others[:1]
            total += sum(max(0, margin - own + tokens[b, i] @ clips[c]) for c in chosen) / len(chosen)
            real = [c for c in chosen if mask[c, i]]
            if real:
                total += sum(max(0, margin - own + tokens[c, i] @ clips[b]) for c in real) / len(real)
    return total / count


def naive_video_infonce(tokens, clips, mask, temperature=0.1):
    total, count, size = 0.0, 0, len(clips)
    for b in range(size):
        others = [c for c in range(size) if VIDEOS[c] != VIDEOS[b]]
        for i in range(mask.shape[1]):
            if mask[b, i]:
                count += 1
                own = torch.exp(tokens[b, i] @ clips[b] / temperature)
                total -= torch.log(own / (own + sum(torch.exp(tokens[b, i] @ clips[c] / temperature) for c in others)))
                same = [torch.exp(tokens[c, i] @ clips[b] / temperature) for c in others if mask[c, i]]
                total -= torch.log(own / (own + sum(same)))
    return total / count


CONTRASTS = {
    "hinge": naive_hinge,
    "hinge_batch": lambda *a: naive_hinge(*a, batch=True),
    "infonce": naive_video_infonce,
}


@pytest.mark.parametrize("kind", CONTRASTS)
def test_video_text_contrast_equals_naive_loops_in_value_and_gradient(kind):
    mask, results = ragged_mask(), []
    contrast = VideoTextContrast(kind)
    for function in (
        lambda t, v: contrast(t, v, mask, torch.tensor(VIDEOS)),
        lambda t, v: CONTRASTS[kind](t, v, mask),
    ):
        tokens, clips = unit(4, 5, 8, seed=1).requires_grad_(), unit(4, 8, seed=2).requires_grad_()
        value = function(tokens, clips)
        value.backward()
        results.append((value.detach(), tokens.grad, clips.grad))
    for ours, naive in zip(*results):
        torch.testing.assert_close(ours, naive, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("kind", CONTRASTS)
def test_windows_of_the_same_video_are_never_negatives(kind):
    """Changing the clip of a window does not change the gradient of another window of the same video."""
    mask = torch.tensor([[1, 1], [0, 0], [1, 1]])
    tokens, clips, videos = unit(3, 2, 8), unit(3, 8, seed=1), torch.tensor([4, 4, 9])
    contrast = VideoTextContrast(kind)
    moved = torch.cat([clips[:1], -clips[1:2], clips[2:]])

    def loss_of_first(clips):
        tokens_ = tokens.clone().requires_grad_()
        contrast(tokens_, clips, mask, videos).backward()
        return tokens_.grad[0]

    torch.testing.assert_close(loss_of_first(clips), loss_of_first(moved), rtol=0, atol=0)
