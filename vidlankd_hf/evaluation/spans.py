"""Answers as spans of a context: windows with a stride, and the n best spans over them."""

from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

N_BEST = 20


class Span(NamedTuple):
    """What is predicted for a question.

    Args:
        text: The answer, a span of the context; empty for none.
        null_odds: Score of "no answer" minus that of the best span.
        best: The best span's text, whether or not it is the answer.
        n_best: The best spans, `{"text", "probability", "start_logit", "end_logit"}`, best first.
    """

    text: str
    null_odds: float
    best: str
    n_best: list[dict]


def encode_spans(rows: list[dict], tokenizer: PreTrainedTokenizerBase, options) -> list[dict]:
    """Windows of every row's context beside its question.

    A window's target is the first answer if it lies wholly inside, else its first token. Each also has `row`
    (its row's index) and `offsets` (`[L, 2]` characters of the context, -1 outside it).

    Raises:
        ValueError: The tokenizer is not a fast one, or a question leaves no room for its context.
    """
    if not tokenizer.is_fast:
        raise ValueError(f"{type(tokenizer).__name__} is not a fast tokenizer, which tells where tokens are in a text")
    questions = [row["question"].strip() for row in rows]
    room = options.max_length - tokenizer.num_special_tokens_to_add(pair=True)
    lengths = [len(ids) for ids in tokenizer(questions, add_special_tokens=False)["input_ids"]]
    longest = max(lengths)
    stride = min(options.doc_stride, (room - longest) // 2)
    if stride < 1:
        raise ValueError(
            f"a question has {longest} tokens, which leaves no room for its context in {options.max_length}: give a "
            "greater --max_length"
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
    """First and last token of the first answer, or the first token twice."""
    answers = row["answers"]
    if not answers["text"]:
        return 0, 0
    begin = answers["answer_start"][0]
    stop = begin + len(answers["text"][0])
    covered = np.flatnonzero((offsets[:, 1] > begin) & (offsets[:, 0] < stop) & (offsets[:, 0] >= 0))
    context = np.flatnonzero(offsets[:, 0] >= 0)
    whole = len(context) and offsets[context[0], 0] <= begin and offsets[context[-1], 1] >= stop
    return (int(covered[0]), int(covered[-1])) if whole and len(covered) else (0, 0)


def best_spans(
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    features: list[dict],
    rows: list[dict],
    options,
    may_be_unanswerable: bool,
) -> list[Span]:
    """The answer to every row from the logits `[N, L]` of all its windows.

    A window's score of "no answer" is that of its first token; the least of a row's windows counts, as in the original
    BERT code.
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
    spans = []
    for row, found, null in zip(rows, candidates, null_scores):
        found = sorted(found, key=lambda c: (-c[0], c[1], c[2]))
        n_best = {}
        for score, begin, stop, start, end in found:
            text = row["context"][begin:stop]
            if text not in n_best and len(n_best) < N_BEST:
                n_best[text] = {"text": text, "score": score, "start_logit": float(start), "end_logit": float(end)}
        entries = list(n_best.values())
        if may_be_unanswerable:
            entries.append({"text": "", "score": null, "start_logit": float(null), "end_logit": 0.0})
            entries.sort(key=lambda entry: -entry["score"])
        shares = np.array([entry.pop("score") for entry in entries], dtype=float)
        best_score = max((c[0] for c in found), default=-np.inf)
        best = next((entry["text"] for entry in entries if entry["text"]), "")
        odds = float(null - best_score)
        shares = np.exp(shares - shares.max()) if len(shares) else shares
        for entry, share in zip(entries, shares / shares.sum() if len(shares) else shares):
            entry["probability"] = float(share)
        unanswered = may_be_unanswerable and odds > options.null_threshold
        spans.append(Span("" if unanswered else best, odds if np.isfinite(odds) else 1e9, best, entries))
    return spans
