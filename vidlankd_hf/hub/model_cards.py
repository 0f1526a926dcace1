"""Model cards of teacher, student and fine-tuned model, filled from the run that made them."""

import json
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..models.configuration import SIZES
from .loss_figure import draw_losses
from .run_metadata import held_out_metrics, is_hub_id, public_name, settings_of, training_rows

CARD_FILE, FIGURE_FILE, PROBE_FILE = "README.md", "losses.png", "probe.json"

CITATION = """@inproceedings{tang2021vidlankd,
  title = {VidLanKD: Improving Language Understanding via Video-Distilled Knowledge Transfer},
  author = {Zineng Tang and Jaemin Cho and Hao Tan and Mohit Bansal},
  booktitle = {NeurIPS},
  year = {2021}
}"""

CARD = """
# {name}

{what}

## Use

```python
{snippet}
```

## Training

{how}

| | |
|---|---|
{training}

{figure}

## Results

{results}

## Limits and biases

{limits}

## Citation

```bibtex
{citation}
```
"""

# ---- student ----

STUDENT = """A `{model_class}` ({layers} layers, width {width}) trained on text with {objectives}, by
[vidlankd_hf](https://arxiv.org/abs/2107.02681). It is an ordinary one: no video, no image and no code beside
transformers is needed to use it."""

STUDENT_SNIPPET = """from transformers import AutoModelForMaskedLM, AutoTokenizer

name = "{name}"  # its id on the Hub, or its folder
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForMaskedLM.from_pretrained(name)

inputs = tokenizer(f"a {tokenizer.mask_token} is what is asked for", return_tensors="pt")
place = (inputs.input_ids[0] == tokenizer.mask_token_id).nonzero()[0, 0]
best = model(**inputs).logits[0, place].topk(5).indices
print(tokenizer.convert_ids_to_tokens(best))"""

STUDENT_HOW = """It was trained by masked language modelling{distillation}. The total is the sum of the components,
each with its weight; every component is an exact mean over its own items in an optimizer step."""

STUDENT_LIMITS = """It has what its training text{and_teacher} hold, their errors and biases included: about people,
places, and what is filmed and said on video. Nothing was filtered by it, and no test of such biases was made. It
completes text and does not know what is true. It is no safer than any masked language model, and was not made for
decisions about people. Test it on your task before you rely on it."""

# ---- teacher ----

TEACHER = """A VidLanKD teacher: a text encoder (`{text_class}`, {layers} layers, width {width}){video}, trained on
captioned video by [vidlankd_hf](https://arxiv.org/abs/2107.02681). Its states of text tokens teach a student, which
then needs no video."""

TEACHER_SNIPPET = """from transformers import AutoModel, AutoTokenizer

name = "{name}"  # its id on the Hub, or its folder
tokenizer = AutoTokenizer.from_pretrained(name)
# It runs the code in its folder. Where vidlankd_hf is installed and imported, leave trust_remote_code out.
teacher = AutoModel.from_pretrained(name, trust_remote_code=True)

inputs = tokenizer("now take the pan", return_tensors="pt")
states = teacher.encode_text(inputs.input_ids, inputs.attention_mask)  # [1, L, {width}]"""

TEACHER_HOW = """It was trained by {losses}, each with weight 1 and an exact mean over its own items in an optimizer
step."""

CONTRASTS = {
    "infonce": "a contrast of each token's state with its own clip and all others of the batch (softmax, temperature "
    "{temperature:g})",
    "hinge": "the paper's contrast of each token's state with its own clip, one unpaired clip and one unpaired "
    "sentence (hinge, margin {margin:g})",
    "hinge_batch": "a contrast of each token's state with its own clip and all others of the batch (hinge, margin "
    "{margin:g})",
}

TEACHER_LIMITS = """It has what its videos and their captions hold, their errors and biases included: who is filmed,
where, doing what, and how it is spoken of. Captions of speech often do not name what is seen. {features}Nothing was
filtered by it, and no test of such biases was made. Do not use it to recognise or judge people. Test what it teaches
before you rely on it."""

# ---- fine-tuned model ----

FINETUNED = """`{base}`, fine-tuned on {title} by [vidlankd_hf](https://arxiv.org/abs/2107.02681): an ordinary
`{model_class}`."""

FINETUNED_SNIPPET = """from transformers import {auto}, AutoTokenizer

name = "{name}"  # its id on the Hub, or its folder
tokenizer = AutoTokenizer.from_pretrained(name)
model = {auto}.from_pretrained(name)

{use}"""

FINETUNED_USE = {
    "text-classification": """inputs = tokenizer({texts}, return_tensors="pt")
print(model(**inputs).logits)""",
    "multiple-choice": """candidates = ["one ending", "another ending"]
inputs = tokenizer(["what was before"] * 2, candidates, padding=True, return_tensors="pt")
scores = model(**{k: v[None] for k, v in inputs.items()}).logits  # [1, candidates]
print(candidates[scores[0].argmax()])""",
    "question-answering": """inputs = tokenizer("what is asked", "the text that may answer it", return_tensors="pt")
output = model(**inputs)
first, last = output.start_logits[0].argmax(), output.end_logits[0].argmax()
print(tokenizer.decode(inputs.input_ids[0, first : last + 1]))""",
}

FINETUNED_HOW = """It was fine-tuned with the settings below; the loss of a step is an exact mean over its samples.
Seeds differ, and some collapse: this is one of them, not the best of several unless its publisher says so."""

FINETUNED_LIMITS = """It answers as the labels of {title} would have it, for texts like those, with what `{base}`
holds, their errors and biases included. Of other kinds of text the scores above say nothing. Test it on your data
before you rely on it."""


def write_student_card(folder: str | Path, trainer) -> None:
    """Writes `README.md` and the losses' figure into a student's `folder`, from a [`DistillationTrainer`]'s state.

    The probe's results are in it if `probe.json` is in the run's folder.
    """
    student, settings = trainer.accelerator.unwrap_model(trainer.model), settings_of(trainer.args)
    recipe = getattr(student.config, "distillation", None)
    objectives = recipe["objectives"] if recipe else {}
    kd = " + ".join(f"{options['weight']:g} x {name}" for name, options in objectives.items())
    teacher = None if trainer.teacher_model is None else trainer.accelerator.unwrap_model(trainer.teacher_model)
    kind = type(teacher).__name__
    source = "vokens" if teacher is None else "video" if kind == "VidLanKDTeacher" else f"a {kind}"
    teacher_name = None if teacher is None else settings.get("teacher") or teacher.name_or_path
    start = settings.get("student") or student.name_or_path
    options = {name: {k: v for k, v in given.items() if k != "weight"} for name, given in objectives.items()}
    rows = {
        "Objectives": f"MLM + {kd}" if kd else "MLM",
        **{f"Options of {name}": json.dumps(given) for name, given in options.items() if given},
        "Teacher": teacher and (f"{_link(teacher_name)} ({kind})" if teacher_name else kind),
        "Started from": _start(start),
        "Text": settings.get("text") and _data_name(settings, "text"),
        "Vokens": settings.get("vokens") and f"`{public_name(settings['vokens'])}`",
    }
    _write(
        folder, trainer, rows,
        what=STUDENT.format(
            model_class=student.plain_class.__name__,
            layers=student.config.num_hidden_layers,
            width=student.config.hidden_size,
            objectives=f"knowledge distilled from {source} ({kd})" if kd else "masked language modelling only",
        ),
        snippet=STUDENT_SNIPPET,
        how=STUDENT_HOW.format(
            distillation=f" and {kd}, which compare it with its frozen teacher" if teacher else f" and {kd}" * bool(kd)
        ),
        limits=STUDENT_LIMITS.format(and_teacher=" and its teacher's training data" if teacher else ""),
        results=probe_results(trainer.args.output_dir),
        base_model=start,
        datasets=[settings.get("text")],
        pipeline_tag="fill-mask",
        tags=["vidlankd", "knowledge-distillation", "fill-mask", *objectives],
    )  # fmt: skip


def write_teacher_card(folder: str | Path, trainer) -> None:
    """Writes `README.md` and the losses' figure into a teacher's `folder`, from a [`TeacherTrainer`]'s state."""
    teacher, settings = trainer.accelerator.unwrap_model(trainer.model), settings_of(trainer.args)
    config, text = teacher.config, teacher.config.text_config
    sees = teacher.video_encoder is not None
    start = settings.get("text_model") or teacher.name_or_path or getattr(text, "_name_or_path", "")
    losses = {
        "contrast": sees and CONTRASTS[config.contrast].format(margin=config.margin, temperature=config.temperature),
        "mlm": "masked language modelling",
    }
    trained_by = [words for name, words in losses.items() if name in config.losses]
    width = config.video_config.feature_size
    rows = {
        "Losses": f"`{config.losses}`" + (f", contrast `{config.contrast}`" if sees else ""),
        "Started from": _start(start),
        "Captions": settings.get("captions") and _data_name(settings, "captions"),
        "Video features": sees and settings.get("features") and _data_name(settings, "features"),
        "Streams": settings.get("streams") and ", ".join(settings["streams"]),
        "Control": "captions paired with other videos' clips" if settings.get("shuffle_videos") else None,
        "Tokenizer": settings.get("tokenizer") and f"`{public_name(settings['tokenizer'])}`",
    }
    _write(
        folder, trainer, rows,
        what=TEACHER.format(
            text_class=type(teacher.text_model).__name__,
            layers=text.num_hidden_layers,
            width=text.hidden_size,
            video=f" and a video encoder of features of width {width}" if sees else ", without video encoder",
        ),
        snippet=TEACHER_SNIPPET.replace("{width}", str(text.hidden_size)),
        how=TEACHER_HOW.format(losses=" and ".join(trained_by)),
        limits=TEACHER_LIMITS.format(
            features=f"Its video encoder reads features of width {width} of the extractors it was trained with, not "
            "video files. " if sees else ""
        ),
        results=probe_results(trainer.args.output_dir),
        base_model=start,
        datasets=[settings.get("captions")],
        pipeline_tag="feature-extraction",
        tags=["vidlankd", "video-text", "custom_code"],
    )  # fmt: skip


def write_finetuned_card(
    folder: str | Path, trainer, task, model: str, num_texts: int, results: list[EvalResult]
) -> None:
    """Writes `README.md` and the losses' figure into a fine-tuned model's `folder`.

    Args:
        folder: Of the model.
        trainer: That fine-tuned it.
        task: The [`Task`].
        model: What was fine-tuned: folder or Hub id.
        num_texts: How many texts a row has.
        results: Of this model.
    """
    network, settings = trainer.accelerator.unwrap_model(trainer.model), settings_of(trainer.args)
    base, texts = public_name(model), '"a text", "and another"' if num_texts == 2 else '"a text"'
    use = FINETUNED_USE[task.head.task_type].replace("{texts}", texts)
    rows = {
        "Fine-tuned": _link(model),
        "Task": task.title,
        "Data": f"`{public_name(settings['data'])}`" if settings.get("data") else task.data and task.data[0],
        "Rows": settings.get("train_rows") and f"{settings['train_rows']:,} to train on",
        "Tokens of a text": settings.get("max_length") and f"at most {settings['max_length']}",
        "Epochs": f"{trainer.args.num_train_epochs:g}",
    }
    _write(
        folder, trainer, rows,
        what=FINETUNED.format(base=base, title=task.title, model_class=type(network).__name__),
        snippet=FINETUNED_SNIPPET.replace("{auto}", task.head.auto.__name__).replace("{use}", use),
        how=FINETUNED_HOW,
        limits=FINETUNED_LIMITS.format(base=base, title=task.title),
        results=results,
        base_model=model,
        datasets=[task.data[0]] if task.data else [],
        pipeline_tag=task.head.task_type,
        tags=["vidlankd", task.head.task_type],
    )  # fmt: skip


def probe_results(folder: str | Path) -> list[EvalResult]:
    """The probe's scores as `model-index` entries, if `examples/probe.py` left `probe.json` in a run's folder."""
    path = Path(folder) / PROBE_FILE
    scores = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return [
        EvalResult(
            task_type="feature-extraction",
            dataset_type="vidlankd_hf/world",
            dataset_name="the grounded world",
            metric_type="accuracy",
            metric_name=f"{score['attribute']}, linear probe of frozen states on nouns it never saw",
            metric_value=round(score["accuracy"], 4),
            metric_args={name: round(score[name], 4) for name in ("chance", "low", "high", "num_nouns")},
        )
        for score in scores
    ]


def _write(folder, trainer, rows, snippet, results, base_model, datasets, pipeline_tag, tags, **texts) -> None:
    folder, args, history = Path(folder), trainer.args, trainer.state.log_history
    name = trainer.hub_model_id or args.hub_model_id or Path(args.output_dir).resolve().name
    last = next((entry for entry in reversed(history) if "loss" in entry), {})
    losses = {key: value for key, value in last.items() if key == "loss" or key.endswith("_loss")}
    rows = {
        **{key: value for key, value in rows.items() if value},
        **training_rows(trainer),
        **{f"Last {key}": f"{value:.4f}" for key, value in losses.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    drawn = draw_losses(history, folder / FIGURE_FILE)
    measured = {f"{key}, held out": f"{value:.4f}" for key, value in held_out_metrics(history).items()}
    for result in results:
        chance = (result.metric_args or {}).get("chance")
        beside = "" if chance is None else f" (chance {chance:.4g})"
        measured[f"{result.dataset_name}: {result.metric_name}"] = f"{result.metric_value:.4g}{beside}"
    content = CARD.format(
        name=name.rpartition("/")[2],
        snippet=snippet.replace("{name}", name),
        training=_table(rows),
        figure=f"![Losses over the steps]({FIGURE_FILE})" if drawn else "",
        results=f"| | |\n|---|---|\n{_table(measured)}" if measured else "None were measured.",
        citation=CITATION,
        **texts,
    )
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=pipeline_tag,
        tags=tags,
        base_model=base_model if base_model and base_model not in SIZES and is_hub_id(base_model) else None,
        datasets=[id_.partition(":")[0] for id_ in datasets if id_ and is_hub_id(id_)] or None,
        eval_results=results or None,
        model_name=name.rpartition("/")[2],
    )
    ModelCard(f"---\n{data.to_yaml()}\n---\n{content}").save(folder / CARD_FILE)


def _table(rows: dict) -> str:
    return "\n".join(f"| {name} | {str(value).replace('|', chr(92) + '|')} |" for name, value in rows.items())


def _link(name: str) -> str:
    return f"[{name}](https://huggingface.co/{name})" if is_hub_id(name) else f"`{public_name(name)}`"


def _start(start: str | None) -> str:
    return "random weights" if not start or start in SIZES else _link(start)


def _data_name(settings: dict, name: str) -> str:
    """A data set's public name; of the grounded world, that it is this."""
    path, world = settings[name], settings.get("world")
    if world and Path(world).resolve() in Path(path).resolve().parents:
        return f"`{public_name(path)}` of the grounded world"
    return f"`{public_name(path)}`"
