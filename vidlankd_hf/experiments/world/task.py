"""The grounded world as a fine-tuning task: questions about attributes of nouns, scored on unseen nouns.

A probe reads frozen states; here all weights are trained on questions. The score says whether a student's
knowledge of the other nouns survives fine-tuning and can be used.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np

from ...evaluation.metrics import load_metric
from ...evaluation.reading import open_text
from ...evaluation.task import Task, make_recipe
from .render import ATTRIBUTES

LABELS = tuple(f"{attribute}: {value}" for attribute, values in ATTRIBUTES.items() for value in values)
QUESTIONS = {
    "colour": ("what colour is the {noun}", "tell me the colour of a {noun}"),
    "shape": ("what shape is the {noun}", "tell me the shape of a {noun}"),
    "motion": ("what motion has the {noun}", "tell me the motion of a {noun}"),
}


def read_world(path: Path, split: str) -> list[dict]:
    """Reads two questions per attribute and noun: on two thirds of the nouns, or on the others (`validation`)."""
    with open_text(path) as file:
        nouns = json.load(file)
    held_out, rest = np.split(np.random.default_rng(0).permutation(len(nouns)), [len(nouns) // 3])
    chosen = sorted(held_out if split == "validation" else rest)
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
