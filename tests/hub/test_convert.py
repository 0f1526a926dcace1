"""Checkpoints in the layout of the original release become models of this package."""

import json
import os
import pickle
import shutil

import pytest
import torch
from helpers import MINI, make_tokenizer
from torch import nn
from transformers import AutoModelForMaskedLM, BertConfig, BertForMaskedLM, BertModel

from vidlankd_hf import VidLanKDTeacher, load_teacher
from vidlankd_hf.hub.convert import convert

FEATURES, PROJECTION, POSITIONS = 12, 10, 40
CONFIG = {**MINI, "vocab_size": 65, "pad_token_id": 0, "max_position_embeddings": POSITIONS, "num_hidden_layers": 2}


def head(name: str) -> dict[str, torch.Tensor]:
    size = CONFIG["hidden_size"]
    return {f"{name}.dense.weight": torch.randn(size, size), f"{name}.layer_norm.bias": torch.randn(size)}


def released(folder, heads=(), video=False):
    """Writes files as the release does; returns its text model, and the parts of its video model."""
    torch.manual_seed(0)
    folder.mkdir()
    text = BertForMaskedLM(BertConfig(**CONFIG)).eval()
    pooler = BertModel(BertConfig(**CONFIG)).pooler.state_dict()
    weights = {**text.state_dict(), **{f"bert.pooler.{name}": value for name, value in pooler.items()}}
    weights["bert.embeddings.position_ids"] = torch.arange(POSITIONS)[None]
    for name in heads:
        weights |= head(name)
    torch.save(weights, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)  # as files of that time
    kept = {**CONFIG, "model_type": "bert", "architectures": ["CoLwithBert"], "voken_size": None, "margin": 0.5}
    (folder / "config.json").write_text(json.dumps(kept))
    if not video:
        return text, None
    size = CONFIG["hidden_size"]
    parts = nn.ModuleDict({
        "backbone": nn.ModuleDict({
            "bert": BertModel(BertConfig(**CONFIG)),
            "video_encoder": nn.ModuleDict({
                "new_video_embeddings": nn.Sequential(nn.Linear(FEATURES, PROJECTION), nn.Linear(PROJECTION, size))
            }),
        }),
        "mlp_map": nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Dropout(0.3), nn.Linear(size, size)),
    }).eval()  # fmt: skip
    torch.save({f"module.{name}": value for name, value in parts.state_dict().items()}, folder / "visn_model.chkpt")
    return text, parts


def test_student_becomes_a_plain_bert_with_the_same_predictions(tmp_path):
    heads = ("kd1_student_head", "kd2_student_head", "kd2_teacher_head")
    text, _ = released(tmp_path / "old", heads)
    make_tokenizer().save_pretrained(tmp_path / "old-tokenizer")
    conversion = convert(tmp_path / "old", tmp_path / "new", tmp_path / "old-tokenizer")
    assert conversion.kind == "student"
    model, info = AutoModelForMaskedLM.from_pretrained(tmp_path / "new", output_loading_info=True)
    assert not any(info.values()) and type(model) is BertForMaskedLM
    ids = torch.arange(5, 25).view(2, 10)
    torch.testing.assert_close(model.eval()(ids).logits, text(ids).logits)
    report = json.loads((tmp_path / "new" / "conversion.json").read_text())
    assert {name.split(".")[0] for name in report["dropped"]} == {"bert", "cls", *heads}
    assert report["mapped"]["bert.encoder.layer.1.output.dense.weight"] == "bert.encoder.layer.1.output.dense.weight"
    assert len(report["mapped"]) + len(report["dropped"]) == len(
        torch.load(tmp_path / "old" / "pytorch_model.bin", weights_only=True)
    ), "every weight is accounted for"
    assert "kd1_student_head.dense.weight" in str(conversion) and (tmp_path / "new" / "README.md").is_file()
    assert (tmp_path / "new" / "tokenizer.json").is_file()


def test_teacher_is_converted_with_the_same_text_states_and_every_video_weight_in_its_place(tmp_path):
    text, video = released(tmp_path / "old", ("visual_hinge_head",), video=True)
    make_tokenizer().save_pretrained(tmp_path / "old")
    conversion = convert(tmp_path / "old", tmp_path / "new")
    teacher = load_teacher(tmp_path / "new").eval()
    assert conversion.kind == "teacher" and type(teacher) is VidLanKDTeacher and teacher.config.vocabulary
    ids = torch.arange(5, 25).view(2, 10)
    torch.testing.assert_close(teacher.encode_text(ids), text.bert(ids).last_hidden_state)

    features, steps = torch.randn(2, 7, FEATURES), torch.arange(7)
    frames = video["backbone"]["video_encoder"]["new_video_embeddings"](features)
    types = torch.ones(2, 7, dtype=torch.long)
    states = video["backbone"]["bert"](inputs_embeds=frames, token_type_ids=types, position_ids=steps[None])[0]
    expected = torch.nn.functional.normalize(video["mlp_map"](states.mean(1)), dim=-1)
    torch.testing.assert_close(teacher.encode_video(features), expected)
    assert teacher.config.video_config.max_position_embeddings == POSITIONS
    assert conversion.mapped["mlp_map.3.weight"] == "video_encoder.head.3.weight"
    assert {"visual_hinge_head.dense.weight", "backbone.bert.pooler.dense.weight"} <= set(conversion.dropped)
    assert "averaged over time" in str(conversion)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "visn_model.chkpt"])
def test_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    released(tmp_path / "old", video=True)
    torch.save({"bert.weight": torch.zeros(1), "x": Hostile()}, tmp_path / "old" / name)
    with pytest.raises(ValueError, match=f"{name} is damaged or holds more than tensors"):
        convert(tmp_path / "old", tmp_path / "new")
    (tmp_path / "old" / name).write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(ValueError, match=f"{name} is damaged or holds more than tensors"):
        convert(tmp_path / "old", tmp_path / "new")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "new").exists()


def change(folder, do) -> None:
    path = folder / "pytorch_model.bin"
    weights = torch.load(path, weights_only=True)
    do(weights)
    torch.save(weights, path)


@pytest.mark.parametrize(
    "do, message",
    [
        (
            lambda w: w.pop("bert.encoder.layer.0.output.dense.bias"),
            "lacks 1 weight, .*layer.0.output.dense.bias.*complete",
        ),
        (
            lambda w: w.update({"cls.predictions.bias": torch.zeros(3)}),
            "cls.predictions.decoder.bias differs from cls.predictions.bias",
        ),
        (lambda w: w.update({"bert.embeddings.LayerNorm.bias": torch.zeros(3)}), r"LayerNorm.bias has shape \[3\]"),
        (lambda w: w.update({"epoch": 3}), "not a state dict"),
    ],
)
def test_incomplete_checkpoint_is_an_error(tmp_path, do, message):
    released(tmp_path / "old")
    change(tmp_path / "old", do)
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "old", tmp_path / "new")


def test_what_is_unknown_is_dropped_by_name_and_nothing_is_overwritten(tmp_path):
    released(tmp_path / "old")
    change(tmp_path / "old", lambda weights: weights.update({"someones.head": torch.zeros(2)}))
    assert convert(tmp_path / "old", tmp_path / "new").dropped["someones.head"] == "not a weight of this package"
    with pytest.raises(ValueError, match="is not empty"):
        convert(tmp_path / "old", tmp_path / "new")
    shutil.rmtree(tmp_path / "new")
    (tmp_path / "old" / "config.json").unlink()
    with pytest.raises(ValueError, match="has no config.json"):
        convert(tmp_path / "old", tmp_path / "new")
    make_tokenizer([f"word{i}" for i in range(99)]).save_pretrained(tmp_path / "big")
    (tmp_path / "old" / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(ValueError, match="104 tokens.*embeddings for 65"):
        convert(tmp_path / "old", tmp_path / "new", tmp_path / "big")
