"""Extractive question answering: overlapping windows of a context, and the best answer spans over all windows."""

from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

N_BEST = 20


class Span(NamedTuple):
    """The prediction for a question.

    Args:
        text: The answer, a span of the context; empty for "no answer".
        null_odds: Score of "no answer" minus the score of the best span.
        best: Text of the best span, even if the answer is empty.
        n_best: The best spans, `{"text", "probability", "start_logit", "end_logit"}`, best first.
    """

    text: str
    null_odds: float
    best: str
    n_best: list[dict]


def encode_spans(rows: list[dict], tokenizer: PreTrainedTokenizerBase, options) -> list[dict]:
    """Encodes every row's question with overlapping windows of its context.

    Args:
        rows: Rows with `question`, `context` and, for training, `answers`.
        tokenizer: A fast tokenizer.
        options: The [`Options`]: length of a window and number of tokens that neighboring windows share.

    Returns:
        One feature per window: the model inputs, `row` (index of its row), `offsets` (`[L, 2]` characters of the
        context, -1 for other tokens), and the target `start_positions` and `end_positions`: the first answer if the
        window contains all of it, otherwise the first token.

    Raises:
        ValueError: The tokenizer is not a fast one, or a question leaves no room for its context.
    """
    if not tokenizer.is_fast:
        raise ValueError(f"{type(tokenizer).__name__} has no character offsets: use a fast tokenizer")
    questions = [row["question"].strip() for row in rows]
    room = options.max_length - tokenizer.num_special_tokens_to_add(pair=True)
    lengths = [len(ids) for ids in tokenizer(questions, add_special_tokens=False)["input_ids"]]
    longest = max(lengths)
    stride = min(options.doc_stride, (room - longest) // 2)
    if stride < 1:
        raise ValueError(
            f"a question has {longest} tokens, which leaves no room for its context in {options.max_length} tokens: "
            "increase --max_length"
        )
    encoded = tokenizer(
        questions,
        [row["context"] for row in rows],
        truncation="only_second",
        max_length=options.max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    owners = encoded.pop("overflow_to_sample_mapping")
    all_offsets = encoded.pop("offset_mapping")
    features = []
    for i, owner in enumerate(owners):
        in_context = np.array([part == 1 for part in encoded.sequence_ids(i)])
        offsets = np.where(in_context[:, None], np.array(all_offsets[i]), -1)
        start, end = _target(rows[owner], offsets)
        feature = {name: values[i] for name, values in encoded.items()}
        features.append({**feature, "row": owner, "offsets": offsets, "start_positions": start, "end_positions": end})
    return features


def _target(row: dict, offsets: np.ndarray) -> tuple[int, int]:
    """Returns the first and last token of the first answer, or the first token twice."""
    answers = row.get("answers")  # unlabeled rows have none
    if not answers or not answers["text"]:
        return 0, 0
    begin = answers["answer_start"][0]
    stop = begin + len(answers["text"][0])
    covered = np.flatnonzero((offsets[:, 1] > begin) & (offsets[:, 0] < stop) & (offsets[:, 0] >= 0))
    context = np.flatnonzero(offsets[:, 0] >= 0)
    complete = len(context) and offsets[context[0], 0] <= begin and offsets[context[-1], 1] >= stop
    return (int(covered[0]), int(covered[-1])) if complete and len(covered) else (0, 0)


def best_spans(
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    features: list[dict],
    rows: list[dict],
    options,
    may_be_unanswerable: bool,
) -> list[Span]:
    """Chooses the answer to every row from the logits `[N, L]` of all windows.

    A window's score of "no answer" is that of its first token. The minimum over a row's windows counts, as in the
    original BERT code.

    Args:
        start_logits, end_logits: `[N, L]` for the N features.
        features: Features from [`encode_spans`].
        rows: The rows that were encoded.
        options: The [`Options`]: length of an answer and threshold of "no answer".
        may_be_unanswerable: Whether "no answer" is a possible answer.
    """
    candidates: list[list[tuple]] = [[] for _ in rows]
    null_scores = np.full(len(rows), np.inf)
    for start, end, feature in zip(start_logits, end_logits, features):
        offsets, row = feature["offsets"], feature["row"]
        length = len(offsets)
        null_scores[row] = min(null_scores[row], start[0] + end[0])
        inside = offsets[:, 0] >= 0
        scores = np.where(inside, start[:length], -np.inf)[:, None] + np.where(inside, end[:length], -np.inf)[None]
        first, last = np.ogrid[:length, :length]
        scores[(last < first) | (last - first >= options.max_answer_length)] = -np.inf
        flat = scores.ravel()
        kept = np.argpartition(-flat, min(N_BEST, flat.size - 1))[:N_BEST]
        for place in kept[np.isfinite(flat[kept])]:
            s, e = divmod(int(place), length)
            candidates[row].append((flat[place], int(offsets[s, 0]), int(offsets[e, 1]), start[s], end[e]))
    return [
        _answer(row["context"], found, null, options.null_threshold if may_be_unanswerable else None)
        for row, found, null in zip(rows, candidates, null_scores)
    ]


def _answer(context: str, candidates: list[tuple], null: np.float64, null_threshold: float | None) -> Span:
    """Chooses the answer from `(score, begin, end, start_logit, end_logit)` and the score of "no answer"."""
    n_best: dict[str, dict] = {}
    for score, begin, stop, start, end in sorted(candidates, key=lambda c: (-c[0], c[1], c[2])):
        text = context[begin:stop]
        if text not in n_best and len(n_best) < N_BEST:
            n_best[text] = {"text": text, "score": score, "start_logit": float(start), "end_logit": float(end)}
    entries = list(n_best.values())
    best = next((entry["text"] for entry in entries if entry["text"]), "")
    odds = float(null - max((c[0] for c in candidates), default=-np.inf))
    if null_threshold is not None:
        entries.append({"text": "", "score": null, "start_logit": float(null), "end_logit": 0.0})
        entries.sort(key=lambda entry: -entry["score"])
    scores = np.array([entry.pop("score") for entry in entries], dtype=float)
    shares = np.exp(scores - scores.max(initial=-np.inf))
    for entry, share in zip(entries, shares):
        entry["probability"] = float(share / shares.sum())
    unanswered = null_threshold is not None and odds > null_threshold
    return Span("" if unanswered else best, odds if np.isfinite(odds) else 1e9, best, entries)
