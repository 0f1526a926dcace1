"""Extractive question answering: windows of a context and their targets, and the best span over all windows."""

import numpy as np
import pytest
from downstream_data import make_pair_tokenizer
from helpers import WORDS

from vidlankd_hf.evaluation.heads import Options
from vidlankd_hf.evaluation.spans import best_spans, encode_spans


def qa_rows(words=60, unanswerable=False):
    context = " ".join(WORDS[i % 50] for i in range(words))
    answer = " ".join(WORDS[33:36])
    answers = {"text": [answer], "answer_start": [context.index(answer)]}
    none = {"text": [], "answer_start": []}
    return [{"id": "q", "question": WORDS[55], "context": context, "answers": none if unanswerable else answers}]


def test_windows_cover_the_context_and_the_target_is_the_answer_if_it_is_complete():
    tokenizer, rows = make_pair_tokenizer(), qa_rows()
    features = encode_spans(rows, tokenizer, Options(max_length=20, doc_stride=5))
    covered, found = set(), 0
    for feature in features:
        inside = [tuple(pair) for pair in feature["offsets"].tolist() if pair[0] >= 0]
        covered |= set(inside)
        start, end = feature["start_positions"], feature["end_positions"]
        assert len(feature["input_ids"]) <= 20
        if (start, end) == (0, 0):
            continue
        found += 1
        text = rows[0]["context"][feature["offsets"][start][0] : feature["offsets"][end][1]]
        assert text == rows[0]["answers"]["text"][0]
    assert len(covered) == 60 and 1 <= found < len(features)
    assert {f["start_positions"] for f in encode_spans(qa_rows(unanswerable=True), tokenizer, Options(20, 5))} == {0}


def test_the_best_span_over_all_windows_wins_unless_no_answer_scores_higher():
    tokenizer, rows, options = (
        make_pair_tokenizer(),
        qa_rows(),
        Options(max_length=20, doc_stride=5, max_answer_length=3),
    )
    features = encode_spans(rows, tokenizer, options)
    start, end = np.zeros((2, len(features), 20))
    start[:, 0] = end[:, 0] = 1.0  # "no answer" scores 2 in every window but one
    chosen = next(i for i, feature in enumerate(features) if feature["start_positions"])
    a, b = features[chosen]["start_positions"], features[chosen]["end_positions"]
    start[chosen, a] = end[chosen, b] = 4.0
    start[chosen, 1] = end[chosen, 0] = 9.0  # neither the question nor a span that ends before it starts is an answer
    start[0, 0] = 0.0
    (span,) = best_spans(start, end, features, rows, options, may_be_unanswerable=True)
    assert span.text == span.best == rows[0]["answers"]["text"][0] and span.null_odds == 1.0 - 8.0
    (span,) = best_spans(start, end, features, rows, Options(20, 5, 2), may_be_unanswerable=True)
    assert span.best != rows[0]["answers"]["text"][0], "it is too long now"
    (span,) = best_spans(start, end, features, rows, Options(20, 5, 3, null_threshold=-8.0), may_be_unanswerable=True)
    assert span.text == "" and span.best == rows[0]["answers"]["text"][0]
    (span,) = best_spans(start, end, features, rows, Options(20, 5, 3, null_threshold=-8.0), may_be_unanswerable=False)
    assert span.text == rows[0]["answers"]["text"][0]


def test_a_question_without_room_for_its_context_is_an_error():
    rows = [{**qa_rows()[0], "question": " ".join(WORDS[:20])}]
    with pytest.raises(ValueError, match="20 tokens, which leaves no room for its context in 22"):
        encode_spans(rows, make_pair_tokenizer(), Options(max_length=22))
