"""GLUE (Wang et al., ICLR 2019): nine tasks and the diagnostics."""

from functools import partial
from pathlib import Path

from .heads import Classification, Regression
from .metrics import DiagnosticsMetric, GlueMetric
from .reading import class_of, open_text, read_table
from .task import Task

# The paper's; users could not reproduce it from one seed, so give several.
RECIPE = {
    "learning_rate": 1e-4,
    "num_train_epochs": 3.0,
    "per_device_train_batch_size": 32,
    "warmup_steps": 0.1,
    "max_length": 126,
}
NLI = ("entailment", "neutral", "contradiction")
ENTAILMENT = ("entailment", "not_entailment")
FILES = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
PAIR = ("sentence1", "sentence2")
CATEGORIES = ("Lexical Semantics", "Predicate-Argument Structure", "Logic", "Knowledge")


def read_glue(
    path: Path,
    split: str,
    texts: tuple[str, ...],
    label: str,
    labels: tuple[str, ...] = (),
    leave_out_ragged: bool = False,
) -> list[dict]:
    """Rows of an official table: `texts` and `label` are its columns; test tables have no label."""
    to_label = class_of(labels, path) if labels else float
    columns = texts if _is_test(split) else (*texts, label)
    return [
        {
            "id": row.get("index", i),
            "texts": [row[name] for name in texts],
            "label": to_label(row[label]) if label in row else None,
        }
        for i, row in enumerate(read_table(path, columns, leave_out_ragged=leave_out_ragged and not _is_test(split)))
    ]


def read_cola(path: Path, split: str, labels: tuple[str, ...]) -> list[dict]:
    """CoLA's table has no header, but for the test split's."""
    if _is_test(split):
        return read_glue(path, split, ("sentence",), "label", labels)
    to_label, rows = class_of(labels, path), []
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            fields = line.rstrip("\r\n").split("\t")
            if len(fields) != 4:
                raise ValueError(f"line {number} of {path} has {len(fields)} fields; CoLA's have 4, without a header")
            rows.append({"id": number - 1, "texts": [fields[3]], "label": to_label(fields[1])})
    return rows


def read_diagnostics(path: Path, split: str) -> list[dict]:
    """`diagnostic.tsv`, without labels, or the labelled `diagnostic-full.tsv`."""
    if _is_test(split):
        return read_glue(path, split, PAIR, "label")
    to_label = class_of(NLI, path)
    return [
        {
            "id": i,
            "texts": [row["Premise"], row["Hypothesis"]],
            "label": to_label(row["Label"]),
            "categories": ";".join(_categories(row)),
        }
        for i, row in enumerate(read_table(path, (*CATEGORIES, "Premise", "Hypothesis", "Label")))
    ]


def _categories(row: dict) -> list[str]:
    """`Logic` and `Logic: Negation` for every coarse and fine category of a row."""
    coarse = [name for name in CATEGORIES if row[name]]
    return coarse + [f"{name}: {fine.strip()}" for name in coarse for fine in row[name].split(";") if fine.strip()]


def _is_test(split: str) -> bool:
    return split.startswith("test")


def write_glue(path: Path, task: Task, rows: list[dict], predictions: list) -> None:
    """`index` and `prediction`; names where the official data have names, scores of 0 to 5 for STS-B."""
    if not task.labels:
        values = [f"{min(max(value, 0.0), 5.0):.3f}" for value in predictions]
    else:
        named = task.labels in (NLI, ENTAILMENT) and task.folder != "glue/WNLI"
        values = [task.labels[value] if named else str(value) for value in predictions]
    lines = [f"{row['id']}\t{value}" for row, value in zip(rows, values)]
    path.write_text("\n".join(["index\tprediction", *lines]) + "\n")


def _glue(name, title, folder, texts, submission, labels=("0", "1"), label="label", hub=None, **options) -> Task:
    hub_texts, main = hub or texts, options.pop("main", "accuracy")
    read = partial(
        read_glue, texts=texts, label=label, labels=labels, leave_out_ragged=options.pop("leave_out_ragged", False)
    )

    def from_hub(row: dict) -> dict:
        known = row["label"] is not None and row["label"] != -1  # STS-B's are numbers from 0 to 5
        return {
            "id": row["idx"],
            "texts": [row[text] for text in hub_texts],
            "label": row["label"] if known else None,
        }

    return Task(
        title=title,
        head=Classification() if labels else Regression(),
        data=("nyu-mll/glue", name),
        folder=f"glue/{folder}",
        files=options.pop("files", FILES),
        parse=options.pop("parse", read),
        row=from_hub,
        metric=partial(GlueMetric, name, keep_in_memory=True),
        main=main,
        recipe=RECIPE,
        labels=labels,
        test=options.pop("test", {"test": submission}),
        write_submission=write_glue,
        **options,
    )


DIAGNOSTICS = Task(
    title="GLUE diagnostics",
    head=Classification(),
    data=("nyu-mll/glue", "ax"),
    folder="glue/diagnostic",
    files={"test": "diagnostic.tsv", "labelled": "diagnostic-full.tsv"},
    parse=read_diagnostics,
    row=lambda row: {"id": row["idx"], "texts": [row["premise"], row["hypothesis"]], "label": None},
    metric=partial(DiagnosticsMetric, keep_in_memory=True),
    main="matthews_correlation",
    recipe={},
    labels=NLI,
    evaluate_on=("labelled",),
    test={"test": "AX.tsv"},
    write_submission=write_glue,
    reference=lambda row: {"label": row["label"], "categories": row["categories"]},
)
GLUE = {
    "cola": _glue("cola", "CoLA", "CoLA", ("sentence",), "CoLA.tsv", main="matthews_correlation",
                  parse=partial(read_cola, labels=("0", "1"))),
    "sst2": _glue("sst2", "SST-2", "SST-2", ("sentence",), "SST-2.tsv"),
    "mrpc": _glue("mrpc", "MRPC", "MRPC", ("#1 String", "#2 String"), "MRPC.tsv", label="Quality", hub=PAIR),
    "stsb": _glue("stsb", "STS-B", "STS-B", PAIR, "STS-B.tsv", labels=(), label="score", main="pearson"),
    # A few lines of its official train.tsv are broken; the authors' own reader passes over them.
    "qqp": _glue("qqp", "QQP", "QQP", ("question1", "question2"), "QQP.tsv", label="is_duplicate",
                 leave_out_ragged=True),
    "mnli": _glue("mnli", "MNLI", "MNLI", PAIR, "", labels=NLI, label="gold_label", hub=("premise", "hypothesis"),
                  files={"train": "train.tsv", "validation_matched": "dev_matched.tsv",
                         "validation_mismatched": "dev_mismatched.tsv", "test_matched": "test_matched.tsv",
                         "test_mismatched": "test_mismatched.tsv"},
                  evaluate_on=("validation_matched", "validation_mismatched"),
                  test={"test_matched": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv"}, also=(DIAGNOSTICS,)),
    "qnli": _glue("qnli", "QNLI", "QNLI", ("question", "sentence"), "QNLI.tsv", labels=ENTAILMENT),
    "rte": _glue("rte", "RTE", "RTE", PAIR, "RTE.tsv", labels=ENTAILMENT),
    "wnli": _glue("wnli", "WNLI", "WNLI", PAIR, "WNLI.tsv"),
}  # fmt: skip
