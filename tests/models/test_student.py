"""The student: training with heads and objectives, saving and loading, and errors for what does not fit."""

import json
import subprocess
import sys

import pytest
import torch
from helpers import MINI, logged, make_config, make_student, make_teacher, make_texts, make_tokenizer, train
from safetensors.torch import load_file

from vidlankd_hf import DistillationConfig, DistillationTrainer, VidLanKDStudent
from vidlankd_hf.models.losses import OBJECTIVES, CRDLoss, NSTLoss
from vidlankd_hf.models.student import unit_states

ALL = {"nst": 10.0, "crd": 1.0, "infonce": 1.0, "regression": 1.0}


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def test_student_without_masked_positions_is_a_plain_bert_and_export_leaves_the_random_state(tokenizer):
    student = make_student(tokenizer).eval()
    ids = torch.randint(5, 60, (3, 9))
    output = student(input_ids=ids, labels=ids)
    state = torch.get_rng_state()
    student.export()
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(output.logits, student.export().eval()(input_ids=ids).logits)
    assert output.loss > 0


def test_mlm_at_masked_positions_equals_the_loss_on_full_logits(tokenizer, tmp_path):
    trainer = train("student", tmp_path, max_steps=1)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    model = trainer.model.eval()
    labels = torch.full_like(batch["input_ids"], -100)
    rows = torch.arange(4)[:, None].expand_as(batch["masked_labels"])
    used = batch["masked_labels"] != -100
    labels[rows[used], batch["masked_positions"][used]] = batch["masked_labels"][used]
    full = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
    torch.testing.assert_close(model(**batch).losses["mlm"], full)


def test_losses_see_unit_vectors_from_heads_and_from_the_teacher(tokenizer):
    student = make_student(tokenizer).eval()
    student.add_objectives({"regression": 2.0}, teacher_hidden_size=48)
    ids, mask = torch.randint(5, 60, (3, 9)), torch.ones(3, 9, dtype=torch.long)
    teacher_states = 7 * torch.randn(3, 9, 48)
    output = student(ids, mask, torch.zeros(3, 1, dtype=torch.long), ids[:, :1], teacher_states=teacher_states)
    heads = student.distillation_heads["regression"](output.last_hidden_state)
    torch.testing.assert_close(heads.norm(dim=-1), torch.ones(3, 9))
    expected = (heads - unit_states(teacher_states)).square().sum(-1).mean()
    torch.testing.assert_close(output.losses["regression"], expected)
    torch.testing.assert_close(output.loss, output.losses["mlm"] + 2 * expected)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "voken"])
def test_teacher_and_student_of_different_depth_and_width_work(tokenizer, tmp_path, name):
    wide = {"num_hidden_layers": 2, "hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 64}
    args = DistillationConfig(
        output_dir=str(tmp_path), objectives={name: 1.0}, max_steps=2, per_device_train_batch_size=4, use_cpu=True,
        report_to="none", disable_tqdm=True, save_strategy="no", logging_steps=1,
    )  # fmt: skip
    trainer = DistillationTrainer(
        model=make_student(tokenizer), teacher_model=make_teacher(tokenizer, shape=wide), args=args,
        train_dataset=make_texts(20), processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
    assert logged(trainer, f"{name}_loss")[0][f"{name}_loss"] > 0


def test_teacher_does_not_change_and_is_in_no_checkpoint(tmp_path, tokenizer):
    before = make_teacher(tokenizer).state_dict()
    trainer = train("student", tmp_path, ALL, dropout=0.1, save_strategy="steps", save_steps=3, weight_decay=0.1)
    after = trainer.teacher_model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not trainer.teacher_model.training
    trainer.save_model()
    for folder in (tmp_path, tmp_path / "checkpoint-3"):
        names = set(load_file(folder / "model.safetensors"))
        assert names and not any("teacher" in name or "video" in name for name in names)


def test_every_parameter_of_encoder_and_heads_is_trained(tmp_path, tokenizer):
    trainer = train("student", tmp_path, ALL, save_strategy="steps", save_steps=1)
    first, last = (load_file(tmp_path / f"checkpoint-{step}" / "model.safetensors") for step in (1, 3))
    assert {name.split(".")[1] for name in first if name.startswith("distillation_heads.")} == set(ALL)
    assert len(first) >= len(list(trainer.model.parameters()))
    assert [name for name in first if torch.equal(first[name], last[name])] == []


def test_run_saves_a_plain_bert_a_recipe_and_heads(tmp_path, tokenizer):
    trainer = train("student", tmp_path, ALL, save_strategy="steps", save_steps=3)
    trainer.save_model()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["BertForMaskedLM"] and "distillation" not in config
    assert json.loads((tmp_path / "distillation/recipe.json").read_text())["objectives"]["nst"]["weight"] == 10.0
    assert not list(tmp_path.rglob("training_args.bin")), "settings are saved as JSON, not pickled"
    assert "crd" in (tmp_path / "README.md").read_text()

    restored = VidLanKDStudent.from_pretrained(tmp_path)
    checkpoint = VidLanKDStudent.from_pretrained(tmp_path / "checkpoint-3")
    expected = trainer.model.state_dict()
    for student in (restored, checkpoint):
        assert student.loss_terms == trainer.model.loss_terms
        assert all(torch.equal(expected[n], t) for n, t in student.state_dict().items())


def test_half_precision_checkpoint_is_trained_in_float32(tmp_path, tokenizer):
    make_student(tokenizer).export().bfloat16().save_pretrained(tmp_path)
    assert VidLanKDStudent.from_pretrained(tmp_path).dtype == torch.float32


def test_exported_student_loads_without_this_package(tmp_path, tokenizer):
    trainer = train("student", tmp_path, {"nst": 1.0})
    trainer.save_model()
    code = f"""
import sys
sys.modules["vidlankd_hf"] = None
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, pipeline
model, info = AutoModelForMaskedLM.from_pretrained({str(tmp_path)!r}, output_loading_info=True)
assert not any(info.values()), info
_, info = AutoModelForSequenceClassification.from_pretrained({str(tmp_path)!r}, output_loading_info=True)
assert all(key.startswith("cls.") for key in info["unexpected_keys"]), info
assert all(key.startswith(("classifier.", "bert.pooler.")) for key in info["missing_keys"]), info
fill = pipeline("fill-mask", {str(tmp_path)!r})
assert len(fill("word1 [MASK] word3")) == 5
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]


def test_objectives_may_be_instances_with_options(tokenizer, tmp_path):
    student = make_student(tokenizer)
    student.add_objectives({"crd": (0.5, CRDLoss(temperature=0.2)), "nst": {"weight": 3.0}}, teacher_hidden_size=32)
    student.save_pretrained(tmp_path)
    loaded = VidLanKDStudent.from_pretrained(tmp_path)
    assert loaded.objectives["crd"].temperature == 0.2
    assert loaded.loss_terms == {"mlm": (1.0, "masked_tokens"), "crd": (0.5, "tokens"), "nst": (3.0, "sequences")}


@pytest.mark.parametrize(
    "objectives, message",
    [
        ({"ntk": 1.0}, "unknown objective 'ntk'.*nst, crd"),
        ({"nst": 0.0}, "'nst' has weight 0.0"),
        ({"nst": float("nan")}, "weight nan"),
        ({"nst": "much"}, "weight 'much'"),
        ({"crd": {"weight": 1.0, "tau": 1}}, "'crd' does not take.*tau"),
        ({"crd": {"weight": 1.0, "temperature": -1}}, "temperature must be greater than 0"),
        ({"crd": (1.0, NSTLoss())}, "NSTLoss was given"),
        ({"soft_label": {"weight": 1.0, "head": False}}, "'soft_label' has no distillation head"),
        ({"nst": {"weight": 1.0, "head": "no"}}, "'nst' has head 'no'"),
        ({"nst": {"weight": 1.0, "axis": "time"}}, "axis must be 'neurons' or 'tokens'"),
        ("{nst: 1}", "not JSON"),
        ("[1]", "mapping of names"),
    ],
)
def test_invalid_objectives_are_an_error_before_training(tmp_path, objectives, message):
    with pytest.raises(ValueError, match=message):
        DistillationConfig(output_dir=str(tmp_path), objectives=objectives, use_cpu=True, report_to="none")


def test_objective_without_head_compares_the_students_own_states(tmp_path, tokenizer):
    objectives = {"nst": {"weight": 2.0, "head": False}, "regression": 1.0}
    trainer = train("student", tmp_path, objectives, max_steps=1)
    assert list(trainer.model.distillation_heads) == ["regression"]
    batch = trainer.model_inputs(trainer.data_collator([trainer.train_dataset[i] for i in range(4)]))
    trainer.model.eval()
    output = trainer.model(**batch)
    own, taught = unit_states(output.last_hidden_state), unit_states(batch["teacher_states"])
    torch.testing.assert_close(output.losses["nst"], NSTLoss()(own, taught, batch["attention_mask"]))
    trainer.save_model()
    loaded = VidLanKDStudent.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(**batch).loss, output.loss)

    wide = make_teacher(tokenizer, shape={**MINI, "hidden_size": 48})
    construct(tmp_path / "a", make_student(tokenizer), wide, tokenizer, {"nst": {"weight": 1.0, "head": False}})
    with pytest.raises(ValueError, match="'crd' compares states of equal width, but the student's have 32.*48"):
        construct(tmp_path / "b", make_student(tokenizer), wide, tokenizer, {"crd": {"weight": 1.0, "head": False}})


def test_teacher_computes_only_what_the_objectives_need(tmp_path):
    both = train("student", tmp_path / "both", {"soft_label": 1.0, "nst": 1.0}, max_steps=1)
    soft = train("student", tmp_path / "soft", {"soft_label": 1.0}, max_steps=1)
    hidden = train("student", tmp_path / "hidden", {"nst": 1.0}, max_steps=1)
    batch = both.data_collator([both.train_dataset[i] for i in range(4)])

    def taught(trainer):
        return {name for name in trainer.model_inputs(batch) if name.startswith("teacher")}

    assert taught(both) == {"teacher_states", "teacher_logits"}
    assert taught(soft) == {"teacher_logits"} and not soft.model.distillation_heads
    assert taught(hidden) == {"teacher_states"}
    logits = soft.model_inputs(batch)["teacher_logits"]
    everywhere = soft.teacher_model.text_model(batch["input_ids"], batch["attention_mask"]).logits
    expected = everywhere.gather(1, batch["masked_positions"][..., None].expand(-1, -1, everywhere.shape[-1]))
    torch.testing.assert_close(logits, expected)


def construct(tmp_path, student, teacher, tokenizer, objectives=None, **arguments):
    args = DistillationConfig(
        output_dir=str(tmp_path), objectives={"crd": 1.0} if objectives is None else objectives, use_cpu=True,
        report_to="none", **arguments,
    )  # fmt: skip
    return DistillationTrainer(
        model=student, teacher_model=teacher, args=args, train_dataset=make_texts(20), processing_class=tokenizer
    )


def test_students_and_teachers_that_do_not_fit_are_errors_at_construction(tmp_path, tokenizer):
    other = make_tokenizer([f"word{i}" for i in range(50)])
    renamed = make_tokenizer([f"other{i}" for i in range(60)])
    wide = {**MINI, "hidden_size": 48}
    with pytest.raises(ValueError, match="teacher's vocabulary has 65 tokens, the student's 55"):
        construct(tmp_path, make_student(other), make_teacher(tokenizer), other)
    with pytest.raises(ValueError, match="need a teacher"):
        construct(tmp_path, make_student(tokenizer), None, tokenizer)
    with pytest.raises(ValueError, match="VidLanKDStudent.from_pretrained"):
        construct(tmp_path, make_student(tokenizer).export(), make_teacher(tokenizer), tokenizer)
    with pytest.raises(ValueError, match="tokenizer has 65 tokens.*embeddings for 55"):
        construct(tmp_path, make_student(other), make_teacher(tokenizer), tokenizer)
    with pytest.raises(ValueError, match="at least 2 sequences"):
        construct(tmp_path, make_student(tokenizer), make_teacher(tokenizer), tokenizer, per_device_train_batch_size=1)

    taught = train("teacher", tmp_path / "t", max_steps=1).model
    with pytest.raises(ValueError, match="another vocabulary"):
        construct(tmp_path, make_student(tokenizer), taught, renamed)

    student = make_student(tokenizer)
    student.add_objectives({"crd": 1.0}, teacher_hidden_size=32)
    with pytest.raises(ValueError, match="width 32.*48"):
        construct(tmp_path, student, make_teacher(tokenizer, shape=wide), tokenizer)
    for other in ({"nst": 1.0}, {"crd": 2.0}, {}):
        with pytest.raises(ValueError, match="made for the objectives .*crd.*remove_objectives"):
            construct(tmp_path, student, make_teacher(tokenizer), tokenizer, other)
    student.remove_objectives()
    assert (
        construct(tmp_path, student, make_teacher(tokenizer), tokenizer, {"nst": 1.0}).model.loss_terms["nst"][0] == 1
    )

    shifted = make_config(tokenizer)
    shifted.pad_token_id = 3
    with pytest.raises(ValueError, match="padding token has id 0 for the teacher and 3"):
        construct(tmp_path, VidLanKDStudent(shifted), make_teacher(tokenizer), tokenizer)


def test_student_can_start_from_the_teachers_text_encoder(tokenizer):
    teacher = make_teacher(tokenizer).eval()
    student = VidLanKDStudent.from_teacher(teacher).eval()
    ids = torch.arange(5, 25)[None]
    assert torch.equal(student(input_ids=ids).logits, teacher.text_model(input_ids=ids).logits)
    student.bert.embeddings.word_embeddings.weight.data.zero_()
    assert teacher.text_model.bert.embeddings.word_embeddings.weight.abs().sum() > 0, "a copy"


def test_soft_labels_from_a_teacher_without_mlm_are_an_error(tmp_path, tokenizer):
    with pytest.raises(ValueError, match="losses='contrast'.*nst, crd"):
        train("student", tmp_path, {"soft_label": 1.0}, teacher=make_teacher(tokenizer, losses="contrast"))


def test_heads_missing_from_a_checkpoint_are_an_error(tmp_path):
    train("student", tmp_path, {"nst": 1.0}).save_model()
    (tmp_path / "distillation" / "heads.safetensors").unlink()
    with pytest.raises(ValueError, match="recipe.json but no heads.safetensors.*restore it"):
        VidLanKDStudent.from_pretrained(tmp_path)


def test_heads_load_from_the_subfolder_of_their_student(tmp_path):
    for name, objective in (("", "nst"), ("inner", "crd")):
        train("student", tmp_path / name, {objective: 1.0}).save_model()
    for name, objective in (("", "nst"), ("inner", "crd")):
        assert list(VidLanKDStudent.from_pretrained(tmp_path, subfolder=name).objectives) == [objective]


def test_heads_have_the_dtype_of_their_student(tokenizer):
    student = make_student(tokenizer).to(torch.bfloat16)
    student.add_objectives({"nst": 1.0}, 32)
    assert {p.dtype for p in student.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    "objectives, width, message",
    [({"crd": {"weight": 1.0, "head": False}}, 48, "remove 'head': false"),
     ({"mlm_like": 1.0}, 48, "unknown objective"),
     ({"nst": 1.0}, None, "nst compare token states: give teacher_hidden_size")],
)  # fmt: skip
def test_refused_objectives_leave_the_student_unchanged(tokenizer, objectives, width, message):
    student = make_student(tokenizer)
    with pytest.raises(ValueError, match=message):
        student.add_objectives(objectives, width)
    assert not student.objectives and not student.distillation_heads and not hasattr(student.config, "distillation")
    student.add_objectives({"crd": 1.0}, 48)
    assert list(student.objectives) == ["crd"]


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_blocks_longer_than_a_model_can_read_are_an_error_at_construction(tmp_path, tokenizer, who):
    short = {**MINI, "max_position_embeddings": 16}
    teacher = make_teacher(tokenizer, shape=short if who == "teacher" else MINI)
    with pytest.raises(ValueError, match=f"22 tokens.*the {who} reads at most 16: give --block_tokens 14"):
        train("student", tmp_path, {"nst": 1.0}, teacher=teacher, shape=short if who == "student" else MINI,
              texts=make_texts(50, lengths=(20, 21)))  # fmt: skip


def test_text_only_baseline_needs_no_teacher_and_has_no_heads(tmp_path):
    trainer = train("student", tmp_path, {})
    assert list(trainer.model.distillation_heads) == []
    trainer.save_model()
    assert not (tmp_path / "distillation").exists()
