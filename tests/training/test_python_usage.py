"""What users of `transformers`, `datasets` and `peft` try first in Python works, or is refused with the remedy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from helpers import (
    MINI,
    WORDS,
    example,
    logged,
    make_student,
    make_teacher,
    make_texts,
    make_tokenizer,
    make_video_text,
    train,
)
from torch import nn
from transformers import AutoModelForMaskedLM, TrainingArguments

from vidlankd_hf import (
    DistillationConfig,
    DistillationTrainer,
    TeacherConfig,
    TeacherTrainer,
    VidLanKDStudent,
    load_teacher,
    load_text_blocks,
)
from vidlankd_hf.data.text_blocks import TextBlocks
from vidlankd_hf.models.losses import OBJECTIVES, CRDLoss

COMMON = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "max_steps": 2,
          "logging_steps": 1, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 4}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    return tmp_path / "datasets-cache"


def sentences(count=200, seed=0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(WORDS[i] for i in rng.integers(0, len(WORDS), 20)) for _ in range(count)]


def distill(folder, objectives=None, model=None, tokenizer=None, arguments=None, **given):
    tokenizer = tokenizer or make_tokenizer()
    given.setdefault("train_dataset", make_texts(40))
    return DistillationTrainer(
        model=make_student(tokenizer) if model is None else model,
        args=DistillationConfig(output_dir=str(folder), objectives=objectives or {}, **COMMON, **(arguments or {})),
        processing_class=tokenizer,
        **given,
    )


# ---- data ----


def test_dataset_of_texts_is_tokenized_once_into_blocks(tmp_path, cache):
    texts, held_out = Dataset.from_dict({"text": sentences()}), Dataset.from_dict({"text": sentences(60, seed=1)})
    trainer = distill(tmp_path / "run", train_dataset=texts, eval_dataset={"held_out": held_out})
    blocks = trainer.train_dataset.dataset
    assert isinstance(blocks, TextBlocks) and isinstance(trainer.eval_dataset["held_out"], TextBlocks)
    expected = load_text_blocks(texts, make_tokenizer(), tmp_path / "other")
    assert np.array_equal(blocks.array, expected.array) and blocks.array.shape[1] == 126
    assert blocks.folder.parent == cache / "vidlankd"
    trainer.train()
    assert logged(trainer, "loss")[0]["loss"] > 0 and trainer.evaluate()["eval_held_out_loss"] > 0
    written = (blocks.folder / "info.json").stat().st_mtime_ns
    distill(tmp_path / "again", train_dataset=Dataset.from_dict({"text": sentences()}))
    assert (blocks.folder / "info.json").stat().st_mtime_ns == written and len(
        list((cache / "vidlankd").iterdir())
    ) == 2


def test_blocks_of_texts_are_as_long_as_student_and_teacher_read(tmp_path):
    tokenizer = make_tokenizer()
    teacher = make_teacher(tokenizer, shape={**MINI, "max_position_embeddings": 32})
    texts = Dataset.from_dict({"text": sentences()})
    trainer = distill(tmp_path, {"nst": 1.0}, teacher_model=teacher, train_dataset=texts)
    assert trainer.train_dataset.dataset.array.shape[1] == 30


@pytest.mark.parametrize(
    "options, found",
    [
        ({}, r"\[0\] hold special tokens \(\[CLS\] first, \[SEP\] last\)"),
        ({"padding": "max_length", "max_length": 40}, r"\[0\] hold padding"),
        ({"add_special_tokens": False, "padding": True}, r"hold padding"),
        ({"add_special_tokens": False, "padding": True, "return_attention_mask": False}, r"hold padding"),
    ],
)
@pytest.mark.parametrize("which", ["train_dataset", "eval_dataset"])
def test_ids_with_special_tokens_or_padding_are_refused(tmp_path, options, found, which):
    tokenizer = make_tokenizer()
    tokenizer.post_processor = None
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    texts = [text if i % 3 else text[:40] for i, text in enumerate(sentences(30))]
    data = Dataset.from_dict({"text": texts}).map(lambda batch: tokenizer(batch["text"], **options), batched=True)
    with pytest.raises(ValueError, match=f"input_ids of {which}.*{found}, which the collator adds.*column `text`"):
        distill(tmp_path, tokenizer=tokenizer, **{which: data})


def test_ids_without_special_tokens_train_as_plain_lists_do(tmp_path):
    tokenizer = make_tokenizer()
    data = Dataset.from_dict({"text": sentences(40)}).map(
        lambda batch: tokenizer(batch["text"], add_special_tokens=False), batched=True
    )
    losses = []
    for rows in (data, [{"input_ids": row["input_ids"]} for row in data], data.with_format("torch")):
        trainer = distill(tmp_path / str(len(losses)), train_dataset=rows)
        trainer.train()
        losses.append(logged(trainer, "loss"))
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize(
    "data, message",
    [
        (Dataset.from_dict({"sentence": ["a"]}), "train_dataset has sentence, but no input_ids: give a datasets.Data"),
        ([{"text": "a"}], "train_dataset has text, but no input_ids: give a datasets.Dataset with a column `text`"),
        ("corpus.txt", "train_dataset is a str.*load_text_blocks"),
        (DatasetDict({"train": Dataset.from_dict({"text": ["a"]})}), "train_dataset is a DatasetDict.*give one split"),
    ],
)
def test_data_of_another_form_are_refused(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        distill(tmp_path, train_dataset=data)


WITHOUT_DATASETS = """
import sys
for name in ("datasets", "pyarrow", "evaluate", "deepspeed", "av", "PIL"):
    sys.modules[name] = None  # an import of it fails

from helpers import make_student, make_teacher, make_texts, make_tokenizer
from vidlankd_hf import DistillationConfig, DistillationTrainer, TeacherConfig, TeacherTrainer

tokenizer = make_tokenizer()
common = dict(use_cpu=True, report_to="none", save_strategy="no", max_steps=1, per_device_train_batch_size=4)
trainer = DistillationTrainer(
    model=make_student(tokenizer), teacher_model=make_teacher(tokenizer), train_dataset=make_texts(8),
    args=DistillationConfig(sys.argv[1], objectives={"nst": 1.0}, **common), processing_class=tokenizer,
)
trainer.train()
clips = [
    {"id": f"v{i}", "text": "word1 word2", "video_features": [[0.5] * 6] * (i + 1)} for i in range(8)
]
trainer = TeacherTrainer(make_teacher(tokenizer), TeacherConfig(sys.argv[1], **common), clips,
                         processing_class=tokenizer)
trainer.train()
print("trained", trainer.state.global_step)
"""


@pytest.mark.slow
def test_trainers_need_neither_datasets_nor_decoders(tmp_path):
    """A machine for training may have torch and transformers alone."""
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DATASETS, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tests.parent}:{tests}"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "trained 1" in done.stdout


# ---- arguments and models ----


@pytest.mark.parametrize("given", [TrainingArguments, TeacherConfig])
def test_arguments_of_another_class_are_refused(tmp_path, given):
    tokenizer, args = make_tokenizer(), given(str(tmp_path), use_cpu=True, report_to="none")
    with pytest.raises(ValueError, match=f"args is a {given.__name__}, but.*DistillationConfig.*same fields"):
        DistillationTrainer(make_student(tokenizer), args=args, processing_class=tokenizer)
    if given is TrainingArguments:
        with pytest.raises(ValueError, match="args is a TrainingArguments, but.*TeacherConfig.*same fields"):
            TeacherTrainer(make_teacher(tokenizer), args, processing_class=tokenizer)


def test_script_names_a_teacher_that_does_not_exist_before_it_opens_the_run(tmp_path, monkeypatch):
    words = f"distill --text corpus.txt --teacher {tmp_path}/none --output_dir {tmp_path}/run --use_cpu true"
    monkeypatch.setattr("sys.argv", words.split())
    with pytest.raises(ValueError, match=f"{tmp_path}/none does not exist: give the folder of the teacher"):
        example("distill").main()
    assert not (tmp_path / "run").exists()


def adapter():
    return type("LoraLayer", (nn.Linear,), {"__module__": "peft.tuners.lora.layer"})(32, 32)


class PeftModelStandIn(nn.Module):
    def __init__(self, base_model):
        super().__init__()
        self.base_model = base_model


PeftModelStandIn.__module__ = "peft.peft_model"


@pytest.mark.parametrize("where", ["around", "inside"])
def test_adapters_of_peft_are_refused(tmp_path, where):
    tokenizer = make_tokenizer()
    student, teacher = make_student(tokenizer), make_teacher(tokenizer)
    if where == "around":
        student, teacher = PeftModelStandIn(student), PeftModelStandIn(teacher)
    else:
        student.bert.encoder.layer[0].attention.self.query = adapter()
        teacher.text_model.bert.encoder.layer[0].attention.self.query = adapter()
    with pytest.raises(ValueError, match="adapter of peft.*merge_and_unload"):
        distill(tmp_path, model=student)
    with pytest.raises(ValueError, match="adapter of peft.*merge_and_unload"):
        distill(tmp_path, {"nst": 1.0}, teacher_model=teacher)
    with pytest.raises(ValueError, match="adapter of peft.*merge_and_unload"):
        TeacherTrainer(
            model=teacher,
            args=TeacherConfig(str(tmp_path), **COMMON),
            train_dataset=make_video_text(20),
            processing_class=tokenizer,
        )


def test_teacher_is_accepted_under_its_old_name(tmp_path):
    teacher = make_teacher(make_tokenizer())
    with pytest.warns(FutureWarning, match="`teacher` is deprecated: use `teacher_model`"):
        trainer = distill(tmp_path, {"nst": 1.0}, teacher=teacher)
    assert trainer.teacher_model is teacher
    with pytest.warns(FutureWarning), pytest.raises(ValueError, match="both teacher_model and teacher are given"):
        distill(tmp_path, {"nst": 1.0}, teacher=teacher, teacher_model=teacher)


@pytest.mark.parametrize("load", [load_teacher, VidLanKDStudent.from_pretrained])
@pytest.mark.parametrize("path", ["./missing", "/no/such", "outputs/deep/missing", "runs/missing", "~/no-such"])
def test_folder_that_does_not_exist_is_named_without_asking_the_hub(tmp_path, monkeypatch, load, path):
    def no_request(*args, **kwargs):
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", no_request)
    monkeypatch.setattr("transformers.utils.hub.hf_hub_download", no_request)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(ValueError, match=f"^{path} does not exist: give the folder"):
        load(path)


@pytest.mark.parametrize("load", [load_teacher, VidLanKDStudent.from_pretrained])
def test_folder_of_an_unfinished_run_is_named_as_one(tmp_path, load):
    (tmp_path / "checkpoint-20").mkdir()
    with pytest.raises(ValueError, match=f"^{tmp_path} has no config.json.*has not finished"):
        load(tmp_path)


# ---- objectives ----


class Distance(nn.Module):
    """Scaled by a weight that training learns."""

    mean_over, needs = "tokens", frozenset({"hidden"})

    def __init__(self, power=2.0):
        super().__init__()
        self.power, self.scale = power, nn.Parameter(torch.ones(()))

    def forward(self, student_states, teacher_states, mask):
        distance = (student_states - teacher_states).abs().pow(self.power).sum(-1) * self.scale
        return (distance * mask).sum() / mask.sum()


@pytest.mark.parametrize("form", ["instance", "pair", "dict"])
def test_instance_of_your_own_class_trains_resumes_exports_and_loads_again(tmp_path, form):
    def objectives():
        loss = Distance(1.5)
        own = {"instance": loss, "pair": (1.0, loss), "dict": {"loss": loss, "weight": 1.0}}[form]
        return {"distance": own, "regression": 2.0}

    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    trainer = train("student", tmp_path, objectives(), **options)
    names = ("loss", "distance_loss", "regression_loss", "grad_norm")
    resumed = train("student", tmp_path, objectives(), **options, resume=str(tmp_path / "checkpoint-2"))
    assert logged(resumed, *names) == logged(trainer, *names) and logged(trainer, *names)[0]["distance_loss"] > 0
    scale = trainer.model.objectives["distance"].scale.detach()
    assert scale != 1

    trainer.save_model()
    recipe = json.loads((tmp_path / "distillation" / "recipe.json").read_text())["objectives"]
    assert recipe["distance"] == {"weight": 1.0, "class": f"{Distance.__module__}.Distance"}
    assert json.loads(trainer.args.to_json_string())["objectives"] == recipe
    plain, info = AutoModelForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()) and type(plain).__name__ == "BertForMaskedLM"
    for folder in (tmp_path, tmp_path / "checkpoint-4"):
        with pytest.raises(ValueError, match=r"of your own \(.*Distance\).*objectives=\{'distance': Distance"):
            VidLanKDStudent.from_pretrained(folder)
        again = VidLanKDStudent.from_pretrained(folder, objectives={"distance": Distance(1.5)})
        assert isinstance(again.objectives["distance"], Distance) and again.objectives["distance"].scale == scale
        for name, tensor in trainer.model.state_dict().items():
            assert torch.equal(again.state_dict()[name], tensor), name


def test_instance_weighs_as_much_as_its_registered_class(tmp_path, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "registered", Distance)
    mine = train("student", tmp_path / "a", {"mine": (3.0, Distance())}, gradient_accumulation_steps=2)
    known = train("student", tmp_path / "b", {"registered": 3.0}, gradient_accumulation_steps=2)
    assert logged(mine, "loss", "grad_norm") == logged(known, "loss", "grad_norm")


def test_two_instances_of_a_known_class_can_have_other_names(tmp_path):
    warm = {"crd": 1.0, "crd_warm": (1.0, CRDLoss(temperature=1.0))}
    losses = logged(train("student", tmp_path, warm, max_steps=1), "crd_loss", "crd_warm_loss")[0]
    assert losses["crd_loss"] != losses["crd_warm_loss"]


class Silent(nn.Module):
    def forward(self, student_states, teacher_states, mask):
        return student_states.sum()


@pytest.mark.parametrize(
    "objectives, message",
    [
        ({"mine": Silent()}, "'mine': Silent has needs None and mean_over None. Set `needs`.*'tokens', 'sequences'"),
        ({"mine": Distance}, "'mine' has loss <class .*Distance'>: give an instance"),
        ({"nst": Distance()}, "'nst' is a NSTLoss, but a Distance was given: give it another name"),
        ({"mine": {"loss": Distance(), "power": 3}}, "give the options {'power': 3} to its constructor"),
        ({"mine": {"loss": Distance(), "weight": -1}}, "'mine' has weight -1: give a number greater than 0"),
        ({"mine": 1.0}, "unknown objective 'mine'.*or give an instance of your own class: {'mine': MyLoss()"),
    ],
)
def test_instance_that_cannot_be_an_objective_is_refused(objectives, message):
    with pytest.raises(ValueError, match=message):
        DistillationConfig("never-written", objectives=objectives, use_cpu=True)
