"""Results in a model's card, as `model-index` entries."""

from pathlib import Path
from statistics import median

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from .task import Task
from .zero_shot import ZeroShot

CARD_FILE = "README.md"


def update_card(folder: str | Path, results: list[EvalResult]) -> Path:
    """Writes results into `README.md` of a model's folder, which is made if there is none.

    An entry of the same task, data and metric name is replaced; all others, and the text, stay.
    """
    path = Path(folder) / CARD_FILE
    if path.exists():
        card = ModelCard.load(path)
    else:
        card = ModelCard(f"---\n{ModelCardData(library_name='transformers').to_yaml()}\n---\n\n# {_name(folder)}\n")
    replaced = {_identity(result) for result in results}
    kept = [result for result in card.data.eval_results or [] if _identity(result) not in replaced]
    card.data.eval_results = kept + results
    card.data.model_name = card.data.model_name or _name(folder)
    card.save(path)
    return path


def _name(folder: str | Path) -> str:
    return Path(folder).resolve().name


def _identity(result: EvalResult) -> tuple:
    return (*result.unique_identifier, result.metric_type, result.metric_name)


def finetuning_results(task: Task, name: str, runs: list[dict]) -> list[EvalResult]:
    """An entry for every value of every split: the median over the seeds of one recipe."""
    entries = []
    for split, values in runs[0]["scores"].items():
        for metric in (name for name in values if not name.endswith("threshold")):
            several = [run["scores"][split][metric] or 0.0 for run in runs]
            entries.append(
                EvalResult(
                    task_type=task.head.task_type,
                    dataset_type=task.data[0] if task.data else f"vidlankd_hf/{name}",
                    dataset_name=task.title,
                    dataset_config=task.data[1] if task.data else None,
                    dataset_split=split,
                    metric_type=metric,
                    metric_value=round(median(several), 4),
                    metric_name=f"{metric}, median over seeds, fine-tuned{_subset(runs[0])}",
                    metric_args={
                        "seeds": [run["seed"] for run in runs],
                        "least": round(min(several), 4),
                        "greatest": round(max(several), 4),
                        "collapsed_seeds": [run["seed"] for run in runs if run["collapsed"]],
                        "learning_rate": runs[0]["learning_rate"],
                        "epochs": runs[0]["epochs"],
                    },
                )
            )
    return entries


def _subset(run: dict) -> str:
    """Says so where not all data were used."""
    parts = [f"{run[f'{part}_rows']} {part} rows" for part in ("train", "eval") if run[f"{part}_rows"]]
    return f" ({', '.join(parts)})" if parts else ""


def zero_shot_results(task: ZeroShot, name: str, result: dict) -> list[EvalResult]:
    """An entry for masked scoring, if there is a language-model head, and for the probe."""
    entries = []
    for way, words in (("masked", "masked scoring"), ("probe", "linear probe on held-out objects")):
        if result[way] is None:
            continue
        entries.append(
            EvalResult(
                task_type="fill-mask",
                dataset_type=f"vidlankd_hf/{name}",
                dataset_name=task.title,
                dataset_split="test",
                metric_type="accuracy",
                metric_value=round(result[way]["accuracy"], 4),
                metric_name=f"accuracy, {words}",
                metric_args={"chance": round(result["chance"], 4), "majority": round(result["majority"], 4)},
            )
        )
    return entries
