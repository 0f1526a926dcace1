"""GLUE (Wang et al., ICLR 2019): nine tasks and the diagnostics."""

from functools import partial
from pathlib import Path

from ..utils.messages import number_of
from .heads import Classification, Regression
from .metrics import load_metric
from .reading import class_of, open_text, read_table
from .task import Task, make_recipe

RECIPE = make_recipe(1e-4, epochs=3.0, batch_size=32, max_length=126)  # the paper's
BINARY = ("0", "1")
NLI = ("entailment", "neutral", "contradiction")
ENTAILMENT = ("entailment", "not_entailment")
FILES = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
MNLI_FILES = {
    "train": "train.tsv",
    "validation_matched": "dev_matched.tsv",
    "validation_mismatched": "dev_mismatched.tsv",
    "test_matched": "test_matched.tsv",
    "test_mismatched": "test_mismatched.tsv",
}
PAIR = ("sentence1", "sentence2")
CATEGORIES = ("Lexical Semantics", "Predicate-Argument Structure", "Logic", "Knowledge")


def read_glue(
    path: Path, split: str, texts: tuple[str, ...], label: str, labels: tuple[str, ...], skip_ragged: bool = False
) -> list[dict]:
    """Reads an official table.

    Args:
        path: The table.
        split: Its split. The tables of splits that begin with "test" have no labels.
        texts: Columns of the texts.
        label: Column of the label.
        labels: Names of the classes; empty for numbers.
        skip_ragged: Skip lines of labeled tables that do not have as many fields as the header, with a warning.
    """
    is_test = split.startswith("test")
    to_label = class_of(labels, path) if labels else float
    table = read_table(path, texts if is_test else (*texts, label), skip_ragged=skip_ragged and not is_test)
    return [
        {
            "id": row.get("index", i),
            "texts": [row[name] for name in texts],
            "label": to_label(row[label]) if label in row else None,
        }
        for i, row in enumerate(table)
    ]


def read_cola(path: Path, split: str) -> list[dict]:
    """Reads CoLA's tables: only that of the test split has a header.

    Raises:
        ValueError: A line does not have four fields, or its label is unknown.
    """
    if split.startswith("test"):
        return read_glue(path, split, ("sentence",), "label", BINARY)
    to_label, rows = class_of(BINARY, path), []
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            fields = line.rstrip("\r\n").split("\t")
            if len(fields) != 4:
                raise ValueError(
                    f"line {number} of {path} has {number_of(len(fields), 'field')}; CoLA's have 4, without a header"
                )
            rows.append({"texts": [fields[3]], "label": to_label(fields[1])})
    return rows


def read_diagnostics(path: Path, split: str) -> list[dict]:
    """Reads the unlabeled `diagnostic.tsv` or the labeled `diagnostic-full.tsv`."""
    if split.startswith("test"):
        return read_glue(path, split, PAIR, "label", NLI)
    to_label = class_of(NLI, path)
    return [
        {
            "texts": [row["Premise"], row["Hypothesis"]],
            "label": to_label(row["Label"]),
            "categories": ";".join(_categories(row)),
        }
        for row in read_table(path, (*CATEGORIES, "Premise", "Hypothesis", "Label"))
    ]


def _categories(row: dict) -> list[str]:
    """Returns `Logic` and `Logic: Negation` for every coarse and fine category of a row."""
    coarse = [name for name in CATEGORIES if row[name]]
    return coarse + [f"{name}: {fine.strip()}" for name in coarse for fine in row[name].split(";") if fine.strip()]


def write_glue(path: Path, task: Task, rows: list[dict], predictions: list) -> None:
    """Writes index and prediction: a class name or number as in the official data; for STS-B, a score from 0 to 5."""
    if not task.labels:
        values = [f"{min(max(value, 0.0), 5.0):.3f}" for value in predictions]
    else:
        values = [task.labels[value] for value in predictions]
    lines = [f"{row['id']}\t{value}" for row, value in zip(rows, values)]
    path.write_text("\n".join(["index\tprediction", *lines]) + "\n")


def _glue(
    name: str,
    title: str,
    texts: tuple[str, ...],
    labels: tuple[str, ...] = BINARY,
    label: str = "label",
    hub_texts: tuple[str, ...] = (),
    files: dict[str, str] = FILES,
    skip_ragged: bool = False,
    **options,
) -> Task:
    """A GLUE task; `texts` and `label` are columns of the official tables, `hub_texts` of the Hub's if they differ."""

    def from_hub(row: dict) -> dict:
        known = row["label"] is not None and row["label"] != -1  # STS-B's are numbers from 0 to 5
        columns = hub_texts or texts
        return {"id": row["idx"], "texts": [row[text] for text in columns], "label": row["label"] if known else None}

    options.setdefault("parse", partial(read_glue, texts=texts, label=label, labels=labels, skip_ragged=skip_ragged))
    options.setdefault("test", {"test": f"{title}.tsv"})
    return Task(
        title=title,
        head=Classification() if labels else Regression(),
        data=("nyu-mll/glue", name),
        folder=f"glue/{title}",
        files=files,
        row=from_hub,
        metric=partial(load_metric, "glue", name),
        recipe=RECIPE,
        labels=labels,
        write_submission=write_glue,
        **options,
    )


DIAGNOSTICS = Task(
    title="GLUE diagnostics",
    data=("nyu-mll/glue", "ax"),
    folder="glue/diagnostic",
    files={"test": "diagnostic.tsv", "labelled": "diagnostic-full.tsv"},
    parse=read_diagnostics,
    row=lambda row: {"id": row["idx"], "texts": [row["premise"], row["hypothesis"]], "label": None},
    metric=partial(load_metric, "glue", "ax"),
    main="matthews_correlation",
    labels=NLI,
    evaluate_on=("labelled",),
    test={"test": "AX.tsv"},
    write_submission=write_glue,
    reference=lambda row: {"label": row["label"], "categories": row["categories"]},
)
GLUE = {
    "cola": _glue("cola", "CoLA", ("sentence",), main="matthews_correlation", parse=read_cola),
    "sst2": _glue("sst2", "SST-2", ("sentence",)),
    "mrpc": _glue("mrpc", "MRPC", ("#1 String", "#2 String"), label="Quality", hub_texts=PAIR),
    "stsb": _glue("stsb", "STS-B", PAIR, labels=(), label="score", main="pearson"),
    # A few lines of its official train.tsv are broken; the authors' own reader skips them.
    "qqp": _glue("qqp", "QQP", ("question1", "question2"), label="is_duplicate", skip_ragged=True),
    "mnli": _glue(
        "mnli",
        "MNLI",
        PAIR,
        labels=NLI,
        label="gold_label",
        hub_texts=("premise", "hypothesis"),
        files=MNLI_FILES,
        evaluate_on=("validation_matched", "validation_mismatched"),
        test={"test_matched": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv"},
        also=(DIAGNOSTICS,),
    ),
    "qnli": _glue("qnli", "QNLI", ("question", "sentence"), labels=ENTAILMENT),
    "rte": _glue("rte", "RTE", PAIR, labels=ENTAILMENT),
    "wnli": _glue("wnli", "WNLI", PAIR),
}
