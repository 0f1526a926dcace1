"""Converts checkpoints of the original release to models of this package.

The release stores a text encoder (a BERT with extra heads) as `pytorch_model.bin` with `config.json`, and a teacher's
video encoder as `visn_model.chkpt`, whose weight names all begin with `module.`. Both files are pickles; they are read
with `weights_only`, so no code in them runs.
"""

import json
import pickle
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel

from ..data.vocabulary import load_tokenizer, vocabulary_fingerprint
from ..models.configuration import VidLanKDTeacherConfig, video_config_like
from ..models.teacher import VidLanKDTeacher
from ..utils.json_files import read_json
from ..utils.messages import number_of
from .model_cards import CARD_FILE, TEMPLATES

TEXT_FILE, VIDEO_FILE = "pytorch_model.bin", "visn_model.chkpt"
CONFIG_FILE, REPORT_FILE = "config.json", "conversion.json"
# Prefix of a weight's name in the release -> why the weight is dropped.
DROPPED = {
    "bert.embeddings.position_ids": "position numbers, which are not trained",
    "bert.pooler.": "a masked language model has no pooler, and no loss of the release trained this one",
    "cls.predictions.decoder.": "tied to the word embeddings and the head's bias",
    "visual_hinge_head.": "a teacher's head that no loss used",
    "kd": "a distillation head, not needed after distillation",
    "backbone.bert.embeddings.word_embeddings.": "video frames have no word embeddings",
    "backbone.bert.embeddings.position_ids": "position numbers, which are not trained",
    "backbone.bert.pooler.": "the release pools the first frame; this package averages over time",
}
VIDEO_NAMES = {
    "backbone.video_encoder.new_video_embeddings.": "projection.",
    "backbone.bert.embeddings.": "transformer.embeddings.",
    "backbone.bert.encoder.": "transformer.encoder.",
    "mlp_map.": "head.",
}
TOKEN_TYPES = "transformer.embeddings.token_type_embeddings.weight"
NOTES = {
    "student": "Its states and predictions equal those of the release.",
    "teacher": (
        "Its text states and predictions equal those of the release. Its clip vectors do not: the release adds "
        "positions twice and pools the first frame; here clips are averaged over time. According to its code, the "
        "release never trained its video transformer, only the layers after it."
    ),
}


@dataclass
class Conversion:
    """Report of a conversion.

    Args:
        kind: `"teacher"` or `"student"`.
        mapped: Name of each converted weight in the release -> its name here.
        dropped: Name of each dropped weight in the release -> the reason.
        note: How the outputs compare with those of the release.
    """

    kind: str
    mapped: dict[str, str]
    dropped: dict[str, str]
    note: str

    def __str__(self) -> str:
        reasons: dict[str, list[str]] = {}
        for name, why in self.dropped.items():
            reasons.setdefault(why, []).append(name)
        lines = [f"{self.kind}: {number_of(len(self.mapped), 'weight')} mapped, {len(self.dropped)} dropped."]
        lines += [f"  dropped {', '.join(names)}: {why}" for why, names in reasons.items()]
        return "\n".join([*lines, self.note])


def convert(folder: str | Path, output_dir: str | Path, tokenizer: str | Path | None = None) -> Conversion:
    """Converts a checkpoint of the original release to a folder that `from_pretrained` loads.

    Args:
        folder: Checkpoint with `pytorch_model.bin` and `config.json`. With `visn_model.chkpt` it becomes a teacher,
            otherwise a student, which is a plain `BertForMaskedLM`.
        output_dir: New or empty folder for the model, its tokenizer, a card and `conversion.json`.
        tokenizer: Folder or Hub id of the tokenizer; default: the one in `folder`.

    Returns:
        The weights that were mapped and dropped.

    Raises:
        ValueError: A file is missing or holds more than tensors, weights are missing or have other shapes, the
            decoder is not tied, the tokenizer has too many tokens, or `output_dir` is not empty.
    """
    folder, output_dir = Path(folder), Path(output_dir)
    if output_dir.exists() and any(output_dir.iterdir()):
        raise ValueError(f"{output_dir} is not empty: choose another output_dir")
    for name in (TEXT_FILE, CONFIG_FILE):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}: give the folder of a checkpoint of the original release")
    config = _bert_config(folder / CONFIG_FILE)
    weights = _load(folder / TEXT_FILE)
    _check_tied(weights, folder / TEXT_FILE)
    text = BertForMaskedLM(config)
    model: Any = text
    mapped, dropped = _fill(text, {name: name for name in weights}, weights)
    kind = "student"
    if (folder / VIDEO_FILE).is_file():
        video = {name.removeprefix("module."): value for name, value in _load(folder / VIDEO_FILE).items()}
        kind, model = "teacher", _teacher(text, video, folder / VIDEO_FILE)
        names = {name: _video_name(name) for name in video}
        video_mapped, video_dropped = _fill(model.video_encoder, names, video)
        mapped = {name: f"text_model.{here}" for name, here in mapped.items()}
        mapped |= {name: f"video_encoder.{here}" for name, here in video_mapped.items()}
        dropped |= video_dropped
        with torch.no_grad():  # frames have token type 1 in the release, 0 here
            types = model.get_parameter(f"video_encoder.{TOKEN_TYPES}")
            types.copy_(types.flip(0))
    conversion = Conversion(kind, mapped, dropped, NOTES[kind])
    _save(model, conversion, output_dir, tokenizer or folder, required=tokenizer is not None)
    return conversion


def _load(path: Path) -> dict[str, Tensor]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size, expanded = path.stat().st_size, sum(member.file_size for member in archive.infolist())
        if expanded > size:
            raise ValueError(
                f"{path} has {size:,} bytes and expands to {expanded:,}, but torch does not compress checkpoints: "
                "check where it comes from"
            )
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{path} is damaged or holds more than tensors, which could run code, and was not loaded: {first}"
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{path} is not a state dict: it must map names to tensors")
    return weights


def _bert_config(path: Path) -> BertConfig:
    """The BERT fields of the release's configuration; its other fields describe heads."""
    given = read_json(path, dict, f"give the checkpoint's own {path.name}")
    known = BertConfig().to_dict()
    own = ("architectures", "model_type", "transformers_version", "dtype")
    return BertConfig(**{name: value for name, value in given.items() if name in known and name not in own})


def _check_tied(weights: dict[str, Tensor], path: Path) -> None:
    pairs = (
        ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
        ("cls.predictions.decoder.bias", "cls.predictions.bias"),
    )
    for name, tied in pairs:
        if name in weights and tied in weights and not torch.equal(weights[name], weights[tied]):
            raise ValueError(
                f"{path} cannot be converted: its {name} differs from {tied}, and this package ties the two"
            )


def _teacher(text: BertForMaskedLM, video: dict[str, Tensor], path: Path) -> VidLanKDTeacher:
    """Builds a teacher with this text encoder and an empty video encoder that fits the weights."""
    first = video.get("backbone.video_encoder.new_video_embeddings.0.weight")
    positions = video.get("backbone.bert.embeddings.position_embeddings.weight")
    if first is None or positions is None:
        raise ValueError(
            f"{path} is not a video encoder of the original release (first layer or positions are missing): "
            "give the visn_model.chkpt of a teacher"
        )
    video_config = video_config_like(text.config, feature_size=first.shape[1])
    video_config.projection_size, video_config.max_position_embeddings = first.shape[0], len(positions)
    teacher = VidLanKDTeacher(
        VidLanKDTeacherConfig(text_config=text.config, video_config=video_config, contrast="hinge", margin=1.0)
    )
    teacher.text_model.load_state_dict(text.state_dict())
    return teacher


def _video_name(name: str) -> str:
    for theirs, ours in VIDEO_NAMES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _fill(module: torch.nn.Module, names: dict[str, str], weights: dict[str, Tensor]) -> tuple[dict, dict]:
    """Loads the weights that `module` has; returns mapped and dropped weights by their names in the release."""
    held = module.state_dict()
    mapped, dropped = {}, {}
    for name, here in names.items():
        why = next((why for beginning, why in DROPPED.items() if name.startswith(beginning)), None)
        if why is None and here in held:
            mapped[name] = here
        else:
            dropped[name] = why or "not a weight of this package"
    # Tied weights follow the weights they are tied to; the release did not standardize features.
    tied = {name for name in held if name.startswith("cls.predictions.decoder.")}
    missing = sorted(set(held) - set(mapped.values()) - tied - {"feature_mean", "feature_std"})
    if missing:
        raise ValueError(
            f"the checkpoint lacks {number_of(len(missing), 'weight')}, such as {missing[0]}: give a complete one"
        )
    for name, here in mapped.items():
        if weights[name].shape != held[here].shape:
            raise ValueError(
                f"{name} has shape {list(weights[name].shape)}, but {CONFIG_FILE} needs {list(held[here].shape)}: the "
                "two files must belong to one checkpoint"
            )
    module.load_state_dict({here: weights[name].float() for name, here in mapped.items()}, strict=False)
    return mapped, dropped


def _save(model: PreTrainedModel, conversion: Conversion, output_dir: Path, tokenizer, required: bool) -> None:
    output_dir.mkdir(parents=True, exist_ok=True)
    if required or any((Path(tokenizer) / name).is_file() for name in ("vocab.txt", "tokenizer.json")):
        loaded = load_tokenizer(tokenizer)
        if len(loaded) > model.config.vocab_size:
            raise ValueError(
                f"{tokenizer} has {len(loaded)} tokens, but the checkpoint has embeddings for "
                f"{model.config.vocab_size}: give the tokenizer that the checkpoint was trained with"
            )
        if conversion.kind == "teacher":
            model.config.vocabulary = vocabulary_fingerprint(loaded)
        loaded.save_pretrained(output_dir)
    model.save_pretrained(output_dir)
    (output_dir / REPORT_FILE).write_text(json.dumps(asdict(conversion), indent=1) + "\n", encoding="utf-8")
    ModelCard.from_template(
        ModelCardData(library_name="transformers", tags=["vidlankd", "converted"]),
        template_path=str(TEMPLATES / "converted.md"),
        name=output_dir.resolve().name,
        kind=conversion.kind,
        note=conversion.note,
        mapped=len(conversion.mapped),
        dropped=len(conversion.dropped),
        report=REPORT_FILE,
    ).save(output_dir / CARD_FILE)
