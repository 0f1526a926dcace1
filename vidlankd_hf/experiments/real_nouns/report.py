"""The report, made from the stored results: tables, paired tests, and what the probe predicts for ten nouns."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

from ...utils.io import atomic_write
from ...utils.json_files import read_json
from .nouns import PARTS, PROBED_SETS
from .runs import MINILM, PICTURES
from .scores import compare, nouns_of_part
from .tables import ROWS

LABELS = {
    PICTURES: "mean features of the pictures",
    MINILM: "MiniLM, untouched",
    "teacher": "teacher",
    "shuffled_teacher": "teacher, shuffled pictures",
    "text_teacher": "teacher, captions only",
    **{name: row.label for name, row in ROWS.items()},
}
TITLES = {
    "memory_colors": "Memory Colors", "coda": "CoDa", "vicomte_color": "ViComTe colour",
    "vicomte_material": "ViComTe material", "spatial_size": "size", "spatial_height": "height",
    "spatial_position": "position",
}  # fmt: skip
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


def write_report(results: Results, benchmarks: Path, folder: Path) -> Path:
    """Writes `report.md`, `report.json` and, with the extra `world`, `colours.png` into `folder`.

    Returns:
        The path of `report.md`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = {name: {part: nouns_of_part(name, part, benchmarks) for part in PARTS} for name in PROBED_SETS}
    atomic_write(folder / "report.json", json.dumps(comparisons(results, parts), indent=1) + "\n")
    atomic_write(folder / "report.md", "\n\n".join(tables(results, parts)) + "\n")
    return folder / "report.md"


def tables(results: Results, parts: dict[str, dict[str, set[str]]]) -> list[str]:
    """All tables as Markdown.

    Args:
        results: The stored results.
        parts: For each probed set the nouns of each part.
    """
    made = [probe_table(results, parts, part, "pictured") for part in reversed(PARTS)]
    made += [probe_table(results, parts, "report", group) for group in ("not_pictured", "joint")]
    return [*made, paired_table(comparisons(results, parts)), masked_table(results, parts)]


def probe_table(results: Results, parts: dict, part: str, group: str) -> str:
    """Accuracy of the probe on the nouns of a part and group, and the masked-language-model loss next to it."""

    def scores_of(name: str) -> Callable[[dict], dict[str, float]]:
        return lambda run: _of(run["probe"][name].get(group, {}), parts[name][part])

    names = [
        name for name in PROBED_SETS if any(scores_of(name)(r) for rows in results.values() for r in rows.values())
    ]
    counts = {name: max(len(scores_of(name)(run)) for rows in results.values() for run in rows.values())
              for name in names}  # fmt: skip
    head = ["model", *(f"{TITLES[name]} ({counts[name]})" for name in names), "MLM loss", "MLM accuracy"]
    lines = [f"**Probe, nouns for the {part}, {group.replace('_', ' ')}.** {_seeds(results)}", "", _line(head),
             "|" + "---|" * len(head)]  # fmt: skip
    for row in LABELS:
        runs = [rows[row] for rows in results.values() if row in rows]
        if not runs:
            continue
        cells = [_spread([mean(scores_of(name)(run).values()) for run in runs if scores_of(name)(run)])
                 for name in names]  # fmt: skip
        cells += [_spread([run[key] for run in runs if key in run]) for key in ("mlm_loss", "mlm_accuracy")]
        lines.append(_line([LABELS[row], *cells]))
    return "\n".join(lines)


def comparisons(results: Results, parts: dict) -> list[dict]:
    """Paired comparisons of every student with text-only, over the nouns of each set, part and group."""
    rows = [row for row in ROWS if row != CONTROL and any({row, CONTROL} <= set(kept) for kept in results.values())]
    found = []
    for row in rows:
        both = [kept for kept in results.values() if {row, CONTROL} <= set(kept)]
        for name in PROBED_SETS:
            for group in ("pictured", "not_pictured"):
                for part in PARTS:
                    scores = [[_of(kept[which]["probe"][name].get(group, {}), parts[name][part]) for kept in both]
                              for which in (row, CONTROL)]  # fmt: skip
                    if scores[0][0]:
                        place = {"row": row, "set": name, "group": group, "part": part, "seeds": len(both)}
                        found.append({**place, **compare(*scores)})
    return found


def paired_table(found: list[dict]) -> str:
    """Differences to text-only on the pictured nouns for the report."""
    head = ["student minus text only", *(TITLES[name] for name in PROBED_SETS)]
    lines = ["**Difference to text only, pictured nouns for the report.** Mean over seeds, 95 % interval over nouns, p of a "
             "paired randomization test.", "", _line(head), "|" + "---|" * len(head)]  # fmt: skip
    for row in dict.fromkeys(entry["row"] for entry in found):
        cells = []
        for name in PROBED_SETS:
            entry = next((e for e in found if (e["row"], e["set"], e["group"], e["part"]) ==
                          (row, name, "pictured", "report")), None)  # fmt: skip
            cells.append("" if entry is None else f"{entry['difference']:+.3f} [{entry['interval'][0]:+.3f}, "
                         f"{entry['interval'][1]:+.3f}], p {entry['p']:.3f}")  # fmt: skip
        lines.append(_line([LABELS[row], *cells]))
    return "\n".join(lines)


def masked_table(results: Results, parts: dict) -> str:
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
                kept = [_of(run["masked"][name], parts[name]["report"]) for run in runs]
                cells.append(_spread([mean(scores.values()) for scores in kept if scores]))
            cells += [_spread([run["spatial"][name] for run in runs]) for name in spatial]
            lines.append(_line([LABELS[row], *cells]))
    return "\n".join(lines)


def _of(scores: dict[str, float], nouns: set[str]) -> dict[str, float]:
    return {noun: score for noun, score in scores.items() if noun in nouns}


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _seeds(results: Results) -> str:
    seeds = ", ".join(map(str, results))
    return f"Seeds {seeds}; mean ± standard deviation." if len(results) > 1 else f"Seed {seeds}."
