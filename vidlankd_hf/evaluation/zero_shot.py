"""Visual commonsense without fine-tuning: what a text encoder knows about how things look.

Masked scoring: every candidate word is put into a template and its tokens are masked. Its score is the mean
log-probability of these tokens, so that words of one and of several tokens can be compared. Scores are averaged over
the templates. The accuracy of each template is reported as well, because the choice of a template matters.

Probing: a linear probe of frozen states, scored on objects that it was not fitted to. It needs no language-model head.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.extras import requires_extra
from .probing import masked_scores, probe_attributes, probe_pairs, probe_sentences
from .reading import class_of, companion_file, find_file, official_layout, read_json_lines

COLORS = ("black", "blue", "brown", "green", "grey", "orange", "pink", "purple", "red", "white", "yellow")
CODA_COLORS = tuple("gray" if color == "grey" else color for color in COLORS)
VICOMTE_COLORS = (*CODA_COLORS, "silver")
MATERIALS = ("bronze", "ceramic", "cloth", "concrete", "cotton", "denim", "glass", "gold", "iron", "jade", "leather",
             "metal", "paper", "plastic", "rubber", "stone", "tin", "wood")  # fmt: skip
POSITIONS = ("inside", "above", "below", "beside")


@dataclass(frozen=True)
class ZeroShot:
    """A set of questions for a model that is not fine-tuned.

    Items are dicts with `label` (index of the correct candidate), the fields of the templates, and the probe's input:
    `object`, or `object` and `other` (a comparison), or `sentence`. Optional: `distribution` (share of people who gave
    each answer), `answers` (indices of all right candidates) and `contrast` (index of a wrong candidate).

    Args:
        title: Name in tables and model cards.
        folder: Official folder, relative to a folder of tasks.
        files: File of each split; a probe is fitted to `train` if there is one.
        read: Reads a file into items.
        candidates: Words that may be the answer.
        templates: Sentences with `{word}` and fields of the items.
        probe: Probe from `probing.py`.
        split: The split that is scored.
        own: Data from a task file, an `OwnData`; the set then needs neither folder nor reader.
    """

    title: str
    folder: str
    files: dict[str, str]
    candidates: tuple[str, ...]
    templates: tuple[str, ...]
    read: Callable[[Path], list[dict]] = read_json_lines
    probe: Callable[..., np.ndarray] = probe_attributes
    split: str = "test"
    own: Any = None

    def items(self, source: str | Path | None, split: str | None = None) -> list[dict]:
        """Reads the items of a split, by default of the scored one, with the folders and errors of [`read_rows`]."""
        split = split or self.split
        if self.own is not None:
            return self.own.rows[split]
        path = find_file(self, source, split)
        with official_layout(path):
            return self.read(path)


def evaluate_zero_shot(task: ZeroShot, encoder, tokenizer, source: str | Path | None, masked_lm=None) -> dict:
    """Scores a model without fine-tuning it.

    Args:
        task: The set of questions.
        encoder: BERT-like model, with or without head, for the probe.
        tokenizer: The model's tokenizer, a fast one.
        source: Folder in the official layout; `None` for a set from a task file.
        masked_lm: The model with its trained language-model head; without it there is no masked scoring.

    Returns:
        `size`, `chance` (accuracy of a random candidate), `majority` (accuracy of the most frequent answer), `probe`
        and `masked` (`None` without a head). The last two are dicts with `accuracy` and `right`, one bool per item.
        `masked` also has `by_template` and, depending on the set, `contrast` (how often the right word scores higher
        than the wrong one) or `spearman` (correlation with people's answers, mean over objects).

    Raises:
        FileNotFoundError: The folder or file does not exist.
        ImportError: The extra `downstream` is not installed.
        ValueError: The file has another layout, or the tokenizer does not fit.
    """
    items = task.items(source)
    train = task.items(source, "train") if "train" in task.files else None
    constants = [np.mean([_is_right(item, word) for item in items]) for word in range(len(task.candidates))]
    masked = None
    if masked_lm is not None:
        masked = _masked_result(masked_scores(masked_lm, tokenizer, items, task.candidates, task.templates), items)
    return {
        "size": len(items),
        "chance": 1 / len(task.candidates),
        "majority": float(max(constants)),
        "probe": _result(task.probe(encoder, tokenizer, items, train), items),
        "masked": masked,
    }


def _result(predictions: np.ndarray, items: list[dict]) -> dict:
    right = [_is_right(item, int(prediction)) for item, prediction in zip(items, predictions)]
    return {"accuracy": float(np.mean(right)), "right": right}


def _is_right(item: dict, prediction: int) -> bool:
    """Whether a prediction is right. If people gave several answers equally often, all of these are right."""
    if "answers" in item:
        return prediction in item["answers"]
    if "distribution" in item:
        return item["distribution"][prediction] == max(item["distribution"])
    return prediction == item["label"]


def _masked_result(scores: np.ndarray, items: list[dict]) -> dict:
    """Accuracy and correlations for scores `[templates, items, candidates]`."""
    mean = scores.mean(0)
    result = _result(mean.argmax(-1), items)
    result["by_template"] = [_result(one.argmax(-1), items)["accuracy"] for one in scores]
    if "contrast" in items[0]:
        above = [row[item["label"]] > row[item["contrast"]] for row, item in zip(mean, items)]
        result["contrast"] = float(np.mean(above))
    if "distribution" in items[0]:
        with requires_extra("downstream"):
            from scipy.stats import spearmanr
        values = [spearmanr(row, item["distribution"]).statistic for row, item in zip(mean, items)]
        result["spearman"] = float(np.nanmean(values))
    return result


def read_memory_colors(path: Path) -> list[dict]:
    """Reads Memory Colors (Norlund et al., 2021)."""
    to_label = class_of(COLORS, path)
    return [
        {
            "object": row["item"],
            "phrase": f"{row['descriptor']} {row['item']}".strip(),
            "label": to_label(row["label"]),
        }
        for row in read_json_lines(path, ("descriptor", "item", "label"))
    ]


def read_coda(path: Path) -> list[dict]:
    """Reads CoDa (Paik et al., 2021): the objects of `objects.jsonl` with the mean of their annotators' answers."""
    answers: dict[str, list] = {}
    for row in read_json_lines(path, ("class_id", "included")):
        if row["included"]:
            given = np.array([row[color] for color in CODA_COLORS], dtype=float)
            answers.setdefault(row["class_id"], []).append(given / given.sum())
    objects = companion_file(path, "objects.jsonl", "the objects")
    items = []
    for row in read_json_lines(objects, ("class_id", "object_s", "object_pl", "areis_pl")):
        distribution = np.mean(answers[row["class_id"]], 0)
        label = {"label": int(distribution.argmax()), "distribution": distribution.tolist()}
        noun = row["object_s"] or row["object_pl"]  # cosmetics have no singular
        items.append({"object": noun, "plural": row["object_pl"], "are": row["areis_pl"], **label})
    return items


def read_vicomte(path: Path, candidates: tuple[str, ...]) -> list[dict]:
    """Reads a part of ViComTe (Zhang et al., 2022)."""
    to_label = class_of(candidates, path)
    return [
        {"object": row["sub"], "label": to_label(row["obj"]), "contrast": to_label(row["alt"])}
        for row in read_json_lines(path, ("sub", "obj", "alt"))
    ]


def read_comparisons(path: Path) -> list[dict]:
    """Reads sizes or heights (Liu et al., 2022): label 1 in the file means that the first object is larger."""
    items = []
    for row in read_json_lines(path, ("obj_a", "obj_b", "label")):
        a, b = row["obj_a"], row["obj_b"]
        item = {"object": a, "other": b, "a": _with_article(a), "b": _with_article(b)}
        items.append({**item, "label": 1 - row["label"]})  # candidate 0 is "larger" or "taller"
    return items


def read_positions(path: Path) -> list[dict]:
    """Reads positional relations (Liu et al., 2022)."""
    return [
        {"sentence": row["text"].strip(), "object": row["obj_a"], "other": row["obj_b"], "label": row["label"]}
        for row in read_json_lines(path, ("text", "obj_a", "obj_b", "label"))
    ]


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _vicomte(title: str, folder: str, candidates: tuple[str, ...], templates: tuple[str, ...]) -> ZeroShot:
    return ZeroShot(
        title=title,
        folder=f"visual_commonsense/vicomte/{folder}",
        files={"test": "test.jsonl", "train": "train.jsonl"},
        read=lambda path: read_vicomte(path, candidates),
        candidates=candidates,
        templates=templates,
    )


def _comparison(title: str, file: str, words: tuple[str, str]) -> ZeroShot:
    return ZeroShot(
        title=title,
        folder="visual_commonsense/spatial",
        files={"test": file},
        read=read_comparisons,
        candidates=words,
        templates=(
            "{a} is {word} than {b}.",
            "{a} is usually {word} than {b}.",
            "compared with {b}, {a} is {word}.",
            "is {a} {word} than {b}? yes, {a} is much {word}.",
        ),
        probe=probe_pairs,
    )


COLOR_TEMPLATES = (
    "the color of the {object} is {word}.",
    "the {object} is {word}.",
    "most {object} is {word}.",
    "what is the color of the {object}? it is {word}.",
)
ZERO_SHOT = {
    "memory_colors": ZeroShot(
        title="Memory Colors",
        folder="visual_commonsense/memory_colors",
        files={"test": "memory_colors.jsonl"},
        read=read_memory_colors,
        candidates=COLORS,
        templates=(
            "the color of {phrase} is {word}.",
            "what is the color of {phrase}? it is {word}.",
            "{phrase} usually has the color of {word}.",
            "everyone knows that {phrase} is {word}.",
        ),
    ),
    "coda": ZeroShot(
        title="CoDa",
        folder="visual_commonsense/coda",
        files={"test": "annotations.jsonl"},
        read=read_coda,
        candidates=CODA_COLORS,
        templates=(
            "most {plural} {are} {word}.",
            "usually, {plural} {are} {word}.",
            "all {plural} {are} {word}.",
            "the color of {plural} is {word}.",
        ),
    ),
    "vicomte_color": _vicomte("ViComTe colour", "color", VICOMTE_COLORS, COLOR_TEMPLATES),
    "vicomte_material": _vicomte(
        "ViComTe material",
        "material",
        MATERIALS,
        (
            "the {object} is made of {word}.",
            "the material of the {object} is {word}.",
            "what is the {object} made of? it is made of {word}.",
            "most {object} is made from {word}.",
        ),
    ),
    "spatial_size": _comparison("spatial: size", "size.json", ("larger", "smaller")),
    "spatial_height": _comparison("spatial: height", "height.json", ("taller", "shorter")),
    "spatial_position": ZeroShot(
        title="spatial: position",
        folder="visual_commonsense/spatial",
        files={"test": "posrel.json"},
        read=read_positions,
        candidates=POSITIONS,
        templates=(
            "{sentence} the {object} is {word} the {other}.",
            "{sentence} now the {object} is {word} the {other}.",
            "{sentence} so the {object} must be {word} the {other}.",
        ),
        probe=probe_sentences,
    ),
}
