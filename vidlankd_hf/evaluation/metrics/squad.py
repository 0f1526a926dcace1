"""Exact match and F1 of SQuAD 1.1 and 2.0 (Rajpurkar et al., EMNLP 2016 and ACL 2018), from 0 to 100.

The code follows the official scripts, which differ from each other in details that no library covers.
"""

import re
import string
from collections import Counter

import datasets
import evaluate

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Squad(evaluate.Metric):
    """Scores of SQuAD 1.1, or of SQuAD 2.0 with the configuration `squad_v2`.

    Predictions are `{"id", "text", "null_odds", "best"}`: the answer, the score of "no answer" minus that of the best
    span, and the best span even if the answer is empty. References are `{"id", "answers": {"text": [...],
    "answer_start": [...]}}`.

    Version 2.0 adds the scores of questions with (`HasAns_*`) and without an answer (`NoAns_*`), and the best score
    that any threshold on `null_odds` would reach (`best_*`).
    """

    def _info(self):
        number, text = datasets.Value("float64"), datasets.Value("string")
        answers = {"text": datasets.List(text), "answer_start": datasets.List(datasets.Value("int64"))}
        predictions = {"id": text, "text": text, "null_odds": number, "best": text}
        return evaluate.MetricInfo(
            description="SQuAD",
            citation="Rajpurkar et al., EMNLP 2016 and ACL 2018",
            features=datasets.Features({"predictions": predictions, "references": {"id": text, "answers": answers}}),
        )

    def _compute(self, predictions, references):
        if not references:
            raise ValueError("there is nothing to score: give at least one prediction and its reference")
        version_2 = self.config_name == "squad_v2"
        given = {prediction["id"]: prediction for prediction in predictions}
        missing = [reference["id"] for reference in references if reference["id"] not in given]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(references)} questions have no prediction, such as {missing[0]!r}: give one "
                "prediction per question"
            )
        golds = {reference["id"]: reference["answers"]["text"] for reference in references}
        scores = {id: question_scores(given[id]["text"], answers, version_2) for id, answers in golds.items()}
        result = _means(list(scores.values()))
        if version_2:
            for name, answerable in (("HasAns", True), ("NoAns", False)):
                part = [score for id, score in scores.items() if bool(golds[id]) == answerable]
                result |= {f"{name}_{key}": value for key, value in _means(part).items()}
            best = {id: question_scores(given[id]["best"], answers, True) for id, answers in golds.items()}
            for i, name in enumerate(("exact_match", "f1")):
                value, threshold = _best_threshold(given, golds, {id: pair[i] for id, pair in best.items()})
                result |= {f"best_{name}": value, f"best_{name}_threshold": threshold}
        return result


def normalize(text: str) -> str:
    """Lower-cases a text and removes ASCII punctuation, articles and extra white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def question_scores(answer: str, golds: list[str], version_2: bool) -> tuple[float, float]:
    """Returns exact match and F1 of one answer, from 0 to 1, each for the gold answer that fits best.

    Version 2.0 ignores gold answers that are empty after normalization, and treats a question without any as
    unanswerable, with the gold answer "".

    Raises:
        ValueError: A question of version 1.1 has no gold answer.
    """
    if version_2:
        golds = [gold for gold in golds if normalize(gold)] or [""]
    if not golds:
        raise ValueError("a question has no answer, which only SQuAD 2.0 allows: use squad_v2 for these data")
    exact = max(float(normalize(answer) == normalize(gold)) for gold in golds)
    return exact, max(_f1(answer, gold, version_2) for gold in golds)


def _f1(answer: str, gold: str, version_2: bool) -> float:
    """F1 over words. Two empty answers score 1 in version 2.0 and 0 in version 1.1."""
    words, gold_words = normalize(answer).split(), normalize(gold).split()
    if not words or not gold_words:
        return float(version_2 and words == gold_words)
    common = sum((Counter(words) & Counter(gold_words)).values())
    return 2 * common / (len(words) + len(gold_words))


def _means(pairs: list[tuple[float, float]]) -> dict[str, float]:
    names = ("exact_match", "f1") if pairs else ()
    return {name: 100 * sum(pair[i] for pair in pairs) / len(pairs) for i, name in enumerate(names)}


def _best_threshold(given: dict, golds: dict, scores: dict[str, float]) -> tuple[float, float]:
    """The best score and its threshold, found by answering the questions one by one in the order of `null_odds`."""
    current = best = float(sum(not answers for answers in golds.values()))
    threshold = 0.0
    for id in sorted(golds, key=lambda id: given[id]["null_odds"]):
        if golds[id]:
            current += scores[id]
        elif given[id]["best"]:
            current -= 1
        if current > best:
            best, threshold = current, given[id]["null_odds"]
    return 100 * best / len(golds), threshold
