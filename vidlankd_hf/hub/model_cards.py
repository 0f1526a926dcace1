"""Model cards of teachers, students and fine-tuned models: the templates in `templates/`, filled from the run."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..data.stored_alignment import describe_alignment
from ..data.text_blocks import TextBlocks
from ..models.configuration import SIZES
from ..utils.json_files import read_json
from .curves import draw_losses
from .run_metadata import held_out_metrics, is_hub_id, public_name, settings_of, training_rows

TEMPLATES = Path(__file__).parent / "templates"
CARD_FILE, FIGURE_FILE, PROBE_FILE = "README.md", "losses.png", "probe.json"

CONTRASTS = {
    "infonce": "a contrastive loss that matches each token's state with its own clip, against all other clips of "
    "the batch (softmax, temperature {temperature:g})",
    "hinge": "the paper's contrastive loss, which matches each token's state with its own clip, against one "
    "unpaired clip and one unpaired sentence (hinge loss, margin {margin:g})",
    "hinge_batch": "a contrastive loss that matches each token's state with its own clip, against all other clips "
    "of the batch (hinge loss, margin {margin:g})",
    "mil_nce": "MIL-NCE, a contrastive loss that matches each clip with any of {candidates} texts around it, "
    "against the texts of all other clips of the batch (softmax, temperature {temperature:g})",
}


def write_student_card(folder: str | Path, trainer) -> None:
    """Writes a student's card and loss figure.

    Args:
        folder: Folder of the exported student.
        trainer: The [`DistillationTrainer`] that trained it. If its output folder has a `probe.json`, the card shows
            the probe's scores.
    """
    student, settings = _unwrapped(trainer, trainer.model), settings_of(trainer.args)
    recipe = getattr(student.config, "distillation", None)
    given = recipe["objectives"] if recipe else {}
    objectives = " + ".join(f"{options['weight']:g} x {name}" for name, options in given.items())
    teacher = None if trainer.teacher_model is None else _unwrapped(trainer, trainer.teacher_model)
    kind = type(teacher).__name__
    teacher_name = None if teacher is None else settings.get("teacher") or teacher.name_or_path
    start = settings.get("student") or student.name_or_path
    options = {name: {k: v for k, v in values.items() if k != "weight"} for name, values in given.items()}
    rows = {
        "Objectives": f"MLM + {objectives}" if objectives else "MLM",
        **{f"Options of {name}": json.dumps(values) for name, values in options.items() if values},
        "Teacher": None if teacher is None else f"{_link(teacher_name)} ({kind})" if teacher_name else kind,
        **({} if teacher is None else _teaching_rows(trainer, student)),
        "Started from": _start(start),
        "Text": settings.get("text") and _data_name(settings, "text"),
        "Vokens": settings.get("vokens") and f"`{public_name(settings['vokens'])}`",
    }
    data = {
        "base_model": start,
        "datasets": [settings.get("text")],
        "pipeline_tag": "fill-mask",
        "tags": ["vidlankd", "knowledge-distillation", "fill-mask", *given],
        "eval_results": probe_results(trainer.args.output_dir),
    }
    _write(
        "student.md", folder, trainer, rows, data,
        model_class=student.plain_class.__name__,
        config=student.config,
        objectives=objectives,
        source="vokens" if teacher is None else "video" if kind == "VidLanKDTeacher" else f"a {kind}",
        teacher=teacher is not None,
        segments=trainer.teacher_pooling is not None,
    )  # fmt: skip


def _teaching_rows(trainer, student) -> dict[str, Any]:
    """Rows of a student's card: the teacher's states, what the teacher read, and how the texts were aligned."""
    layers, pooling = trainer.args.teacher_layer, trainer.teacher_pooling
    data = getattr(trainer.train_dataset, "dataset", None)
    aligned = isinstance(data, TextBlocks) and "alignment" in data.info
    of_layers = "last layer" if layers == [-1] else f"layer {layers[0]}"
    if len(layers) > 1:
        of_layers = f"mean of the layers {', '.join(map(str, layers))}"
    pooled = {"mean": "; mean over a segment's tokens", "last": "; last token of a segment"}
    read = "the text without masks" if trainer.teacher_reads_clean_text else "the student's masked tokens"
    return {
        "Teacher's states": "hidden" in student.teacher_needs and f"{of_layers}{pooled.get(pooling, '')}",
        "The teacher read": read + (", tokenized by its own tokenizer" if pooling else ""),
        "Alignment": aligned and describe_alignment(data.info),
    }


def write_teacher_card(folder: str | Path, trainer) -> None:
    """Writes a teacher's card and loss figure; arguments as in [`write_student_card`]."""
    teacher, settings = _unwrapped(trainer, trainer.model), settings_of(trainer.args)
    config, text = teacher.config, teacher.config.text_config
    has_video = teacher.video_encoder is not None
    start = settings.get("text_model") or teacher.name_or_path or getattr(text, "_name_or_path", "")
    losses = {
        "contrast": CONTRASTS[config.contrast].format(
            margin=config.margin, temperature=config.temperature, candidates=config.mil_candidates
        ),
        "mlm": "masked language modeling",
    }
    rows = {
        "Losses": f"`{config.losses}`" + (f", contrast `{config.contrast}`" if has_video else ""),
        "Started from": _start(start),
        "Captions": settings.get("captions") and _data_name(settings, "captions"),
        "Video features": has_video and settings.get("features") and _data_name(settings, "features"),
        "Streams": settings.get("streams") and ", ".join(settings["streams"]),
        "Control": "captions paired with other videos' clips" if settings.get("shuffle_videos") else None,
        "Tokenizer": settings.get("tokenizer") and f"`{public_name(settings['tokenizer'])}`",
    }
    data = {
        "base_model": start,
        "datasets": [settings.get("captions")],
        "pipeline_tag": "feature-extraction",
        "tags": ["vidlankd", "video-text", "custom_code"],
        "eval_results": probe_results(trainer.args.output_dir),
    }
    _write(
        "teacher.md", folder, trainer, rows, data,
        text_class=type(teacher.text_model).__name__,
        config=config,
        has_video=has_video,
        losses=" and ".join(words for name, words in losses.items() if name in config.losses),
    )  # fmt: skip


def write_finetuned_card(
    folder: str | Path, trainer, task, model: str, num_texts: int, results: list[EvalResult]
) -> None:
    """Writes a fine-tuned model's card and loss figure.

    Args:
        folder: Folder of the model.
        trainer: The trainer that fine-tuned it.
        task: Its `Task`.
        model: Folder or Hub id of the model that was fine-tuned.
        num_texts: Number of texts in a sample (1 or 2).
        results: Scores of this model.
    """
    network, settings = _unwrapped(trainer, trainer.model), settings_of(trainer.args)
    rows = {
        "Fine-tuned": _link(model),
        "Task": task.title,
        "Data": f"`{public_name(settings['data'])}`" if settings.get("data") else task.data and task.data[0],
        "Rows": settings.get("train_rows") and f"{settings['train_rows']:,} for training",
        "Tokens per text": settings.get("max_length") and f"at most {settings['max_length']}",
        "Epochs": f"{trainer.args.num_train_epochs:g}",
    }
    data = {
        "base_model": model,
        "datasets": [task.data[0]] if task.data and not settings.get("data") else [],
        "pipeline_tag": task.head.task_type,
        "tags": ["vidlankd", task.head.task_type],
        "eval_results": results,
    }
    _write(
        "finetuned.md", folder, trainer, rows, data,
        base=public_name(model),
        title=task.title,
        model_class=type(network).__name__,
        auto=task.head.auto.__name__,
        task_type=task.head.task_type,
        num_texts=num_texts,
    )  # fmt: skip


def four_digits(value: float) -> float:
    """Rounds a result to four significant digits."""
    return float(f"{value:.4g}")


def probe_results(folder: str | Path) -> list[EvalResult]:
    """The probe's scores as `model-index` entries, if there is a `probe.json` in `folder`."""
    path = Path(folder) / PROBE_FILE
    scores = read_json(path, list, "remove it") if path.is_file() else []
    return [
        EvalResult(
            task_type="feature-extraction",
            dataset_type="vidlankd_hf/world",
            dataset_name="the grounded world",
            metric_type="accuracy",
            metric_name=f"{score['attribute']}, linear probe of frozen states on unseen nouns",
            metric_value=round(score["accuracy"], 4),
            metric_args={name: round(score[name], 4) for name in ("chance", "low", "high", "num_nouns")},
        )
        for score in scores
    ]


def _write(template: str, folder, trainer, rows: dict, data: dict[str, Any], **values) -> None:
    """Fills a template with `values`, the run's settings (`rows`) and metadata (`data`), and draws the losses."""
    folder, history, repo = Path(folder), trainer.state.log_history, trainer.repository_name
    base, name = data.pop("base_model"), repo.rpartition("/")[2]
    last: dict = next((entry for entry in reversed(history) if "loss" in entry), {})
    losses = {
        f"Last {key}": f"{four_digits(value):g}"
        for key, value in last.items()
        if key == "loss" or key.endswith("_loss")
    }
    rows = {key: value for key, value in {**rows, **training_rows(trainer), **losses}.items() if value}
    folder.mkdir(parents=True, exist_ok=True)
    measured = {f"{key}, held out": f"{four_digits(value):g}" for key, value in held_out_metrics(history).items()}
    for result in data["eval_results"]:
        chance = (result.metric_args or {}).get("chance")
        guessing = "" if chance is None else f" (chance {chance:.4g})"
        measured[f"{result.dataset_name}: {result.metric_name}"] = f"{result.metric_value:.4g}{guessing}"
    metadata = ModelCardData(
        library_name="transformers",
        base_model=base if base and base not in SIZES and is_hub_id(base) else None,
        datasets=[id_.partition(":")[0] for id_ in data.pop("datasets") if id_ and is_hub_id(id_)] or None,
        eval_results=data.pop("eval_results") or None,
        model_name=name,
        **data,
    )
    ModelCard.from_template(
        metadata,
        template_path=str(TEMPLATES / template),
        name=name,
        repo=repo,
        training=_table(rows),
        figure=FIGURE_FILE if draw_losses(name, history, folder / FIGURE_FILE) else None,
        results=_table(measured),
        **values,
    ).save(folder / CARD_FILE)


def _unwrapped(trainer, model):
    """The model without a compiled or distributed wrapper, which has another class and may not support `bool()`."""
    return trainer.accelerator.unwrap_model(model, keep_torch_compile=False)


def _table(rows: dict) -> str:
    return "\n".join(f"| {name} | {str(value).replace('|', chr(92) + '|')} |" for name, value in rows.items())


def _link(name: str) -> str:
    return f"[{name}](https://huggingface.co/{name})" if is_hub_id(name) else f"`{public_name(name)}`"


def _start(start: str | None) -> str:
    return "random weights" if not start or start in SIZES else _link(start)


def _data_name(settings: dict, name: str) -> str:
    """Public name of a data set, marked if it belongs to the grounded world."""
    path, world = settings[name], settings.get("world")
    if world and Path(world).resolve() in Path(path).resolve().parents:
        return f"`{public_name(path)}` of the grounded world"
    return f"`{public_name(path)}`"
