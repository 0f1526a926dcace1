"""Visual commonsense without fine-tuning: what does a text encoder know of how things look?

Masked scoring: every candidate word is put into a template, its tokens are masked, and the mean log-probability of
those tokens is its score; a word of two tokens is compared with a word of one. Scores are averaged over the templates,
and the accuracy of each template alone is reported beside, since one template's is a matter of luck.

Probes: a linear probe of frozen states, scored on objects that it was not fitted to. It needs no language-model head.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from .probing import masked_scores, probe_attributes, probe_pairs, probe_sentences
from .reading import beside, find_file, official_layout, read_json_lines

COLOURS = ("black", "blue", "brown", "green", "grey", "orange", "pink", "purple", "red", "white", "yellow")
CODA_COLOURS = tuple("gray" if colour == "grey" else colour for colour in COLOURS)
VICOMTE_COLOURS = (*CODA_COLOURS, "silver")
MATERIALS = ("bronze", "ceramic", "cloth", "concrete", "cotton", "denim", "glass", "gold", "iron", "jade", "leather",
             "metal", "paper", "plastic", "rubber", "stone", "tin", "wood")  # fmt: skip
POSITIONS = ("inside", "above", "below", "beside")


@dataclass(frozen=True)
class ZeroShot:
    """A set of questions that is scored as it is.

    Items are dicts: `label` (index of the right candidate), the fields that templates name, and what the probe reads:
    `object`, or `object` and `other` (a comparison), or `sentence`; `distribution` where people's answers vary,
    `contrast` (index of a wrong candidate) where the set names one.

    Args:
        title: Its name in tables and cards.
        folder: The official folder, below a folder of tasks.
        files: Split -> file; a probe is fitted to `train` where there is one.
        read: File -> items.
        candidates: The words that may be the answer.
        templates: Sentences with fields of the items and `{word}`.
        probe: Of `scoring.py`.
    """

    title: str
    folder: str
    files: dict[str, str]
    read: Callable[[Path], list[dict]]
    candidates: tuple[str, ...]
    templates: tuple[str, ...]
    probe: Callable[..., np.ndarray] = probe_attributes

    def items(self, source: str | Path, split: str = "test") -> list[dict]:
        """The items of a split; folders and errors as in [`read_rows`]."""
        path = find_file(self, source, split)
        with official_layout(path):
            return self.read(path)


def evaluate_zero_shot(task: ZeroShot, encoder, tokenizer, source: str | Path, masked_lm=None) -> dict:
    """Scores a model as it is.

    Args:
        task: The set.
        encoder: A BERT-like model, with or without head, for the probe.
        tokenizer: The model's, a fast one.
        source: Folder in the official layout.
        masked_lm: The model with its trained language-model head; without one there is no masked scoring.

    Returns:
        `size`, `chance` (one of the candidates at random), `majority` (the most frequent answer, always); `probe` and
        `masked` (`None` without head), each with `accuracy` and `right` of every item; `masked` also with
        `by_template`, and `contrast` (the right word above a wrong one) or `spearman` (with people's answers, mean
        over the objects) where the set allows it.
    """
    items = task.items(source)
    train = task.items(source, "train") if "train" in task.files else None
    constants = [np.mean([_is_right(item, word) for item in items]) for word in range(len(task.candidates))]
    result = {
        "size": len(items),
        "chance": 1 / len(task.candidates),
        "majority": float(max(constants)),
        "probe": _result(task.probe(encoder, tokenizer, items, train), items),
        "masked": None,
    }
    if masked_lm is not None:
        scores = masked_scores(masked_lm, tokenizer, items, task.candidates, task.templates)
        result["masked"] = _masked_result(scores, items)
    return result


def _result(predictions: np.ndarray, items: list[dict]) -> dict:
    right = [_is_right(item, int(prediction)) for item, prediction in zip(items, predictions)]
    return {"accuracy": float(np.mean(right)), "right": right}


def _is_right(item: dict, prediction: int) -> bool:
    """Where people are torn between several answers, each is right."""
    if "distribution" in item:
        return item["distribution"][prediction] == max(item["distribution"])
    return prediction == item["label"]


def _masked_result(scores: np.ndarray, items: list[dict]) -> dict:
    """Of scores `[templates, items, candidates]`."""
    mean = scores.mean(0)
    result = _result(mean.argmax(-1), items)
    result["by_template"] = [_result(one.argmax(-1), items)["accuracy"] for one in scores]
    if "contrast" in items[0]:
        above = [row[item["label"]] > row[item["contrast"]] for row, item in zip(mean, items)]
        result["contrast"] = float(np.mean(above))
    if "distribution" in items[0]:
        values = [spearmanr(row, item["distribution"]).statistic for row, item in zip(mean, items)]
        result["spearman"] = float(np.nanmean(values))
    return result


def read_memory_colors(path: Path) -> list[dict]:
    rows = read_json_lines(path, ("descriptor", "item", "label"))
    return [
        {
            "object": row["item"],
            "phrase": f"{row['descriptor']} {row['item']}".strip(),
            "label": _index(COLOURS, row["label"], path),
        }
        for row in rows
    ]


def read_coda(path: Path) -> list[dict]:
    """Objects of `objects.jsonl` with the mean of their annotators' answers, each of which counts as much."""
    answers: dict[str, list] = {}
    for row in read_json_lines(path, ("class_id", "included")):
        if row["included"]:
            given = np.array([row[colour] for colour in CODA_COLOURS], dtype=float)
            answers.setdefault(row["class_id"], []).append(given / given.sum())
    items = []
    objects = beside(path, "objects.jsonl", "the objects")
    for row in read_json_lines(objects, ("class_id", "object_s", "object_pl", "areis_pl")):
        distribution = np.mean(answers[row["class_id"]], 0)
        items.append(
            {
                "object": row["object_s"] or row["object_pl"],  # cosmetics have no singular
                "plural": row["object_pl"],
                "are": row["areis_pl"],
                "label": int(distribution.argmax()),
                "distribution": distribution.tolist(),
            }
        )
    return items


def read_vicomte(path: Path, candidates: tuple[str, ...]) -> list[dict]:
    return [
        {
            "object": row["sub"],
            "label": _index(candidates, row["obj"], path),
            "contrast": _index(candidates, row["alt"], path),
        }
        for row in read_json_lines(path, ("sub", "obj", "alt"))
    ]


def read_comparisons(path: Path) -> list[dict]:
    """Size and height: label 1 says that the first object is the greater one."""
    return [
        {
            "object": row["obj_a"],
            "other": row["obj_b"],
            "a": _with_article(row["obj_a"]),
            "b": _with_article(row["obj_b"]),
            "label": 1 - row["label"],  # the first candidate says that it is greater
        }
        for row in read_json_lines(path, ("obj_a", "obj_b", "label"))
    ]


def read_positions(path: Path) -> list[dict]:
    return [
        {
            "sentence": row["text"].strip(),
            "object": row["obj_a"],
            "other": row["obj_b"],
            "label": row["label"],
        }
        for row in read_json_lines(path, ("text", "obj_a", "obj_b", "label"))
    ]


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _index(candidates: tuple[str, ...], word: str, path: Path) -> int:
    if word not in candidates:
        raise ValueError(f"{path} has the answer {word!r}, which is none of {', '.join(candidates)}")
    return candidates.index(word)


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


COLOUR_TEMPLATES = (
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
        candidates=COLOURS,
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
        candidates=CODA_COLOURS,
        templates=(
            "most {plural} {are} {word}.",
            "usually, {plural} {are} {word}.",
            "all {plural} {are} {word}.",
            "the color of {plural} is {word}.",
        ),
    ),
    "vicomte_color": _vicomte("ViComTe colour", "color", VICOMTE_COLOURS, COLOUR_TEMPLATES),
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
