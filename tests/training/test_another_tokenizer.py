"""A student learns from a teacher with another tokenizer, by segments of the text that both read."""

import numpy as np
import pytest
import torch
from aligned_data import AlignedTexts, TokensAsSegments, make_teacher_tokenizer
from helpers import MINI, WORDS, logged, make_student, make_teacher, make_texts, make_tokenizer, train
from transformers import CLIPTextConfig, CLIPTextModel

from vidlankd_hf import DistillationConfig, DistillationTrainer
from vidlankd_hf.data.collators import TextCollator
from vidlankd_hf.training.build import build_student, choose_tokenizers

OBJECTIVES = {"nst": 10.0, "crd": 1.0, "infonce": 1.0, "regression": 1.0}
COMMON = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "per_device_train_batch_size": 4}


def make_clip_text_tower(tokenizer, layers: int = 2):
    """A causal text encoder, whose last hidden state is the last layer's after a norm."""
    torch.manual_seed(3)
    shape = {**MINI, "num_hidden_layers": layers, "vocab_size": len(tokenizer)}
    return CLIPTextModel(CLIPTextConfig(**shape, eos_token_id=tokenizer.sep_token_id)).eval()


def construct(folder, objectives=None, teacher=None, teacher_tokenizer=None, data=None, eval_data=None, student=None,
              **arguments):  # fmt: skip
    tokenizer, teacher_tokenizer = make_tokenizer(), teacher_tokenizer or make_teacher_tokenizer()
    objectives = OBJECTIVES if objectives is None else objectives
    return DistillationTrainer(
        model=student or make_student(tokenizer, dropout=0.0),
        teacher_model=teacher or make_teacher(teacher_tokenizer, dropout=0.0),
        args=DistillationConfig(output_dir=str(folder), objectives=objectives, **COMMON, **arguments),
        train_dataset=AlignedTexts(20) if data is None else data,
        eval_dataset=eval_data,
        processing_class=tokenizer,
        teacher_tokenizer=teacher_tokenizer,
    )


def batch_of(trainer, count=4):
    return trainer.data_collator([trainer.train_dataset[i] for i in range(count)])


def naive_teacher_states(trainer, batch, states_of, last=False):
    """`[B, S, D]`: every window is read alone, and the states of each segment's tokens are averaged in a loop."""
    ids, mask = batch["teacher_input_ids"], batch.get("teacher_attention_mask")
    mask = torch.ones_like(ids) if mask is None else mask
    flat = torch.zeros(*ids.shape, MINI["hidden_size"])
    with torch.no_grad():
        for window in range(len(ids)):
            real = mask[window].bool()
            flat[window, real] = states_of(ids[window : window + 1, real])
    flat, pooled = flat.flatten(0, 1), torch.zeros(*batch["segment_mask"].shape, MINI["hidden_size"])
    for b, row in enumerate(batch["segment_mask"]):
        for segment in range(int(row.sum())):
            places = batch["teacher_positions"][b][batch["teacher_segments"][b] == segment]
            pooled[b, segment] = flat[places[-1]] if last else flat[places].mean(0)
    return pooled


def test_teacher_reads_its_own_tokens_in_windows_and_teaches_the_means_of_segments(tmp_path):
    trainer = construct(tmp_path)
    batch, teacher = batch_of(trainer), trainer.teacher_model
    assert len(batch["teacher_input_ids"]) > len(batch["input_ids"]), "some texts take several windows"
    inputs = trainer.model_inputs(batch)
    expected = naive_teacher_states(trainer, batch, lambda ids: teacher(ids).last_hidden_state)
    torch.testing.assert_close(inputs["teacher_states"], expected, rtol=1e-4, atol=1e-5)
    assert not {"teacher_input_ids", "teacher_positions", "teacher_segments"} & set(inputs)
    assert torch.equal(inputs["segments"], batch["segments"])


def test_student_learns_from_a_teacher_with_another_tokenizer(tmp_path):
    trainer = train("student", tmp_path, OBJECTIVES, aligned=True, max_steps=60, learning_rate=2e-3)
    steps = logged(trainer, "crd_loss", "regression_loss", "infonce_loss")
    for name in ("crd_loss", "regression_loss", "infonce_loss"):
        assert steps[-1][name] < 0.9 * steps[0][name]
    assert trainer.evaluate()["eval_crd_loss"] > 0


def test_causal_teacher_teaches_the_last_token_of_a_segment_and_nothing_at_its_first(tmp_path):
    teacher = make_clip_text_tower(make_teacher_tokenizer())
    trainer = construct(tmp_path, teacher=teacher)
    batch = batch_of(trainer)
    assert trainer.teacher_pooling == "last" and (batch["segments"][:, 0] == -1).all()
    expected = naive_teacher_states(trainer, batch, lambda ids: teacher(ids).last_hidden_state, last=True)
    torch.testing.assert_close(trainer.model_inputs(batch)["teacher_states"], expected, rtol=1e-4, atol=1e-5)
    mean = construct(tmp_path, teacher=teacher, teacher_pooling="mean")
    expected = naive_teacher_states(trainer, batch, lambda ids: teacher(ids).last_hidden_state)
    torch.testing.assert_close(mean.model_inputs(batch)["teacher_states"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer, chosen", [(-1, [2]), (2, [2]), (-2, [1]), (0, [0]), ([-3, 1, -1], [0, 1, 2])])
def test_layers_are_counted_from_the_embeddings_and_several_are_averaged(tmp_path, layer, chosen):
    """The last layer is the one after the final norm, although the model lists it without."""
    teacher = make_clip_text_tower(make_teacher_tokenizer())

    def states_of(ids):
        output = teacher(ids, output_hidden_states=True)
        assert not torch.allclose(output.hidden_states[-1], output.last_hidden_state)
        return torch.stack([(*output.hidden_states[:2], output.last_hidden_state)[i] for i in chosen]).mean(0)

    trainer = construct(tmp_path, teacher=teacher, teacher_layer=layer, teacher_pooling="mean")
    batch = batch_of(trainer)
    expected = naive_teacher_states(trainer, batch, states_of)
    torch.testing.assert_close(trainer.model_inputs(batch)["teacher_states"], expected, rtol=1e-4, atol=1e-5)


def test_layers_of_a_teacher_of_this_package_can_be_chosen_too(tmp_path):
    tokenizer = make_tokenizer()
    teacher = make_teacher(tokenizer, dropout=0.0, shape={**MINI, "num_hidden_layers": 3}).eval()
    trainer = train("student", tmp_path, OBJECTIVES, teacher=teacher, teacher_layer=[-2, -1], max_steps=1)
    batch = batch_of(trainer)
    states = teacher.text_model.base_model(
        batch["input_ids"], batch["attention_mask"], output_hidden_states=True
    ).hidden_states
    torch.testing.assert_close(trainer.model_inputs(batch)["teacher_states"], (states[-2] + states[-1]) / 2)


def test_hidden_states_are_asked_for_only_if_another_layer_than_the_last_teaches(tmp_path, monkeypatch):
    seen = []
    for layer in (-1, -2):
        trainer = construct(tmp_path, teacher=make_clip_text_tower(make_teacher_tokenizer()), teacher_layer=layer)
        trainer.teacher_model.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(kwargs.get("output_hidden_states", False)), with_kwargs=True
        )
        trainer.model_inputs(batch_of(trainer))
    assert seen == [False, True]


def test_forced_segments_give_the_losses_of_the_same_tokenizer_reading_clean_text(tmp_path):
    """The tokens of both are the segments, so pooling must change nothing, whatever is padded."""
    tokenizer, texts = (
        make_teacher_tokenizer(WORDS),
        TokensAsSegments(40, teacher_tokenizer=make_teacher_tokenizer(WORDS)),
    )
    plain = [{"input_ids": row["input_ids"]} for row in texts.rows]
    runs = []
    for data, arguments in ((texts, {}), (plain, {"teacher_input": "clean"})):
        trainer = DistillationTrainer(
            model=make_student(tokenizer, dropout=0.0),
            teacher_model=make_teacher(tokenizer, dropout=0.0),
            args=DistillationConfig(
                output_dir=str(tmp_path / str(len(runs))), objectives=OBJECTIVES, **COMMON, **arguments, max_steps=5,
                logging_steps=1, save_strategy="no",
            ),
            train_dataset=data,
            processing_class=tokenizer,
            teacher_tokenizer=tokenizer,
        )  # fmt: skip
        trainer.train()
        runs.append(trainer)
    names = ("loss", "grad_norm", "mlm_loss", *(f"{name}_loss" for name in OBJECTIVES))
    assert "segments" in batch_of(runs[0]) and "segments" not in batch_of(runs[1])
    for ours, expected in zip(*(logged(run, *names) for run in runs), strict=True):
        assert ours == pytest.approx(expected, rel=1e-5)


def test_teacher_reads_the_text_without_masks_if_asked(tmp_path):
    options = {"objectives": {"nst": 1.0}, "max_steps": 1}
    masked, clean = (train("student", tmp_path / kind, teacher_input=kind, **options) for kind in ("masked", "clean"))
    samples = [masked.train_dataset[i] for i in range(4)]
    seen = [run._teacher_inputs(run.data_collator(samples))["input_ids"] for run in (masked, clean)]
    assert not torch.equal(*seen)
    for row, sample in zip(seen[1], samples):
        assert row[1 : len(sample["input_ids"]) + 1].tolist() == sample["input_ids"].tolist()
    batch = clean.data_collator(samples)
    expected = clean.teacher_model(seen[1], batch["attention_mask"]).last_hidden_state
    torch.testing.assert_close(clean.model_inputs(batch)["teacher_states"], expected)
    clean.data_collator = TextCollator(make_tokenizer())
    with pytest.raises(ValueError, match="no teacher_input_ids: use the TextCollator"):
        clean.model_inputs(batch_of(clean))


# ---- tokenizers of student and teacher ----


@pytest.fixture
def saved(tmp_path):
    """Folders of a teacher, of a teacher whose tokenizer has no mask token, and of a student with another one."""
    other, tokenizer = make_teacher_tokenizer(), make_tokenizer()
    make_teacher(other).save_pretrained(tmp_path / "teacher")
    other.save_pretrained(tmp_path / "teacher")
    bare = make_teacher_tokenizer()
    bare.mask_token = bare.pad_token = None
    make_clip_text_tower(bare).save_pretrained(tmp_path / "clip")
    bare.save_pretrained(tmp_path / "clip")
    make_student(tokenizer).export().save_pretrained(tmp_path / "student")
    tokenizer.save_pretrained(tmp_path / "student")
    return {name: str(tmp_path / name) for name in ("teacher", "clip", "student")}


def test_checkpoint_keeps_its_tokenizer_and_a_new_student_gets_the_teachers_or_the_given_one(saved):
    ours, theirs = choose_tokenizers(saved["student"], saved["teacher"])
    assert (len(ours), len(theirs)) == (65, 45)
    student = build_student(saved["student"], saved["teacher"], tokenizer=ours)
    assert student.config.vocab_size == 65

    ours, theirs = choose_tokenizers("tiny", saved["teacher"])
    assert len(ours) == 45 and theirs is None
    assert build_student("tiny", saved["teacher"], tokenizer=ours).config.vocab_size == 45

    for teacher in ("teacher", "clip"):
        ours, theirs = choose_tokenizers("tiny", saved[teacher], saved["student"])
        assert (len(ours), len(theirs)) == (65, 45)
        assert build_student("tiny", saved[teacher], "roberta", ours).config.vocab_size == 65
    assert choose_tokenizers(saved["student"], saved["student"])[1] is None


def test_tokenizers_that_a_student_cannot_use_are_refused(saved):
    with pytest.raises(ValueError, match="clip has no mask, pad token, which a student needs: give --tokenizer"):
        choose_tokenizers("tiny", saved["clip"])
    with pytest.raises(ValueError, match="is a checkpoint, which has its own tokenizer: leave --tok"):
        choose_tokenizers(saved["student"], saved["teacher"], saved["teacher"])


def test_teacher_that_is_on_its_devices_already_stays_there(tmp_path, monkeypatch):
    """`from_pretrained` places a model that is quantized or spread over devices, and refuses to move it again."""
    teacher = make_clip_text_tower(make_teacher_tokenizer())
    teacher.hf_device_map = {"embeddings": "cpu", "encoder": "cpu"}
    monkeypatch.setattr(teacher, "to", None)
    trainer = construct(tmp_path, teacher=teacher)
    assert trainer.model_inputs(batch_of(trainer))["teacher_states"].isfinite().all()


# ---- what does not fit ----


class Voken(AlignedTexts):
    num_vokens = 7

    def __getitem__(self, index):
        row = super().__getitem__(index)
        return {**row, "voken_ids": row["input_ids"] % 7}


def test_vokens_belong_to_the_students_tokens_and_work_with_any_teacher(tmp_path):
    objectives = {"voken": {"weight": 1.0, "num_vokens": 7}, "nst": 10.0}
    trainer = construct(tmp_path, objectives, data=Voken(20), max_steps=2, save_strategy="no")
    trainer.train()
    batch = batch_of(trainer)
    output = trainer.model.eval()(**trainer.model_inputs(batch))
    logits = trainer.model.distillation_heads["voken"](output.last_hidden_state)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["voken_ids"].flatten(), ignore_index=-100)
    torch.testing.assert_close(output.losses["voken"], expected)


@pytest.mark.parametrize(
    "given, message",
    [
        (
            {"objectives": {"soft_label": 1.0}},
            "soft_label compares .* another tokenizer: distill its states",
        ),
        ({"teacher_input": "masked"}, "teacher_input is 'masked', but .* leave teacher_input out"),
        (
            {"data": make_texts(20)},
            "train_dataset is not aligned .* a column `text`, or load_text",
        ),
        ({"eval_data": make_texts(9)}, "eval_dataset is not aligned"),
        ({"eval_data": {"a": AlignedTexts(9), "b": make_texts(9)}}, r"eval_dataset\['b'\] is not aligned"),
        ({"data": AlignedTexts(20, teacher_tokenizer=make_teacher_tokenizer(WORDS[:30]))}, "aligned with another tok"),
        ({"teacher_layer": 5}, "teacher_layer is 5, but this teacher has 1 layers: give -2 to 1"),
        ({"teacher_layer": [1, -1]}, "a layer occurs twice"),
        ({"teacher": make_teacher(make_tokenizer(WORDS[:20]))}, "tokenizer has 45 tokens, but the teacher .* 25"),
    ],
)
def test_what_does_not_fit_a_teacher_with_another_tokenizer_is_an_error_at_construction(tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        construct(tmp_path, **given)


def test_data_prepared_for_longer_windows_than_the_teacher_reads_are_refused(tmp_path):
    data = AlignedTexts(20)
    data.info["alignment"]["teacher_length"] = 78
    teacher = make_clip_text_tower(make_teacher_tokenizer())
    with pytest.raises(ValueError, match="reads 78 tokens at once, .* at most 77: .*teacher_length=77"):
        construct(tmp_path, teacher=teacher, data=data)


def test_aligned_data_need_the_teachers_tokenizer_and_options_that_have_an_effect(tmp_path):
    tokenizer = make_tokenizer()
    given = {"model": make_student(tokenizer), "teacher_model": make_teacher(tokenizer), "processing_class": tokenizer}
    for data, arguments, message in (
        (AlignedTexts(20), {}, "is aligned with a teacher's own tokenizer: give this tokenizer as teacher_tokenizer"),
        (make_texts(20), {"teacher_pooling": "last"}, "teacher_pooling is 'last', but the teacher has the student's"),
    ):
        args = DistillationConfig(output_dir=str(tmp_path), objectives={"nst": 1.0}, **COMMON, **arguments)
        with pytest.raises(ValueError, match=message):
            DistillationTrainer(args=args, train_dataset=data, **given)
    args = DistillationConfig(
        output_dir=str(tmp_path), objectives={"soft_label": 1.0}, teacher_input="clean", **COMMON
    )
    given["model"] = make_student(tokenizer)
    with pytest.raises(ValueError, match="predictions of masked tokens, but with teacher_input 'clean'"):
        DistillationTrainer(args=args, train_dataset=make_texts(20), **given)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"teacher_input": "noisy"}, "teacher_input is 'noisy': choose masked or clean"),
        ({"teacher_pooling": "max"}, "teacher_pooling is 'max': choose mean or last"),
        ({"teacher_layer": []}, r"teacher_layer is \[\]: give the number of a layer"),
        ({"teacher_layer": "all"}, "teacher_layer is 'all'"),
        ({"teacher_layer": [-1, -1]}, r"teacher_layer is \[-1, -1\]: give each layer once"),
    ],
)
def test_wrong_options_are_refused_at_once(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        DistillationConfig(output_dir=str(tmp_path), **COMMON, **arguments)


def test_run_is_not_resumed_with_another_teacher_tokenizer_or_layer(tmp_path):
    saved = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    train("student", tmp_path, {"nst": 1.0}, aligned=True, **saved)
    with pytest.raises(ValueError, match=r"teacher_layer was \[-1\] and is now \[-2\]"):
        train("student", tmp_path, {"nst": 1.0}, aligned=True, resume=True, teacher_layer=-2, **saved)
    swapped = make_teacher_tokenizer([*WORDS[1:40], WORDS[0]])
    trainer = construct(tmp_path, {"nst": 1.0}, teacher_tokenizer=swapped, data=AlignedTexts(50, 0, swapped), **saved,
                        seed=5, learning_rate=1e-3)  # fmt: skip
    with pytest.raises(ValueError, match="teacher_tokenizer was [0-9a-f]{12} and is now"):
        trainer.train(resume_from_checkpoint=True)


def test_run_with_a_teacher_of_another_tokenizer_resumes_bit_for_bit(tmp_path):
    options = {"aligned": True, "dropout": 0.1, "max_steps": 6, "gradient_accumulation_steps": 2,
               "dataloader_num_workers": 1, "save_strategy": "steps", "save_steps": 3}  # fmt: skip
    whole = train("student", tmp_path / "whole", {"nst": 30.0, "crd": 1.0}, **options)
    train("student", tmp_path / "cut", {"nst": 30.0, "crd": 1.0}, stop_after=3, **options)
    resumed = train("student", tmp_path / "cut", {"nst": 30.0, "crd": 1.0}, resume=True, **options)
    names = ("loss", "grad_norm", "mlm_loss", "nst_loss", "crd_loss")
    assert logged(whole, *names) == logged(resumed, *names) and len(logged(whole, *names)) == 6
    weights = zip(whole.model.state_dict().values(), resumed.model.state_dict().values())
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in weights)
