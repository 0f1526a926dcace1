"""Results in a model card, as `model-index` entries."""

from pathlib import Path
from statistics import median

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..hub.model_cards import four_digits
from ..hub.run_metadata import public_name
from ..utils.messages import number_of
from .task import Task
from .zero_shot import ZeroShot


def update_card(folder: str | Path, results: list[EvalResult]) -> Path:
    """Writes results into the `README.md` of a model's folder, which is created if there is none.

    Entries with the same task, data and metric name are replaced. All others, and the text, stay as they are.
    """
    path, name = Path(folder) / "README.md", Path(folder).resolve().name
    if path.exists():
        card = ModelCard.load(path)
    else:
        card = ModelCard(f"---\n{ModelCardData(library_name='transformers').to_yaml()}\n---\n\n# {name}\n")
    replaced = {_identity(result) for result in results}
    card.data.eval_results = [r for r in card.data.eval_results or [] if _identity(r) not in replaced] + results
    card.data.model_name = card.data.model_name or name
    card.save(path)
    return path


def _identity(result: EvalResult) -> tuple:
    return (*result.unique_identifier, result.metric_type, result.metric_name)


def finetuning_results(task: Task, name: str, runs: list[dict]) -> list[EvalResult]:
    """Returns an entry for every value of every split: the median over the seeds of one learning rate.

    Args:
        task: The task.
        name: Its key in `TASKS`.
        runs: Results of [`finetune`], one per seed.
    """
    first = runs[0]
    parts = [number_of(first[f"{part}_rows"], f"{part} row") for part in ("train", "eval") if first[f"{part}_rows"]]
    subset = f" ({', '.join(parts)})" if parts else ""
    entries = []
    for split, values in first["scores"].items():
        for metric in values:
            scores = [run["scores"][split][metric] or 0.0 for run in runs]
            details = {
                "seeds": [run["seed"] for run in runs],
                "min": four_digits(min(scores)),
                "max": four_digits(max(scores)),
                "collapsed_seeds": [run["seed"] for run in runs if run["collapsed"]],
                "learning_rate": first["learning_rate"],
                "epochs": first["epochs"],
            }
            how = f"median over seeds, fine-tuned{subset}"
            entries.append(_entry(task, name, first.get("data"), split, metric, median(scores), how, details))
    return [entry for entry in entries if not entry.metric_type.endswith("threshold")]


def scored_results(task: Task, name: str, result: dict) -> list[EvalResult]:
    """Returns an entry for every value of every split of a model that was scored without training on the task.

    Args:
        task: The task.
        name: Its key in `TASKS`.
        result: Result of [`score_finetuned`].
    """
    subset = f" ({number_of(result['eval_rows'], 'eval row')})" if result["eval_rows"] else ""
    how = f"scored without training on it{subset}"
    return [
        _entry(task, name, result.get("data"), split, metric, value or 0.0, how)
        for split, values in result["scores"].items()
        for metric, value in values.items()
        if not metric.endswith("threshold")
    ]


def _entry(
    task: Task, name: str, data: str | None, split: str, metric: str, value: float, how: str,
    details: dict | None = None,
) -> EvalResult:  # fmt: skip
    own = has_own_rows(task, data)
    return EvalResult(
        task_type=task.head.task_type,
        dataset_type=public_name(data) if own else _data_id(task, name),
        dataset_name=title_with_data(task, data),
        dataset_config=name if own else task.data[1] if task.data else None,
        dataset_split=split,
        metric_type=metric,
        metric_value=four_digits(value),
        metric_name=f"{metric}, {how}",
        metric_args=details,
    )


def has_own_rows(task: Task | ZeroShot, data: str | None) -> bool:
    """Whether a task's rows come from a folder of the user, `--data`, instead of its data set on the Hub."""
    return data is not None and getattr(task, "data", None) is not None


def title_with_data(task: Task | ZeroShot, data: str | None) -> str:
    """Returns the title of a task; if its rows come from a folder of the user, with the name of the folder."""
    return f"{task.title} ({public_name(data)})" if has_own_rows(task, data) else task.title


def _data_id(task: Task | ZeroShot, name: str) -> str:
    """Returns the Hub data set of a task, the name of its task file, or `vidlankd_hf/NAME`."""
    data = getattr(task, "data", None)
    return data[0] if data else name if task.own is not None else f"vidlankd_hf/{name}"


def zero_shot_results(task: ZeroShot, name: str, result: dict) -> list[EvalResult]:
    """Returns an entry for the probe and, if the model has a language-model head, one for masked scoring.

    Args:
        task: The set of questions.
        name: Its key in `TASKS`.
        result: Result of [`evaluate_zero_shot`].
    """
    methods = {"masked": "masked scoring", "probe": "linear probe on held-out objects"}
    return [
        EvalResult(
            task_type="fill-mask",
            dataset_type=_data_id(task, name),
            dataset_name=task.title,
            dataset_split=task.split,
            metric_type="accuracy",
            metric_value=round(result[method]["accuracy"], 4),
            metric_name=f"accuracy, {description}",
            metric_args={"chance": round(result["chance"], 4), "majority": round(result["majority"], 4)},
        )
        for method, description in methods.items()
        if result[method] is not None
    ]
