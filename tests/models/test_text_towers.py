"""Any text encoder can be a teacher: a BERT, or the text encoder of a vision-language model."""

import gc
import json
import logging

import pytest
import torch
from helpers import (
    MINI,
    logged,
    make_student,
    make_teacher,
    make_texts,
    make_tokenizer,
    make_vision_language_model,
    train,
)
from safetensors.torch import load_file, save_file
from transformers import (
    AlignVisionModel,
    BertModel,
    FlavaImageModel,
    ViltConfig,
    ViltModel,
    ViTConfig,
    ViTModel,
)

from vidlankd_hf import DistillationConfig, DistillationTrainer, VidLanKDTeacher, load_teacher

VISION = {"flava": FlavaImageModel, "align": AlignVisionModel}


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def same_weights(a, b) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", ["flava", "flava_for_pretraining", "align"])
def test_only_the_text_encoder_of_a_vision_language_checkpoint_is_loaded(
    tmp_path, tokenizer, name, monkeypatch, caplog
):
    model = make_vision_language_model(name, tokenizer)
    text = model.flava.text_model if name == "flava_for_pretraining" else model.text_model
    model.save_pretrained(tmp_path / "whole")
    text.save_pretrained(tmp_path / "tower")
    vision = VISION[name.partition("_")[0]]
    before = sum(type(o) is vision for o in gc.get_objects())
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    loaded = load_teacher(tmp_path / "whole")
    assert caplog.text == "", "weights that are not loaded are not listed"
    gc.collect()
    assert sum(type(o) is vision for o in gc.get_objects()) == before
    for teacher in (loaded, load_teacher(tmp_path / "tower")):
        assert type(teacher) is type(text) and same_weights(teacher, text)
    assert load_teacher(tmp_path / "whole", dtype="bfloat16").dtype == torch.bfloat16


def test_teachers_and_berts_load_as_they_are(tmp_path, tokenizer):
    teacher = make_teacher(tokenizer)
    teacher.save_pretrained(tmp_path / "teacher")
    loaded = load_teacher(tmp_path / "teacher")
    assert type(loaded) is VidLanKDTeacher and same_weights(loaded, teacher)
    teacher.text_model.save_pretrained(tmp_path / "bert")
    bert = load_teacher(tmp_path / "bert")
    ids = torch.randint(5, 60, (2, 9))
    assert type(bert) is BertModel
    assert torch.equal(bert(ids).last_hidden_state, teacher.eval().encode_text(ids))


def test_models_that_read_no_text_or_lack_its_weights_are_refused(tmp_path, tokenizer):
    ViTModel(ViTConfig(**MINI, image_size=32)).save_pretrained(tmp_path / "vit")
    with pytest.raises(ValueError, match="a ViTModel, which reads no text: give a VidLanKDTeacher, a text encoder"):
        load_teacher(tmp_path / "vit")
    make_vision_language_model("align", tokenizer).save_pretrained(tmp_path / "align")
    file = tmp_path / "align" / "model.safetensors"
    weights = {k: v for k, v in load_file(file).items() if "text_model.encoder" not in k}
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks weights of its text encoder, such as text_model.encoder.layer.0"):
        load_teacher(tmp_path / "align")


def test_a_model_that_needs_more_than_text_is_refused_with_its_own_reason(tmp_path):
    ViltModel(ViltConfig(**MINI, image_size=32, vocab_size=30)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a ViltModel, cannot read token ids alone .*pixel_values.*: give"):
        load_teacher(tmp_path)


def test_a_model_whose_code_is_in_its_folder_is_refused_without_running_it(tmp_path):
    config = {"model_type": "unknown", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(ValueError, match="Code in a model's folder is never run: give a VidLanKDTeacher"):
        load_teacher(tmp_path)


def test_weights_have_the_dtype_asked_for(tmp_path, tokenizer, monkeypatch):
    make_vision_language_model("flava", tokenizer).save_pretrained(tmp_path)
    for dtype in (torch.float32, "float16", torch.bfloat16):
        assert str(load_teacher(tmp_path, dtype=dtype).dtype).endswith(str(dtype).removeprefix("torch."))
    with pytest.raises(ValueError, match="dtype is float8: choose one of float32, float16, bfloat16, int8"):
        load_teacher(tmp_path, dtype="float8")
    monkeypatch.setattr("vidlankd_hf.models.load_teacher.is_bitsandbytes_available", lambda: False)
    with pytest.raises(ValueError, match="needs the package bitsandbytes: install it"):
        load_teacher(tmp_path, dtype="int8")


def test_int8_teacher_gives_almost_the_same_states(tmp_path, tokenizer):
    pytest.importorskip("bitsandbytes")
    model = make_vision_language_model("flava", tokenizer).eval()
    model.save_pretrained(tmp_path)
    teacher, ids = load_teacher(tmp_path, dtype="int8"), torch.randint(5, 60, (4, 9))
    assert teacher.encoder.layer[0].attention.attention.query.weight.dtype == torch.int8
    with torch.no_grad():
        exact, found = model.text_model(ids).last_hidden_state, teacher(ids.to(teacher.device)).last_hidden_state
    assert torch.cosine_similarity(exact, found.float().cpu(), dim=-1).min() > 0.98


@pytest.mark.parametrize("name, kind", [("flava", "roberta"), ("align", "modernbert"), ("flava", "bert")])
def test_student_learns_the_states_of_a_text_encoder(tmp_path, tokenizer, name, kind):
    make_vision_language_model(name, tokenizer).save_pretrained(tmp_path / "teacher")
    teacher = load_teacher(tmp_path / "teacher").train()
    before = {n: t.clone() for n, t in teacher.state_dict().items()}
    trainer = train("student", tmp_path / "run", {"nst": 100.0, "crd": 1.0, "regression": 1.0}, teacher=teacher,
                    student_model_type=kind, max_steps=40)  # fmt: skip
    steps = logged(trainer, "mlm_loss", "nst_loss", "crd_loss", "regression_loss")
    assert steps[-1]["crd_loss"] < 0.85 * steps[0]["crd_loss"]
    assert steps[-1]["regression_loss"] < 0.85 * steps[0]["regression_loss"]
    assert (
        all(torch.equal(before[n], t) for n, t in trainer.teacher_model.state_dict().items()) and not teacher.training
    )

    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    taught = trainer.model_inputs(batch)["teacher_states"]
    for row, (ids, mask) in enumerate(zip(batch["input_ids"], batch["attention_mask"].bool())):
        alone = teacher(input_ids=ids[mask][None]).last_hidden_state[0]
        torch.testing.assert_close(taught[row, mask], alone, rtol=1e-4, atol=1e-5)
    trainer.save_model()
    card = (tmp_path / "run" / "README.md").read_text()
    assert f"knowledge distilled from a {type(teacher).__name__} (1 x crd" in card and "from video" not in card


def test_gradient_accumulation_changes_no_loss_with_a_text_encoder_as_teacher(tmp_path, tokenizer):
    runs = [
        train("student", tmp_path / str(ga), {"nst": 30.0, "regression": 1.0}, student_model_type="roberta",
              teacher=make_vision_language_model("flava", tokenizer).text_model,
              per_device_train_batch_size=16 // ga, gradient_accumulation_steps=ga)
        for ga in (1, 4)
    ]  # fmt: skip
    names = ("loss", "grad_norm", "mlm_loss", "nst_loss", "regression_loss")
    for a, b in zip(*(logged(run, *names) for run in runs), strict=True):
        assert a == pytest.approx(b, rel=2e-5)


def test_students_and_teachers_that_do_not_fit_are_errors_at_construction(tmp_path, tokenizer):
    def construct(teacher, objectives):
        args = DistillationConfig(output_dir=str(tmp_path), objectives=objectives, use_cpu=True, report_to="none")
        DistillationTrainer(
            model=make_student(tokenizer, model_type="roberta"), teacher_model=teacher, args=args,
            train_dataset=make_texts(20), processing_class=tokenizer,
        )  # fmt: skip

    flava = make_vision_language_model("flava", tokenizer)
    with pytest.raises(ValueError, match="soft_label needs a teacher with a language-model head.*FlavaTextModel"):
        construct(flava.text_model, {"nst": 1.0, "soft_label": 1.0})
    with pytest.raises(ValueError, match="is a FlavaModel.*give that part, model.text_model"):
        construct(flava, {"nst": 1.0})
    with pytest.raises(ValueError, match="is a BertForMaskedLM.*give that part, model.bert"):
        construct(make_student(tokenizer).export(), {"nst": 1.0})
    with pytest.raises(ValueError, match="is a FlavaImageModel, which reads no text"):
        construct(flava.image_model, {"nst": 1.0})
    other = make_vision_language_model("flava", make_tokenizer([f"word{i}" for i in range(80)]))
    with pytest.raises(ValueError, match="teacher's vocabulary has 85 tokens, the student's 65"):
        construct(other.text_model, {"nst": 1.0})
    shifted = make_vision_language_model("align", tokenizer).text_model
    shifted.config.pad_token_id = 3
    with pytest.raises(ValueError, match="padding token has id 3 for the teacher and 0"):
        construct(shifted, {"nst": 1.0})
