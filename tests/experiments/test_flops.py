"""FLOPs of a training step are those of the cost model, for every kind of student."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers import make_student, make_teacher, make_tokenizer

from vidlankd_hf import VidLanKDStudent, VidLanKDTeacher, VidLanKDTeacherConfig, bert_config
from vidlankd_hf.experiments.ablations.runs import SeedRuns
from vidlankd_hf.experiments.flops import step_flops
from vidlankd_hf.training.build import build_student


def test_flops_of_a_step_are_those_of_the_cost_model():
    """docs/scaling.md: encoders 4 x N (8H² + 4HI + 4LH), head 3m (2H² + 2HV), two heads 3 (2H² + 2H²), a token."""
    config = bert_config("tiny", vocab_size=1000)
    layers, width, inner, length, masked = 2, 128, 512, 34, 5
    student, teacher = VidLanKDStudent(config), VidLanKDTeacher(VidLanKDTeacherConfig(text_config=config))
    encoder = layers * (8 * width**2 + 4 * width * inner + 4 * length * width) * length
    head = masked * 2 * (width**2 + 1000 * width)
    text_only = step_flops(student, None, sequences=3, length=length)
    assert text_only == pytest.approx(3 * 3 * (encoder + head), rel=0.01)
    student.add_objectives({"regression": 1.0}, teacher_hidden_size=width)
    distillation_head = length * 4 * width**2
    taught = step_flops(student, teacher, sequences=3, length=length)
    assert taught - text_only == pytest.approx(3 * (encoder + 3 * distillation_head), rel=0.01)


def test_counting_flops_changes_no_weight_and_counts_what_the_teacher_computes():
    tokenizer = make_tokenizer()
    student, teacher = make_student(tokenizer), make_teacher(tokenizer)
    before = {name: weight.clone() for name, weight in student.state_dict().items()}
    counts = {}
    for name, options in {"soft_label": 1.0, "regression": 1.0, "voken": {"weight": 1.0, "num_vokens": 9}}.items():
        student.remove_objectives()
        student.add_objectives({name: options}, 32)
        counts[name] = step_flops(student, teacher, 2, 16)
    student.remove_objectives()
    alone = step_flops(student, None, 2, 16)
    assert alone < counts["voken"] < counts["soft_label"] and alone < counts["regression"]
    assert all((weight == before[name]).all() for name, weight in student.state_dict().items())
    assert all(parameter.grad is None for parameter in student.parameters())


@pytest.mark.parametrize("model_type", ["roberta", "modernbert"])
def test_flops_of_other_model_types_are_counted(tmp_path, model_type):
    tokenizer = make_tokenizer()
    teacher = make_teacher(tokenizer)
    teacher.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    student = build_student("tiny", str(tmp_path), model_type)
    alone = step_flops(student, None, 2, 16)
    student.add_objectives({"crd": 1.0}, teacher.config.hidden_size)
    assert step_flops(student, teacher, 2, 16) > alone > 0


def test_flops_are_counted_while_other_threads_load_models(tmp_path):
    runs, tokenizer = SeedRuns(1, tmp_path / "models", tmp_path / "results"), make_tokenizer()
    for name in ("teacher", "shuffled_teacher"):
        make_teacher(tokenizer).save_pretrained(runs.folder / name)
        tokenizer.save_pretrained(runs.folder / name)
    names = ["text_only", "by_shuffled_teacher", "roberta_crd", "modernbert_crd"]
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(runs._sequence_flops, 3 * names))
    assert counts == 3 * counts[:4] and len({*counts}) == 3  # BERT and RoBERTa cost the same
