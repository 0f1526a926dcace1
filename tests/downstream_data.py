"""A few rows of every downstream task in its official layout, in the vocabulary of `helpers.make_tokenizer`."""

import json
from pathlib import Path

import numpy as np
from helpers import WORDS, make_tokenizer
from tokenizers.processors import TemplateProcessing

from vidlankd_hf.evaluation.trainer import FinetuningArguments
from vidlankd_hf.evaluation.zero_shot import CODA_COLORS, COLORS, MATERIALS, POSITIONS, VICOMTE_COLORS, ZERO_SHOT

ROWS = {"train": 12, "dev": 9, "test": 3}
GOOD, BAD = WORDS[0], WORDS[1]  # the label can be read from these words

TEMPLATE_WORDS = sorted({
    *"the color of is most what it usually has everyone knows that all made material from than compared with yes much "
    "now so must be at a an are inside above below beside".split(), ".", "?", ",", ":",
})  # fmt: skip
VOCABULARY = list(
    dict.fromkeys([*WORDS, *TEMPLATE_WORDS, *(w for task in ZERO_SHOT.values() for w in task.candidates)])
)


def make_pair_tokenizer(words=WORDS):
    """Returns `helpers.make_tokenizer` with BERT's special tokens around one or two texts."""
    tokenizer = make_tokenizer(words)
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
    )
    return tokenizer


def sentence(i: int, label: int = 0) -> str:
    """Returns 1 to 12 words, the first of which reveals the label."""
    drawn = np.random.default_rng(i).integers(2, len(WORDS), 1 + i * 5 % 11)
    return " ".join([(BAD, GOOD)[label % 2], *(WORDS[j] for j in drawn)])


def write(path: Path, lines: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join("\t".join(map(str, line)) if isinstance(line, tuple) else line for line in lines) + "\n")


def make_data(root: Path) -> Path:
    """Writes each task into a folder below `root`."""
    for split, count in ROWS.items():
        _glue(root / "glue", split, range(count), labelled=split != "test")
        _choices(root, split, range(count), labelled=split != "test")
        for version in ("v1.1", "v2.0"):
            write(root / "squad" / f"{split}-{version}.json", [json.dumps(_squad(count, split, version == "v2.0"))])
    header = ("Lexical Semantics", "Predicate-Argument Structure", "Logic", "Knowledge", "Domain", "Premise",
              "Hypothesis", "Label")  # fmt: skip
    full = [("Factivity", "", "Negation;Conditionals", "", "News", sentence(i), sentence(i + 1), label)
            for i, label in enumerate(("entailment", "neutral", "contradiction", "neutral"))]  # fmt: skip
    full[0] = ("", "", "", "World knowledge", "", *full[0][5:])
    write(root / "glue" / "diagnostic" / "diagnostic-full.tsv", [header, *full])
    plain = [(i, sentence(i), sentence(i + 1)) for i in range(4)]
    write(root / "glue" / "diagnostic" / "diagnostic.tsv", [("index", "sentence1", "sentence2"), *plain])
    for folder, train in (("iid", "tracie_train.txt"), ("uniform-prior", "tracie_train_uniform_prior.txt")):
        times = ("starts before", "starts after", "ends before")
        lines = [f"event: {sentence(i, i)} {times[i % 3]} {WORDS[5]} story: {sentence(i // 3)}\t"
                 f"answer: {('negative', 'positive')[i % 2]}" for i in range(12)]  # fmt: skip
        write(root / "tracie" / folder / train, lines)
        write(root / "tracie" / folder / "tracie_test.txt", lines[:8])
    _visual_commonsense(root / "visual_commonsense")
    return root


def _glue(root: Path, split: str, rows, labelled: bool) -> None:
    def table(folder, header, line, names=(split,)):
        for name in names:
            write(root / folder / f"{name}.tsv", [header, *(line(i) for i in rows)])

    pair = ("index", "sentence1", "sentence2")
    if labelled:
        write(root / "CoLA" / f"{split}.tsv", [("gj04", i % 2, "" if i % 2 else "*", sentence(i, i)) for i in rows])
        table("SST-2", ("sentence", "label"), lambda i: (sentence(i, i), i % 2))
        header = ("\ufeffQuality", "#1 ID", "#2 ID", "#1 String", "#2 String")
        table("MRPC", header, lambda i: (i % 2, i, i + 9, f'" {sentence(i, i)}', sentence(i)))
        stsb = ("index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2")
        line = ("genre", "file", "2012", "0000", "none", "none")
        table("STS-B", (*stsb, "score"), lambda i: (i, *line, sentence(i, i), sentence(i), f"{i % 6}.250"))
        table("QQP", ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
              lambda i: (i, i, i, sentence(i, i), sentence(i), i % 2))  # fmt: skip
        names = ("train",) if split == "train" else ("dev_matched", "dev_mismatched")
        gold = ("entailment", "neutral", "contradiction")
        table("MNLI", (*pair, "label1", "gold_label"),
              lambda i: (i, sentence(i, i), sentence(i), "x", gold[i % 3]), names)  # fmt: skip
        nli = lambda i: (i, sentence(i, i), sentence(i), ("entailment", "not_entailment")[i % 2])  # noqa: E731
        table("QNLI", ("index", "question", "sentence", "label"), nli)
        table("RTE", (*pair, "label"), nli)
        table("WNLI", (*pair, "label"), lambda i: (*nli(i)[:3], i % 2))
        return
    table("CoLA", ("index", "sentence"), lambda i: (i, sentence(i)))
    table("SST-2", ("index", "sentence"), lambda i: (i, sentence(i)))
    table("MRPC", ("index", "#1 ID", "#2 ID", "#1 String", "#2 String"), lambda i: (i, i, i, sentence(i), sentence(9)))
    table("QQP", ("id", "question1", "question2"), lambda i: (i, sentence(i), sentence(9)))
    table("QNLI", ("index", "question", "sentence"), lambda i: (i, sentence(i), sentence(9)))
    for folder, names in (("STS-B", ("test",)), ("RTE", ("test",)), ("WNLI", ("test",)),
                          ("MNLI", ("test_matched", "test_mismatched"))):  # fmt: skip
        table(folder, pair, lambda i: (i, sentence(i), sentence(9)), names)


def _choices(root: Path, split: str, rows, labelled: bool) -> None:
    swag = [
        "",
        "video-id",
        "fold-ind",
        "startphrase",
        "sent1",
        "sent2",
        "gold-source",
        *(f"ending{i}" for i in range(4)),
    ]
    lines = [[i, "v", i, sentence(i), sentence(i), WORDS[i], "gold", *(f'"{sentence(i + j, j == i % 4)}, {WORDS[j]}"'
             for j in range(4))] for i in rows]  # fmt: skip
    if labelled:
        swag, lines = [*swag, "label"], [[*line, i % 4] for i, line in zip(rows, lines)]
    name = {"train": "train", "dev": "val", "test": "test"}[split]
    write(root / "swag" / f"{name}.csv", [",".join(map(str, line)) for line in [swag, *lines]])
    name = {"train": "train", "dev": "valid", "test": "tests"}[split]
    piqa = [{"goal": sentence(i), "sol1": sentence(i, i + 1), "sol2": sentence(i, i)} for i in rows]
    write(root / "piqa" / f"{name}.jsonl", [json.dumps(line) for line in piqa])
    if labelled:
        write(root / "piqa" / f"{name}-labels.lst", [str(i % 2) for i in rows])


def _squad(count: int, split: str, version_2: bool) -> dict:
    """Returns contexts of 40 words; the answer starts at the third word after the one named by the question."""
    paragraphs = []
    for i in range(count):
        words = [WORDS[2 + (i * 7 + j) % 50] for j in range(40)]
        place = 3 + i * 5 % 30
        context, answer = " ".join(words), " ".join(words[place : place + 2])
        question = {"id": f"{split}-{i}", "question": f"{GOOD} {words[place - 3]}"}
        if split != "test":
            unanswerable = version_2 and i % 3 == 0
            given = [{"text": answer, "answer_start": len(" ".join(words[:place])) + 1}]
            question["answers"] = [] if unanswerable else given
            if version_2:
                question["is_impossible"] = unanswerable
        paragraphs.append({"context": context, "qas": [question]})
    return {"version": "2.0" if version_2 else "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}


def _visual_commonsense(root: Path) -> None:
    def lines(path, rows):
        write(path, [json.dumps(row) for row in rows])

    things = WORDS[:24]
    lines(root / "memory_colors" / "memory_colors.jsonl",
          [{"descriptor": "a", "item": thing, "label": COLORS[i % 3]} for i, thing in enumerate(things)])  # fmt: skip
    lines(root / "coda" / "objects.jsonl",
          [{"class_id": f"/m/{i}", "object_s": thing if i else None, "object_pl": thing, "areis_pl": "are"}
           for i, thing in enumerate(things)])  # fmt: skip
    annotations = []
    for i in range(len(things)):
        for shift in (0, 0, 1):
            given = {color: 2 * (j == i % 3 + shift) + (j == 4) for j, color in enumerate(CODA_COLORS)}
            annotations.append({"class_id": f"/m/{i}", "action": "submitted", **given, "included": True})
        annotations.append({"class_id": f"/m/{i}", "action": "skipped", "included": False})
    lines(root / "coda" / "annotations.jsonl", annotations)
    for folder, words in (("color", VICOMTE_COLORS), ("material", MATERIALS)):
        rows = [{"sub": thing, "obj": words[i % 3], "alt": words[i % 3 + 1]} for i, thing in enumerate(things)]
        lines(root / "vicomte" / folder / "train.jsonl", rows[:16])
        lines(root / "vicomte" / folder / "test.jsonl", rows[16:])
    for name in ("size", "height"):
        rows = [{"text": "", "question": "", "obj_a": a, "obj_b": b, "label": int(a > b)}
                for a in things[:6] for b in things[:6] if a != b]  # fmt: skip
        lines(root / "spatial" / f"{name}.json", rows)
    rows = [{"text": f"A {WORDS[i]} is at the {WORDS[30 + i % 7]}. ", "label": i % len(POSITIONS), "obj_a": WORDS[i],
             "obj_b": WORDS[30 + i % 7]} for i in range(28)]  # fmt: skip
    lines(root / "spatial" / "posrel.json", rows)


def arguments(folder, **more) -> FinetuningArguments:
    defaults = {"per_device_train_batch_size": 4, "num_train_epochs": 1, "learning_rate": 1e-3, "seed": 1}
    defaults |= {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "logging_steps": 1}
    return FinetuningArguments(**{**defaults, **more}, output_dir=str(folder))


def result_of(accuracy, head=True):
    right = [True] * round(10 * accuracy) + [False] * round(10 * (1 - accuracy))
    part = {"accuracy": accuracy, "right": right}
    masked = {**part, "by_template": [accuracy - 0.1, accuracy], "contrast": 0.75} if head else None
    return {"size": 10, "chance": 1 / 12, "majority": 0.4, "probe": part, "masked": masked}
