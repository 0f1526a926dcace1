"""SQuAD's exact match and F1, versions 1.1 and 2.0, as an `evaluate.Metric` that needs no Hub; to 100, as official."""

import re
import string
from collections import Counter

import datasets
import evaluate

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """Lower case, without ASCII punctuation, articles and extra white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, gold: str) -> float:
    return float(normalize(answer) == normalize(gold))


def f1(answer: str, gold: str, no_answer_counts: bool = True) -> float:
    """F1 over words. If one side has none: 1 if both have none, which version 1.1 counts as 0."""
    words, gold_words = normalize(answer).split(), normalize(gold).split()
    if not words or not gold_words:
        return float(no_answer_counts and words == gold_words)
    common = sum((Counter(words) & Counter(gold_words)).values())
    return 2 * common / (len(words) + len(gold_words))


def question_scores(answer: str, golds: list[str], version_2: bool) -> tuple[float, float]:
    """Exact match and F1 of one question, of the gold answer that suits best.

    Version 2.0 leaves out gold answers that normalisation empties, and an unanswerable question's answer is empty.

    Raises:
        ValueError: A question of version 1.1 without any gold answer.
    """
    if version_2:
        golds = [gold for gold in golds if normalize(gold)] or [""]
    if not golds:
        raise ValueError("a question has no answer: SQuAD 2.0 has such questions, SQuAD 1.1 has none")
    return max(exact_match(answer, gold) for gold in golds), max(f1(answer, gold, version_2) for gold in golds)


class SquadMetric(evaluate.Metric):
    """`SquadMetric("squad")` or `SquadMetric("squad_v2")`.

    Predictions are `{"id", "text", "null_odds", "best"}`: `best` the best span, also where the answer is none, and
    `null_odds` how much "no answer" beats it by. References are `{"id", "answers": {"text": [...], "answer_start":
    [...]}}`. For version 2.0 also the scores of questions with and without answer, and the best that any threshold on
    `null_odds` would reach.
    """

    def _info(self):
        number, text = datasets.Value("float64"), datasets.Value("string")
        answers = {"text": datasets.List(text), "answer_start": datasets.List(datasets.Value("int64"))}
        return evaluate.MetricInfo(
            description="SQuAD",
            citation="Rajpurkar et al., EMNLP 2016 and ACL 2018",
            inputs_description="",
            features=datasets.Features(
                {
                    "predictions": {"id": text, "text": text, "null_odds": number, "best": text},
                    "references": {"id": text, "answers": answers},
                }
            ),
        )

    def _compute(self, predictions, references):
        version_2 = self.config_name == "squad_v2"
        given = {prediction["id"]: prediction for prediction in predictions}
        missing = [reference["id"] for reference in references if reference["id"] not in given]
        if missing or not references:
            raise ValueError(f"{len(missing)} of {len(references)} questions have no prediction ({missing[:3]})")
        golds = {reference["id"]: reference["answers"]["text"] for reference in references}
        scores = {id: question_scores(given[id]["text"], answers, version_2) for id, answers in golds.items()}
        result = _means(scores.values())
        if version_2:
            for name, answerable in (("HasAns", True), ("NoAns", False)):
                part = [score for id, score in scores.items() if bool(golds[id]) == answerable]
                if part:
                    result |= {f"{name}_{key}": value for key, value in _means(part).items()}
            best = {id: question_scores(given[id]["best"], answers, True) for id, answers in golds.items()}
            for i, name in enumerate(("exact_match", "f1")):
                value, threshold = _best_threshold(given, golds, {id: pair[i] for id, pair in best.items()})
                result |= {f"best_{name}": value, f"best_{name}_threshold": threshold}
        return result


def _means(scores) -> dict[str, float]:
    pairs = list(scores)
    names = ("exact_match", "f1")
    return {name: 100 * sum(pair[i] for pair in pairs) / len(pairs) for i, name in enumerate(names)}


def _best_threshold(given: dict, golds: dict, scores: dict[str, float]) -> tuple[float, float]:
    """As the official script: questions are answered in the order of `null_odds`, and the best moment is kept."""
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
