"""Checkpoints of the original release as models of this package: what maps, what is dropped, and why.

The release keeps a run's text encoder in `pytorch_model.bin` (a BERT of its time with heads of its own), beside
`config.json`, and a teacher's video encoder in `visn_model.chkpt` (saved below a wrapper, so every name begins with
`module.`). Both are pickles; they are read with `weights_only`, which runs no code in them.
"""

import json
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData
from torch import Tensor
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, PreTrainedModel

from ..data.vocabulary import vocabulary_fingerprint
from ..models.configuration import VidLanKDTeacherConfig
from ..models.teacher import VidLanKDTeacher, video_config_like
from .model_cards import CITATION

TEXT_FILE, VIDEO_FILE, CONFIG_FILE, REPORT_FILE = (
    "pytorch_model.bin",
    "visn_model.chkpt",
    "config.json",
    "conversion.json",
)
# Beginnings of names in the release -> why a weight of that name has no place here.
DROPPED = {
    "bert.embeddings.position_ids": "counts positions, which is not learned",
    "bert.pooler.": "a masked language model has no pooler, and none of the losses trained this one",
    "cls.predictions.decoder.": "tied to the word embeddings and the head's bias",
    "visual_hinge_head.": "a teacher's head that no loss used",
    "kd1_student_head.": "a distillation head: shed after distillation",
    "kd2_student_head.": "a distillation head: shed after distillation",
    "kd2_teacher_head.": "a distillation head: shed after distillation",
    "backbone.bert.embeddings.word_embeddings.": "frames are not words",
    "backbone.bert.embeddings.position_ids": "counts positions, which is not learned",
    "backbone.bert.pooler.": "the release pools by its first frame; here the mean over time is taken",
}
VIDEO_NAMES = {
    "backbone.video_encoder.new_video_embeddings.": "projection.",
    "backbone.bert.embeddings.": "transformer.embeddings.",
    "backbone.bert.encoder.": "transformer.encoder.",
    "mlp_map.": "head.",
}
TOKEN_TYPES = "transformer.embeddings.token_type_embeddings.weight"
NOTES = {
    "student": "Its states and predictions are the release's.",
    "teacher": (
        "Its text states and predictions are the release's. Its clip vectors are not: the release adds positions "
        "twice and takes the first frame, through a pooler; here clips are averaged over time. By its code the "
        "release's video transformer was never trained, only the layers behind it."
    ),
}


@dataclass
class Conversion:
    """What became of a checkpoint.

    Args:
        kind: `"teacher"` or `"student"`.
        mapped: The release's name of a weight -> its name here.
        dropped: The release's name of a weight -> why it has no place here.
        note: How the outputs compare with the release's.
    """

    kind: str
    mapped: dict[str, str]
    dropped: dict[str, str]
    note: str

    def __str__(self) -> str:
        reasons: dict[str, list[str]] = {}
        for name, why in self.dropped.items():
            reasons.setdefault(why, []).append(name)
        lines = [f"{self.kind}: {len(self.mapped)} weights mapped, {len(self.dropped)} dropped."]
        lines += [f"  dropped {', '.join(names)}: {why}" for why, names in reasons.items()]
        return "\n".join([*lines, self.note])


def convert(folder: str | Path, output_dir: str | Path, tokenizer: str | Path | None = None) -> Conversion:
    """Writes a checkpoint of the original release as a folder that loads here: a teacher if it has a video encoder.

    Args:
        folder: With `pytorch_model.bin` and `config.json`; with `visn_model.chkpt` it is a teacher, else a student,
            which becomes a plain `BertForMaskedLM`.
        output_dir: A new or empty folder, for the model, its tokenizer, a card and `conversion.json`.
        tokenizer: Folder or Hub id; default: the one in `folder`.

    Raises:
        ValueError: Files that are missing or hold more than tensors, weights that are missing or of other shapes, a
            decoder that is not tied, a tokenizer of another size, or an `output_dir` that holds something.
    """
    folder, output_dir = Path(folder), Path(output_dir)
    if output_dir.exists() and any(output_dir.iterdir()):
        raise ValueError(f"{output_dir} is not empty: choose another output_dir")
    for name in (TEXT_FILE, CONFIG_FILE):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}: give the folder of one checkpoint of the original release")
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
        with torch.no_grad():  # frames are of token type 1 in the release, of type 0 here
            types = model.get_parameter(f"video_encoder.{TOKEN_TYPES}")
            types.copy_(types.flip(0))
    conversion = Conversion(kind, mapped, dropped, NOTES[kind])
    _save(model, conversion, output_dir, tokenizer or folder, required=tokenizer is not None)
    return conversion


def _load(path: Path) -> dict[str, Tensor]:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{path} is damaged or holds more than tensors, which could run code, and was not loaded: {first}"
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{path} is no state dict: it must hold tensors by name")
    return weights


def _bert_config(path: Path) -> BertConfig:
    """The BERT in the release's configuration, whose other fields are of its heads."""
    given = json.loads(path.read_text(encoding="utf-8"))
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
            raise ValueError(f"{path} has a {name} of its own, but here it is tied to {tied}")


def _teacher(text: BertForMaskedLM, video: dict[str, Tensor], path: Path) -> VidLanKDTeacher:
    """A teacher with this text encoder, and a video encoder of the shape that the weights have."""
    first = video.get("backbone.video_encoder.new_video_embeddings.0.weight")
    positions = video.get("backbone.bert.embeddings.position_embeddings.weight")
    if first is None or positions is None:
        raise ValueError(f"{path} is no video encoder of the original release: it lacks its first layer or positions")
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
    """Loads what has a place in `module`; returns what was mapped and what was dropped, by the release's names."""
    held = module.state_dict()
    mapped, dropped = {}, {}
    for name, here in names.items():
        why = next((why for beginning, why in DROPPED.items() if name.startswith(beginning)), None)
        if why is None and here in held:
            mapped[name] = here
        else:
            dropped[name] = why or "no such weight here"
    # Tied weights are filled by what they are tied to; features were not standardised in the release.
    tied = {name for name in held if name.startswith("cls.predictions.decoder.")}
    missing = sorted(set(held) - set(mapped.values()) - tied - {"feature_mean", "feature_std"})
    if missing:
        raise ValueError(f"the checkpoint lacks {len(missing)} weights, such as {missing[0]}: it is not whole")
    for name, here in mapped.items():
        if weights[name].shape != held[here].shape:
            raise ValueError(
                f"{name} has shape {list(weights[name].shape)}, but the configuration asks for "
                f"{list(held[here].shape)}"
            )
    module.load_state_dict({here: weights[name].float() for name, here in mapped.items()}, strict=False)
    return mapped, dropped


def _save(model: PreTrainedModel, conversion: Conversion, output_dir: Path, tokenizer, required: bool) -> None:
    output_dir.mkdir(parents=True, exist_ok=True)
    if required or any((Path(tokenizer) / name).is_file() for name in ("vocab.txt", "tokenizer.json")):
        loaded = AutoTokenizer.from_pretrained(tokenizer)
        if len(loaded) > model.config.vocab_size:
            raise ValueError(
                f"{tokenizer} has {len(loaded)} tokens, but the checkpoint has embeddings for "
                f"{model.config.vocab_size}: give the tokenizer that it was trained with"
            )
        if conversion.kind == "teacher":
            model.config.vocabulary = vocabulary_fingerprint(loaded)
        loaded.save_pretrained(output_dir)
    model.save_pretrained(output_dir)
    (output_dir / REPORT_FILE).write_text(json.dumps(asdict(conversion), indent=1) + "\n", encoding="utf-8")
    data = ModelCardData(library_name="transformers", tags=["vidlankd", "converted"])
    content = (
        f"---\n{data.to_yaml()}\n---\n\n# {output_dir.resolve().name}\n\nA {conversion.kind} of the original release "
        f"of [VidLanKD](https://arxiv.org/abs/2107.02681), converted by vidlankd_hf. {conversion.note}\n\n"
        f"{len(conversion.mapped)} weights were mapped, {len(conversion.dropped)} dropped; `{REPORT_FILE}` names "
        "each. It has what its training data hold, their errors and biases included.\n\n"
        f"## Citation\n\n```bibtex\n{CITATION}\n```\n"
    )
    ModelCard(content).save(output_dir / "README.md")
