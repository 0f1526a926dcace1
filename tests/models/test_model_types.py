"""RoBERTa and ModernBERT students."""

import json

import pytest
import torch
from helpers import logged, make_student, make_teacher, make_tokenizer, train
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, BertConfig, ModernBertConfig, RobertaConfig

from vidlankd_hf import VidLanKDStudent, student_class, student_config
from vidlankd_hf.models.student import STUDENTS

KINDS = ["roberta", "modernbert"]
PLAIN = {"bert": "BertForMaskedLM", "roberta": "RobertaForMaskedLM", "modernbert": "ModernBertForMaskedLM"}
OBJECTIVES = {"nst": 30.0, "crd": 1.0, "soft_label": 1.0}


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_accumulation_changes_neither_loss_nor_gradient_on_ragged_batches(tmp_path, kind):
    objectives = {"nst": 30.0, "regression": 1.0, "soft_label": 1.0}
    runs = [
        train("student", tmp_path / str(ga), objectives, student_model_type=kind, per_device_train_batch_size=16 // ga,
              gradient_accumulation_steps=ga, max_steps=4)
        for ga in (1, 4)
    ]  # fmt: skip
    names = ("loss", "grad_norm", "mlm_loss", "nst_loss", "regression_loss", "soft_label_loss")
    for a, b in zip(*(logged(run, *names) for run in runs), strict=True):
        assert a == pytest.approx(b, rel=2e-5) and min(a.values()) > 0


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_neither_loss_nor_gradient(tmp_path, kind, implementation):
    """Also far from all real tokens, where ModernBERT's local attention only sees padding."""
    trainer = train("student", tmp_path, OBJECTIVES, student_model_type=kind, max_steps=1)
    trainer.model.set_attn_implementation(implementation)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    assert not batch["attention_mask"].all()
    padded = {
        **batch,
        "input_ids": torch.nn.functional.pad(batch["input_ids"], (0, 40), value=trainer.processing_class.pad_token_id),
        "attention_mask": torch.nn.functional.pad(batch["attention_mask"], (0, 40)),
    }
    seen = []
    for inputs in (batch, padded):
        trainer.model.zero_grad()
        output = trainer.model.eval()(**trainer.model_inputs(inputs))
        output.loss.backward()
        seen.append((output.losses, {n: p.grad.clone() for n, p in trainer.model.named_parameters()}))
    assert set(seen[0][0]) == {"mlm", *OBJECTIVES}
    torch.testing.assert_close(*seen, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_run_equals_uninterrupted_run_bit_for_bit(tmp_path, kind):
    options = {"objectives": OBJECTIVES, "student_model_type": kind, "dropout": 0.1, "max_steps": 6,
               "save_strategy": "steps", "save_steps": 3}  # fmt: skip
    whole = train("student", tmp_path / "whole", **options)
    train("student", tmp_path / "parts", **options, stop_after=3)
    resumed = train("student", tmp_path / "parts", **options, resume=str(tmp_path / "parts" / "checkpoint-3"))
    names = ("loss", "grad_norm", *(f"{name}_loss" for name in ("mlm", *OBJECTIVES)))
    assert logged(whole, *names)[3:] == logged(resumed, *names)[3:]
    for (name, a), b in zip(whole.model.state_dict().items(), resumed.model.state_dict().values()):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("kind", KINDS)
def test_run_saves_a_plain_model_and_its_recipe_and_heads(tmp_path, kind):
    trainer = train("student", tmp_path, OBJECTIVES, student_model_type=kind, save_strategy="steps", save_steps=3)
    trainer.save_model()
    student = trainer.model.eval()
    plain, info = AutoModelForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()) and type(plain).__name__ == PLAIN[kind]
    assert student.export().config.architectures == [PLAIN[kind]]
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [PLAIN[kind]]
    ids, mask = torch.randint(5, 60, (2, 9)), torch.tensor([9 * [1], 6 * [1] + 3 * [0]])
    logits = plain.eval()(input_ids=ids, attention_mask=mask).logits
    assert torch.equal(logits, student(input_ids=ids, attention_mask=mask).logits)
    assert f"A `{PLAIN[kind]}` (" in (tmp_path / "README.md").read_text()

    for folder in (tmp_path, tmp_path / "checkpoint-3"):
        loaded = student_class(kind).from_pretrained(folder)
        assert loaded.loss_terms == student.loss_terms
        assert all(torch.equal(student.state_dict()[n], t) for n, t in loaded.state_dict().items())
    _, info = AutoModelForMaskedLM.from_pretrained(tmp_path / "checkpoint-3", output_loading_info=True)
    assert not info["missing_keys"] and all(key.startswith("distillation_heads.") for key in info["unexpected_keys"])


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_of_encoder_and_heads_is_trained(tmp_path, kind):
    train("student", tmp_path, OBJECTIVES, student_model_type=kind, save_strategy="steps", save_steps=1)
    first, last = (load_file(tmp_path / f"checkpoint-{step}" / "model.safetensors") for step in (1, 3))
    assert [name for name in first if torch.equal(first[name], last[name])] == []


@pytest.mark.parametrize("kind", STUDENTS)
def test_students_load_plain_checkpoints_of_their_model_type_only(tmp_path, tokenizer, kind):
    plain = make_student(tokenizer, seed=7, model_type=kind).export()
    plain.save_pretrained(tmp_path)
    student, info = student_class(kind).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()) and not student.objectives
    assert all(torch.equal(plain.state_dict()[n], t) for n, t in student.state_dict().items())
    student.add_objectives(OBJECTIVES, teacher_hidden_size=48)
    epsilons = {head.layers[2].eps for head in student.distillation_heads.values()}
    assert epsilons == {1e-5 if kind == "modernbert" else 1e-12}
    for other in set(STUDENTS) - {kind}:
        with pytest.raises(ValueError, match=f"is a {kind} checkpoint.*use {STUDENTS[kind].__name__}.from_pretrained"):
            student_class(other).from_pretrained(tmp_path)


def test_other_model_types_are_refused(tmp_path, tokenizer):
    with pytest.raises(ValueError, match="model type 'electra': choose one of bert, roberta, modernbert"):
        student_class("electra")
    with pytest.raises(ValueError, match="model type 'electra': choose one of bert, roberta, modernbert"):
        student_config("small", tokenizer, "electra")
    make_teacher(tokenizer).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no student of model type 'vidlankd_teacher'"):
        VidLanKDStudent.from_pretrained(tmp_path)


def test_new_students_take_vocabulary_size_and_special_ids_from_the_tokenizer(tokenizer):
    classes = {"bert": BertConfig, "roberta": RobertaConfig, "modernbert": ModernBertConfig}
    for kind, config_class in classes.items():
        config = student_config("small", tokenizer, kind)
        assert type(config) is config_class
        assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (6, 512, 8)
        assert (config.vocab_size, config.pad_token_id) == (len(tokenizer), tokenizer.pad_token_id)
        if kind != "bert":
            assert (config.bos_token_id, config.eos_token_id) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert (config.cls_token_id, config.sep_token_id) == (tokenizer.cls_token_id, tokenizer.sep_token_id)


@pytest.mark.parametrize("kind", STUDENTS)
def test_new_students_read_texts_of_512_tokens(tokenizer, kind):
    """RoBERTa numbers its positions from the padding token's id + 1."""
    student = make_student(tokenizer, model_type=kind).eval()
    assert student(input_ids=torch.full((1, 512), 7)).logits.shape == (1, 512, len(tokenizer))
