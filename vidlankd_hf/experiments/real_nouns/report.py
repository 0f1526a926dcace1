"""The report, made from the stored results: tables and paired tests."""

import json
from itertools import product
from pathlib import Path
from statistics import mean, stdev

from ...evaluation.report import format_p
from ...utils.io import atomic_write
from ...utils.json_files import read_json
from ...utils.messages import name_seeds
from .nouns import PARTS, PROBED_SETS, part_of
from .runs import MINILM, PICTURES
from .scores import compare
from .tables import ROWS, TEACHERS

LABELS = {
    PICTURES: "mean features of the pictures",
    MINILM: "MiniLM, untouched",
    "teacher": "teacher",
    "shuffled_teacher": "teacher, shuffled pictures",
    "text_teacher": "teacher, captions only",
    "object_teacher": "teacher with EfficientNet",
    **{name: row.label for name, row in ROWS.items()},
}
TITLES = {
    "memory_colors": "Memory Colors", "coda": "CoDa", "vicomte_color": "ViComTe colour",
    "vicomte_material": "ViComTe material", "spatial_size": "size", "spatial_height": "height",
    "spatial_position": "position",
}  # fmt: skip
LANGUAGE = {"mlm_loss": "MLM loss", "mlm_accuracy": "MLM accuracy"}
CONTROL = "text_only"
# seed -> row -> stored result
Results = dict[int, dict[str, dict]]


def read_results(folder: str | Path) -> Results:
    """Reads the stored results below `folder`."""
    return {
        int(path.name.partition("-")[2]): {
            file.stem: read_json(file, dict, "remove it to run it again") for file in sorted(path.glob("*.json"))
        }
        for path in sorted(Path(folder).glob("seed-*"))
    }


def write_report(results: Results, folder: Path) -> Path:
    """Writes `report.md` and `report.json` (the paired comparisons) into `folder`, from the stored results alone.

    Returns:
        The path of `report.md`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "report.json", json.dumps(comparisons(results), indent=1) + "\n")
    atomic_write(folder / "report.md", "\n\n".join(tables(results).values()) + "\n")
    return folder / "report.md"


def tables(results: Results) -> dict[str, str]:
    """All tables as Markdown, by name; those without any row are left out."""
    found = comparisons(results)
    made = {
        "probe": probe_table(results, "report", "pictured"),
        "probe-selection": probe_table(results, "selection", "pictured"),
        "probe-not-pictured": probe_table(results, "report", "not_pictured"),
        "probe-joint": probe_table(results, "report", "joint"),
        "paired": paired_table(found, results, "pictured") if found else "",
        "paired-masked": paired_table(found, results, "masked") if found else "",
        "masked": masked_table(results) if any(row in kept for kept in results.values() for row in ROWS) else "",
        "missing": missing(results),
    }
    return {name: text for name, text in made.items() if text}


def missing(results: Results) -> str:
    """Names the rows that have no result for some of the seeds, which are those that have any result."""
    lines = []
    for row in (*TEACHERS, *ROWS):
        without = [seed for seed, kept in results.items() if row not in kept]
        if without:
            lines.append(f"- {LABELS[row]} (`{row}`): {name_seeds(without)}")
    return "\n".join(["**Not run:**", "", *lines]) if lines else ""


def nouns_of(results: Results, name: str, part: str, group: str) -> set[str]:
    """The nouns of a set, part and group that were scored.

    The parts follow from the results, because these hold all nouns of Memory Colors. The nouns of the group `masked`
    (masked words) are the pictured ones.
    """
    group = "pictured" if group == "masked" else group
    runs = [run["probe"] for kept in results.values() for run in kept.values()]
    memory = frozenset(noun for probe in runs for nouns in probe["memory_colors"].values() for noun in nouns)
    nouns = {noun for probe in runs for noun in probe[name].get(group, {})}
    return {noun for noun in nouns if part_of(noun, memory) == part}


def probe_table(results: Results, part: str, group: str) -> str:
    """Accuracy of the probe on the nouns of a part and group, and the masked-language-model loss next to it."""

    kept = {name: nouns_of(results, name, part, group) for name in PROBED_SETS}
    names = [name for name in PROBED_SETS if kept[name]]
    every = [run for rows in results.values() for run in rows.values()]
    counts = {name: max(len(_of(run["probe"][name].get(group, {}), kept[name])) for run in every) for name in names}
    losses = [key for key in LANGUAGE if any(key in run for run in every)]
    head = ["model", *(f"{TITLES[name]} ({counts[name]})" for name in names), *(LANGUAGE[key] for key in losses)]
    lines = [f"**Probe, nouns for the {part}, {group.replace('_', ' ')}.** {_seeds(results)}", "", _line(head),
             "|" + "---|" * len(head)]  # fmt: skip
    for row in LABELS:
        runs = [rows[row] for rows in results.values() if row in rows]
        scores = [_scores(runs, name, group, kept[name]) for name in names]
        if any(scores):
            values = [*scores, *([run[key] for run in runs if key in run] for key in losses)]
            lines.append(_line([_name(row, results), *map(_spread, values)]))
    return "\n".join(lines)


def accuracies(results: Results, row: str, part: str, group: str) -> dict[str, float]:
    """For each probed set the accuracy of a row by the probe, or of masked words, mean over nouns and seeds."""
    runs = [rows[row] for rows in results.values() if row in rows]
    scores = {name: _scores(runs, name, group, nouns_of(results, name, part, group)) for name in PROBED_SETS}
    return {name: mean(values) for name, values in scores.items() if values}


def comparisons(results: Results) -> list[dict]:
    """Paired comparisons of every student with text-only, over the nouns of each set, part and group.

    The group `masked` has the scores of masked words; the other groups have those of the probe.
    """
    found = []
    for row in (row for row in ROWS if row != CONTROL):
        both = [kept for kept in results.values() if {row, CONTROL} <= set(kept)]
        for name, group, part in product(PROBED_SETS, ("pictured", "not_pictured", "masked"), PARTS) if both else ():
            nouns = nouns_of(results, name, part, group)
            students, controls = (
                [_of(_group(kept[which], name, group), nouns) for kept in both] for which in (row, CONTROL)
            )
            if students[0]:
                place = {"row": row, "set": name, "group": group, "part": part, "seeds": len(both)}
                found.append({**place, **compare(students, controls)})
    return found


def paired_table(found: list[dict], results: Results, group: str) -> str:
    """Differences to text-only in the colors of pictured nouns for the report, by the probe or by masked words."""
    title = "Masked words: difference" if group == "masked" else "Difference"
    names = [name for name in PROBED_SETS if name != "vicomte_material"]
    head = ["student minus text only", *(TITLES[name] for name in names)]
    lines = [f"**{title} to text only, pictured nouns for the report.** Mean over seeds, 95 % interval over nouns, "
             "p of a paired randomization test.", "", _line(head), "|" + "---|" * len(head)]  # fmt: skip
    for row in dict.fromkeys(entry["row"] for entry in found):
        cells = []
        for name in names:
            entry = next((e for e in found if (e["row"], e["set"], e["group"], e["part"]) ==
                          (row, name, group, "report")), None)  # fmt: skip
            if entry is None:
                cells.append("")
                continue
            low, high = entry["interval"]
            cells.append(f"{entry['difference']:+.2f} [{low:+.2f}, {high:+.2f}], p {format_p(entry['p'])}")
        lines.append(_line([_name(row, results), *cells]))
    return "\n".join(lines)


def masked_table(results: Results) -> str:
    """Accuracy of masked words without any training: pictured nouns for the report, and all spatial comparisons."""
    spatial = [name for name in TITLES if name.startswith("spatial")]
    head = ["student", *(TITLES[name] for name in (*PROBED_SETS, *spatial))]
    lines = ["**Masked words, zero-shot.** Pictured nouns for the report; all comparisons of the spatial sets.", "",
             _line(head), "|" + "---|" * len(head)]  # fmt: skip
    for row in ROWS:
        runs = [rows[row] for rows in results.values() if row in rows]
        if runs:
            cells = []
            for name in PROBED_SETS:
                cells.append(_spread(_scores(runs, name, "masked", nouns_of(results, name, "report", "masked"))))
            cells += [_spread([run["spatial"][name] for run in runs]) for name in spatial]
            lines.append(_line([_name(row, results), *cells]))
    return "\n".join(lines)


def _scores(runs: list[dict], name: str, group: str, nouns: set[str]) -> list[float]:
    """Mean score over nouns of each run that was scored on them."""
    scores = [_of(_group(run, name, group), nouns) for run in runs]
    return [mean(of_nouns.values()) for of_nouns in scores if of_nouns]


def _group(run: dict, name: str, group: str) -> dict[str, float]:
    return run["masked"][name] if group == "masked" else run["probe"][name].get(group, {})


def _of(scores: dict[str, float], nouns: set[str]) -> dict[str, float]:
    return {noun: score for noun, score in scores.items() if noun in nouns}


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def _name(row: str, results: Results) -> str:
    """Label of a row, with its seeds if it has not been run with all of them."""
    seeds = [seed for seed, rows in results.items() if row in rows]
    return LABELS[row] if len(seeds) == len(results) else f"{LABELS[row]} ({name_seeds(seeds)})"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _seeds(results: Results) -> str:
    spread = "; mean ± standard deviation" if len(results) > 1 else ""
    return f"{name_seeds(results).capitalize()}{spread}."
