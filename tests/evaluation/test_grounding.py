"""Grounding: exact similarities of teacher and student, and a clear message if a student has none."""

import pytest
import torch
import torch.nn.functional as F
from helpers import WORDS, make_student, make_teacher, make_tokenizer, make_video_text
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from vidlankd_hf import VidLanKDStudent
from vidlankd_hf.evaluation.grounding import _tokens, encode_clips, ground, nearest_clips
from vidlankd_hf.evaluation.grounding_page import _student_name
from vidlankd_hf.experiments.vokenization import nearest

SENTENCE = "word3 word14  word15 word9"


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def clips():
    return make_video_text(20)


def student_of(tokenizer, objectives, width=32):
    student = make_student(tokenizer)
    if objectives:
        student.add_objectives(objectives, teacher_hidden_size=width)
    return student


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_nearest_clips_are_the_largest_products_however_the_bank_is_divided(rows):
    generator = torch.Generator().manual_seed(0)
    # Products of integers are exact in any order, so that ties are real and the first of them comes first.
    queries, bank = (torch.randint(-9, 10, (n, 6), generator=generator).double() for n in (12, 40))
    bank[33] = bank[2]
    similarity, index, mean, std = nearest_clips(queries, bank, 5, rows)
    products = [[float(q @ v) for v in bank] for q in queries]
    naive = [sorted(range(40), key=lambda k: (-row[k], k))[:5] for row in products]
    assert index.tolist() == naive
    assert torch.equal(index[:, 0], nearest(queries, bank, rows))
    products = torch.tensor(products, dtype=torch.float64)
    assert torch.allclose(similarity, products.gather(1, torch.tensor(naive)))
    assert torch.allclose(mean, products.mean(1)) and torch.allclose(std, products.std(1, correction=0))


@pytest.mark.parametrize("joint_size", [None, 8])
def test_scores_are_the_cosines_the_contrast_was_trained_with(tokenizer, clips, joint_size):
    teacher = make_teacher(tokenizer, joint_size=joint_size).eval()
    found = ground(SENTENCE, teacher, tokenizer, clips, num_nearest=20, heat_clip=4, batch_size=3)
    assert found.tokens == SENTENCE.split() and found.num_clips == 20 and found.student is None
    assert [SENTENCE[a:b] for a, b in found.spans] == found.tokens
    ids = torch.tensor([[2, *tokenizer(SENTENCE, add_special_tokens=False)["input_ids"], 3]])
    with torch.no_grad():
        states = teacher.encode_text(ids)[0, 1:-1]
        tokens = F.normalize(states if joint_size is None else teacher.text_projection(states), dim=-1)
        alone = [torch.tensor(row["video_features"])[None] for row in clips]
        videos = torch.cat([teacher.encode_video(clip) for clip in alone])
        steps = torch.cat([teacher.encode_video(alone[4][:, t : t + 1]) for t in range(alone[4].shape[1])])
    expected = tokens @ videos.T
    assert torch.allclose(found.teacher.similarity, expected.gather(1, found.teacher.nearest), atol=1e-5)
    assert torch.equal(found.teacher.nearest.sort(1).values, torch.arange(20).expand(4, -1))
    assert torch.allclose(found.teacher.heat, tokens @ steps.T, atol=1e-5)
    deviations = (expected - expected.mean(1, keepdim=True)) / expected.std(1, correction=0, keepdim=True)
    assert torch.allclose(
        found.teacher.deviations(found.teacher.similarity), deviations.gather(1, found.teacher.nearest), atol=1e-3
    )
    by_sentence = ground(SENTENCE, teacher, tokenizer, clips, bank=encode_clips(teacher, tokenizer, clips))
    order = expected.mean(0).argsort(descending=True).tolist()
    assert by_sentence.heat_clip == next(i for i in order if len(clips[i]["video_features"]) >= 4)
    assert by_sentence.heat_clip_reason.startswith(
        f"number {order.index(by_sentence.heat_clip) + 1} of the clips nearest"
    )


@pytest.mark.parametrize("joint_size", [None, 8])
def test_a_student_that_gives_the_teachers_states_gets_the_teachers_scores(tokenizer, clips, joint_size):
    teacher = make_teacher(tokenizer, joint_size=joint_size)
    student = VidLanKDStudent.from_teacher(teacher)
    student.add_objectives({"regression": {"weight": 1.0, "head": False}}, teacher_hidden_size=32)
    found = ground(SENTENCE, teacher, tokenizer, clips, student=student, num_nearest=4)
    assert found.objective == "regression" and found.without_student is None
    assert _student_name(found) == "Student (regression without head)"
    assert torch.allclose(found.student.similarity, found.teacher.similarity, atol=1e-4)
    assert torch.equal(found.student.nearest, found.teacher.nearest)
    assert torch.allclose(found.student.heat, found.teacher.heat, atol=1e-4)


def test_a_student_is_read_through_its_distillation_head(tokenizer, clips):
    teacher, student = make_teacher(tokenizer), student_of(tokenizer, {"nst": 1.0, "crd": 1.0})
    found = ground(SENTENCE, teacher, tokenizer, clips, student=student, num_nearest=20)
    assert found.objective == "crd" and found.has_head
    ids = torch.tensor([[2, *tokenizer(SENTENCE, add_special_tokens=False)["input_ids"], 3]])
    with torch.no_grad():
        tokens = student.distillation_heads["crd"](student.base_model(ids).last_hidden_state)[0, 1:-1]
    bank = encode_clips(teacher, tokenizer, clips)
    assert torch.allclose(found.student.similarity, (tokens @ bank.T).gather(1, found.student.nearest), atol=1e-5)
    with pytest.raises(ValueError, match="objective 'nst' has no head"):
        ground(SENTENCE, teacher, tokenizer, clips, bank, student=student, objective="nst")


def test_a_student_without_a_head_in_the_teachers_space_says_so(tokenizer, clips):
    teacher = make_teacher(tokenizer)
    bank = encode_clips(teacher, tokenizer, clips)
    for objectives, reason in (
        ({}, "no distillation head"),
        ({"nst": 1.0}, "trained with nst only"),
        ({"soft_label": 1.0}, "trained with soft_label only"),
    ):
        found = ground(SENTENCE, teacher, tokenizer, clips, bank, student=student_of(tokenizer, objectives))
        assert found.student is None and found.objective is None and reason in found.without_student


def test_each_step_of_the_heat_map_sees_the_window_around_it(tokenizer, clips):
    teacher = make_teacher(tokenizer).eval()
    longest = max(range(20), key=lambda i: len(clips[i]["video_features"]))
    features = torch.tensor(clips[longest]["video_features"])
    assert len(features) == 4
    options = {"bank": encode_clips(teacher, tokenizer, clips), "heat_clip": longest}
    heat = ground(SENTENCE, teacher, tokenizer, clips, window=3, **options).teacher.heat
    assert torch.equal(heat[:, 0], heat[:, 1]) and torch.equal(heat[:, 2], heat[:, 3])  # the window stays inside
    assert not torch.allclose(heat[:, 1], heat[:, 2])
    whole = ground(SENTENCE, teacher, tokenizer, clips, window=9, **options).teacher.heat
    one = ground(SENTENCE, teacher, tokenizer, clips, num_nearest=20, **options).teacher
    of_clip = one.similarity[one.nearest == longest]
    assert torch.allclose(whole, of_clip[:, None].expand(-1, 4), atol=1e-5)


def test_what_cannot_be_grounded_is_refused_with_a_remedy(tokenizer, clips):
    teacher = make_teacher(tokenizer)
    bank = encode_clips(teacher, tokenizer, clips)
    blind = make_teacher(tokenizer, losses="mlm")
    for message, arguments in (
        ("has no video encoder", {"teacher": blind}),
        ("no token in the vocabulary", {"sentence": "  "}),
        ("reads at most 510", {"sentence": " ".join(WORDS[:30] * 18)}),
        ("num_nearest is 21: give a number from 1 to 20", {"num_nearest": 21}),
        ("heat_clip is 20", {"heat_clip": 20}),
        ("window is 0", {"window": 0}),
        ("the bank has 3 vectors", {"bank": bank[:3]}),
        ("states of width 16", {"student": student_of(tokenizer, {"crd": 1.0}, width=16)}),
    ):
        given = {"sentence": SENTENCE, "teacher": teacher, "tokenizer": tokenizer, "clips": clips, "bank": bank}
        with pytest.raises(ValueError, match=message):
            ground(**{**given, **arguments})


def test_spans_of_byte_level_tokens_exclude_the_space_before_them():
    backend = Tokenizer(BPE(unk_token="[UNK]"))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    backend.train_from_iterator(["there is bread"] * 3, BpeTrainer(special_tokens=[*special.values()]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    _, tokens, spans = _tokens("there is bread", tokenizer)
    assert tokens == ["there", "is", "bread"] and spans == [(0, 5), (6, 8), (9, 14)]
