"""The grounded world as a fine-tuning task: questions about attributes of nouns, scored on unseen nouns.

A probe reads frozen states; here all weights are trained on questions. The score says whether what a student knows
about the other nouns survives fine-tuning and is of use.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np

from ...evaluation.metrics import load_metric
from ...evaluation.reading import check_fields, open_text
from ...evaluation.task import Task, make_recipe
from .language import NOUNS_PER_BALANCED_SET
from .render import ATTRIBUTES

LABELS = tuple(f"{attribute}: {value}" for attribute, values in ATTRIBUTES.items() for value in values)
QUESTIONS = {
    "colour": ("what colour is the {noun}", "tell me the colour of a {noun}"),
    "shape": ("what shape is the {noun}", "tell me the shape of a {noun}"),
    "motion": ("what motion has the {noun}", "tell me the motion of a {noun}"),
}


def read_world(path: Path, split: str) -> list[dict]:
    """Two questions per attribute of a noun: about two thirds of the nouns, or (`validation`) about the others."""
    with open_text(path) as file:
        nouns = json.load(file)
    for noun in nouns:
        check_fields(f"a noun of {path}", noun, ("noun", *QUESTIONS))
    order = np.random.default_rng(0).permutation(len(nouns))
    first = max(len(nouns) // 3, 1)
    chosen = sorted(order[:first] if split == "validation" else order[first:])
    if len(nouns) < NOUNS_PER_BALANCED_SET:
        raise ValueError(
            f"{path} has {len(nouns)} nouns, but a world has at least {NOUNS_PER_BALANCED_SET}: make a new world"
        )
    asked = [(nouns[i], attribute, text) for i in chosen for attribute, texts in QUESTIONS.items() for text in texts]
    return [
        {
            "texts": [text.format(noun=noun["noun"])],
            "label": LABELS.index(f"{attribute}: {noun[attribute]}"),
            "group": attribute,
        }
        for noun, attribute, text in asked
    ]


WORLD = Task(
    title="the grounded world",
    folder="world",
    files={"train": "nouns.json", "validation": "nouns.json"},
    parse=read_world,
    metric=partial(load_metric, "accuracy", "by_group"),
    recipe=make_recipe(5e-4, epochs=10.0, batch_size=32, max_length=32),
    labels=LABELS,
    reference=lambda row: {"label": row["label"], "group": row["group"]},
)
