"""Task heads: from rows to features, from features to batches, and from outputs to losses and predictions.

Each head has `auto` (the model class), `encode(rows, tokenizer, options)` (features in the order of the rows),
`losses(outputs, batch)` (`[B]`, one per feature; a step's loss is their mean) and
`decode(logits, features, rows, options)` (one prediction per row).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerBase,
)

from .spans import Span, best_spans, encode_spans


@dataclass(frozen=True)
class Options:
    """How texts are truncated and answers are chosen.

    Args:
        max_length: Maximum length of a sequence in tokens, with special tokens.
        doc_stride: Number of tokens that neighboring windows of a context share.
        max_answer_length: Maximum length of an answer in tokens.
        null_threshold: A question stays unanswered if "no answer" scores higher than the best span by more than this.
    """

    max_length: int = 126
    doc_stride: int = 128
    max_answer_length: int = 30
    null_threshold: float = 0.0


class Head:
    """Base class of the heads, for tasks with one label per row."""

    auto: Any = AutoModelForSequenceClassification
    task_type = "text-classification"

    def model_options(self, labels: Sequence[str]) -> dict:
        """Returns options for `from_pretrained`, such as the number of labels."""
        return {}

    def encode(self, rows: list[dict], tokenizer: PreTrainedTokenizerBase, options: Options) -> list[dict]:
        """Tokenizes rows into features: the model's inputs, and `labels` if all rows have one."""
        texts = [[row["texts"][i] for row in rows] for i in range(len(rows[0]["texts"]))]
        ids = tokenizer(*texts, truncation=True, max_length=options.max_length)
        features = [{name: values[i] for name, values in ids.items()} for i in range(len(rows))]
        return _with_labels(features, rows)

    def losses(self, outputs, batch: dict[str, Tensor]) -> Tensor:
        """Returns the loss of each feature, `[B]`."""
        return functional.cross_entropy(outputs.logits.float(), batch["labels"], reduction="none")

    def decode(self, logits: np.ndarray, features: list[dict], rows: list[dict], options: Options) -> list:
        """Returns the prediction for each row, from the logits `[N, C]` of its features."""
        return logits.argmax(-1).tolist()


class Classification(Head):
    """Predicts one of several classes."""

    def model_options(self, labels):
        return {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}


class Regression(Head):
    """Predicts a number."""

    def model_options(self, labels):
        return {"num_labels": 1}

    def losses(self, outputs, batch):
        return functional.mse_loss(outputs.logits[:, 0].float(), batch["labels"].float(), reduction="none")

    def decode(self, logits, features, rows, options):
        return logits[:, 0].astype(float).tolist()


class Choice(Head):
    """Predicts one of several candidates. The same classifier scores each candidate together with its context."""

    auto = AutoModelForMultipleChoice
    task_type = "multiple-choice"

    def encode(self, rows, tokenizer, options):
        count = len(rows[0]["texts"])
        pairs = [pair for row in rows for pair in row["texts"]]
        ids = tokenizer(*map(list, zip(*pairs)), truncation=True, max_length=options.max_length)
        features = [
            {name: values[i * count : (i + 1) * count] for name, values in ids.items()} for i in range(len(rows))
        ]
        return _with_labels(features, rows)


class Spans(Head):
    """Predicts a span of the context, or no answer. Long contexts are split into overlapping windows."""

    auto = AutoModelForQuestionAnswering
    task_type = "question-answering"

    def __init__(self, may_be_unanswerable: bool):
        self.may_be_unanswerable = may_be_unanswerable

    def model_options(self, labels):
        return {"num_labels": 2}  # start and end

    def encode(self, rows, tokenizer, options):
        return encode_spans(rows, tokenizer, options)

    def losses(self, outputs, batch):
        start = functional.cross_entropy(outputs.start_logits.float(), batch["start_positions"], reduction="none")
        end = functional.cross_entropy(outputs.end_logits.float(), batch["end_positions"], reduction="none")
        return (start + end) / 2

    def decode(self, logits, features, rows, options) -> list[Span]:
        start, end = logits
        return best_spans(start, end, features, rows, options, self.may_be_unanswerable)


def _with_labels(features: list[dict], rows: list[dict]) -> list[dict]:
    if all(row["label"] is not None for row in rows):
        for feature, row in zip(features, rows):
            feature["labels"] = row["label"]
    return features


MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
TARGETS = ("labels", "start_positions", "end_positions")


class Collator:
    """Pads features to the longest in the batch: `[B, C, L]` for C candidates, otherwise `[B, L]`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer

    def __call__(self, features: list[dict]) -> dict[str, Tensor]:
        flat = [{name: feature[name] for name in MODEL_INPUTS if name in feature} for feature in features]
        choices = isinstance(features[0]["input_ids"][0], list)
        if choices:
            flat = [dict(zip(row, values)) for row in flat for values in zip(*row.values())]
        batch = dict(self.tokenizer.pad(flat, return_tensors="pt"))
        if choices:
            batch = {name: value.unflatten(0, (len(features), -1)) for name, value in batch.items()}
        for name in TARGETS:
            if name in features[0]:
                batch[name] = torch.tensor([feature[name] for feature in features])
        return batch


def length_of(feature: dict) -> int:
    """Returns the number of tokens in a feature's longest sequence."""
    ids = feature["input_ids"]
    return max(map(len, ids)) if isinstance(ids[0], list) else len(ids)
