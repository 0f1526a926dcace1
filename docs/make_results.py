"""Fills the generated tables and numbers of README and docs from the JSON in docs/evidence, and redraws the figures.

    python docs/make_results.py            # fill the markers of all pages
    python docs/make_results.py --figures  # also redraw docs/evidence/**/*.png
    python docs/make_results.py --list     # print the names that markers can use

A marker is `<!-- results: NAME --><!-- /results -->`, on separate lines for a table, or inside a line for a number.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from statistics import mean

from vidlankd_hf.evaluation import report as downstream
from vidlankd_hf.experiments.ablations import report as ablations
from vidlankd_hf.experiments.ablations.tables import ROWS, TABLES
from vidlankd_hf.experiments.ablations.tradeoff import points
from vidlankd_hf.experiments.real_nouns import report as real_nouns
from vidlankd_hf.experiments.real_nouns.figure import draw_accuracies
from vidlankd_hf.experiments.world import report as world
from vidlankd_hf.experiments.world.tradeoff import draw_tradeoff

ROOT = Path(__file__).resolve().parent.parent
EVIDENCE = ROOT / "docs" / "evidence"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARKER = re.compile(r"<!-- results: (\S+) -->(.*?)<!-- /results -->", re.DOTALL)
# The machine of all measurements that do not name another one; the pages name it once.
MACHINE = "2 cores of an Intel Xeon (AVX-512, AMX), 24 GB; torch 2.13.0 (CPU), transformers 5.23.0"
STEPS = ("step-small", "step-base", "step-objectives", "step-small-amd", "step-small-amd-kept")
VARIANTS = {
    "original": "original release",
    "stock": "stock Trainer",
    "ours": "vidlankd_hf",
    "compiled": "vidlankd_hf, compiled",
    "alone": "vidlankd_hf, MLM only",
}
OBJECTIVES = {"none": "MLM only", "nst": "NST", "crd": "CRD", "both": "NST + CRD"}
PARTS = ("data", "teacher", "encoder", "head", "objectives", "optimizer")
MODELS = {"fresh": "random weights", "minilm": "MiniLM", "distilled": "distilled, 120 steps"}


def read(name: str):
    return json.loads((EVIDENCE / name).read_text(encoding="utf-8"))


def table(columns, rows) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in lines).replace("|  |", "| |")


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 1 else f"{value:.2f} s"


def world_results() -> dict[str, str]:
    rows = read("results.json")
    lines = world.markdown_table(rows).splitlines()
    found = {"world": "\n".join(line for line in lines if line.startswith("|"))}
    for entry in world.summarize(rows):
        name = f"world.{slug(entry['label'])}"
        found |= {f"{name}.{attribute}": f"{value:.2f}" for attribute, (value, _) in entry["accuracy"].items()}
        found[f"{name}.mean"] = f"{entry['mean']:.2f}"
        found[f"{name}.gap"] = f"{round(100 * entry['gap_closed'])} %"
        found |= {f"{name}.{key}": f"{mean(by.values()):.2f}" for key, by in entry["language"].items() if by}
    return found


def ablation_tables() -> dict[str, tuple[list[dict], dict]]:
    """Rows and stored results of the ablation tables, for the seeds that have all students of a table."""
    kept, found = ablations.read_kept(EVIDENCE / "ablations"), {}
    for name, (_, students) in TABLES.items():
        complete = {seed: results for seed, results in kept.items() if set(students) <= set(results)}
        if complete:
            found[name] = ablations.table_rows(name, complete), complete
    return found


def ablation_results() -> dict[str, str]:
    found, costs = {}, {}
    for name, (rows, kept) in ablation_tables().items():
        found[f"ablation-{name}"] = ablations.markdown_table(name, rows, kept, costs=False)
        gaps = {row["student"]: row["gap_closed"] and row["gap_closed"]["mean"] for row in rows}
        for row in rows:
            student, place = row["student"], f"ablation.{name}.{row['student']}"
            costs[row["what"]] = [row["what"], *ablations.cost_cells(row)]
            for key in ("colour", "shape", "motion", "mean", "mlm_loss"):
                found[f"{place}.{key}"] = f"{row[key]['mean']:.2f}"
            found[f"{place}.teacher"] = f"{row['teacher']['mean']:.2f}"
            if gaps[student]:
                found[f"{place}.gap"] = f"{round(100 * gaps[student])} %"
            # students with their own tokenizer, relative to those with the teacher's
            if ROWS[student].byte_level and gaps[student] and (same := gaps.get(student.replace("_bpe", ""))):
                found[f"{place}.relative"] = f"{round(100 * gaps[student] / same)} %"
    if costs:
        found["ablation-costs"] = table(["student", "steps", "TFLOP"], costs.values())
    return found


def step_results(name: str) -> dict[str, str]:
    content = read(f"{name}/step.json")
    rows, found, speed, parts = content["rows"], {}, [], []
    several = len({row["objectives"] for row in rows}) > 1
    for row in rows:
        if several and row["way"] == "alone":  # the same step as "ours" without objectives
            continue
        label = VARIANTS[row["way"]] + (f", {OBJECTIVES[row['objectives']]}" if several else "")
        memory = "" if row["step_memory"] is None else f"{row['step_memory'] / 2**20:.0f}"
        speed.append([
            label, row["precision"], f"{1000 * row['seconds']:.0f}", f"{row['tokens_per_second']:.0f}", memory,
            f"{100 * row['share_of_peak']:.0f} %", f"{100 * row['matmul_share']:.0f} %",
        ])  # fmt: skip
        if row["parts"]:
            parts.append([label, row["precision"], *(f"{1000 * row['parts'][part]:.1f}" for part in PARTS)])
        variant = f"{row['objectives']}-{row['way']}" if several else row["way"]
        found[f"{name}.{variant}.{row['precision']}.seconds"] = seconds(row["seconds"])
        found[f"{name}.{variant}.{row['precision']}.tokens"] = f"{row['tokens_per_second']:,.0f} tokens/s"
    columns = ["variant", "precision", "ms per step", "tokens/s", "memory (MiB)", "share of peak", "time in products"]
    found[name] = table(columns, speed)
    found[f"{name}-parts"] = table(["ms per step", "precision", *PARTS], parts)
    found[f"{name}.peaks"] = ", ".join(f"{p} {rate / 1e9:.0f}" for p, rate in content["peaks"].items()) + " GFLOP/s"
    if not several:
        found |= step_ratios(name, {(row["way"], row["precision"]): row["seconds"] for row in rows})
    return found


def step_ratios(name: str, by: dict[tuple[str, str], float]) -> dict[str, str]:
    """Speed-ups over the original release (its fp32 where it has no bf16) and over the stock Trainer."""
    found, rows = {}, []
    precisions = [precision for precision in ("fp32", "medium", "bf16") if ("ours", precision) in by]
    for way in ("ours", "compiled"):
        for base in ("original", "stock"):
            cells = []
            for precision in precisions:
                slow, fast = by.get((base, precision)) or by[base, "fp32"], by.get((way, precision))
                cells.append(f"{slow / fast:.2f} x" if fast else "")
                if fast:
                    found[f"{name}.{way}-{base}.{precision}"] = cells[-1]
            if any(cells) and (way, base) != ("compiled", "stock"):
                rows.append([VARIANTS[way], VARIANTS[base], *cells])
    return {**found, f"{name}-ratios": table(["speed-up of", "over", *precisions], rows)}


def objective_results() -> dict[str, str]:
    content, rows = read("objectives/objectives.json"), []
    for row in content["rows"]:
        rows.append([
            row["objective"], ", ".join(row["needs"]).replace("_", " "), f"{row['extra_parameters'] / 1e6:.2f} M",
            f"{row['ms']:.0f}", f"{row['ms'] / content['rows'][0]['ms']:.2f} x", f"{row['memory'] / 2**20:.0f}",
        ])  # fmt: skip
    columns = ["objective", "needs", "extra parameters", "ms per step", "relative", "memory (MiB)"]
    return {"objective-costs": table(columns, rows)}


def p_value(value: float | None) -> str:
    return "" if value is None else ", p < 0.001" if value < 0.001 else f", p {value:.2g}"


def downstream_results() -> dict[str, str]:
    content, tuned = read("downstream/report.json"), {}
    for row in content["tasks"]:
        cells = tuned.setdefault(row["title"], [row["title"], f"{100 * row['constant_score']:.1f}"])
        median, low, high = (f"{100 * row[key]:.1f}" for key in ("median", "min", "max"))
        score = f"{median} ({low} - {high}){p_value(row['p'])}"
        cells.append(score + (f", {len(row['collapsed'])} collapsed" if row["collapsed"] else ""))
    columns = [MODELS[model] for model in content["models"]]
    found = {"downstream-tuned": table(["accuracy", "always the same answer", *columns], tuned.values())}
    for method in ("masked", "probe"):
        scored = {}
        for row in content["zero_shot"]:
            if row["method"] == method and row["accuracy"] is not None:
                shares = [f"{100 * row['chance']:.0f}", f"{100 * row['majority']:.0f}"]
                cells = scored.setdefault(row["title"], [row["title"], *shares])
                cells.append(f"{100 * row['accuracy']:.0f}{p_value(row['p'])}")
        scoring = [MODELS[m] for m in content["models"] if method == "probe" or m != "minilm"]
        found[f"downstream-{method}"] = table(["accuracy", "chance", "majority", *scoring], scored.values())
    return found


def scale_results() -> dict[str, str]:
    """Memory against the amount of data, and what follows for the complete HowTo100M and Wikipedia."""
    content, memory, full = read("scale/scale.json"), [], []
    fractions = content["fractions"]
    for stage, complete in content["full_size"].items():
        runs = [result["stages"].get(stage, {}) for result in fractions.values()]
        cells = [f"{run['anonymous'] / 1e6:.0f}" if "anonymous" in run else "" for run in runs]
        opened = max(run.get("open_files", 0) for run in runs)
        memory.append([stage, *cells, f"{complete['memory_ratio']:.2f}", opened])
        if stage in ("convert", "captions", "text"):
            rate = f"{complete['per_cpu_second']:,.0f} {complete['unit']}"
            full.append([stage, rate, f"{complete['cpu_hours']:.1f}", f"{complete['files']:,.0f}"])
    found = {"scale-full": table(["stage", "per CPU second", "CPU hours", "files written"], full)}
    columns = ["stage", *fractions, "last ratio", "files open"]
    found["scale-memory"] = table(columns, memory)
    for stage in ("captions", "text"):
        found[f"scale.{stage}.bytes"] = f"{content['full_size'][stage]['bytes'] / 1e9:.1f} GB"
    return found


def question_results() -> dict[str, str]:
    """Answers of fine-tuned students to questions about unseen nouns, from the tables of `vidlankd reproduce`."""
    rows = {row["student"]: row for filled in read("reproduction/tables.json") for row in filled["rows"]}
    found, cells = {}, []
    for student, row in rows.items():
        scored = row["tasks"]["world"]
        found[f"questions.{student}"] = f"{scored['mean']:.0f} %"
        accuracy = f"{scored['mean']:.1f} ± {scored['std']:.1f}"
        cells.append(
            [
                row["what"],
                accuracy,
                downstream.format_p(scored["p"]),
                f"{scored['collapsed']} of {scored['runs']}",
                f"{row['mean']['mean']:.2f}",
            ]
        )
    columns = ["student", "accuracy, %", "p against text only", "collapsed runs", "probe"]
    return {**found, "questions": table(columns, cells)}


def measurement_results() -> dict[str, str]:
    found = {}
    for name, content in read("measurements.json").items():
        source = f"{content.get('note', '')} `{content['command']}`.".strip()
        source += "" if content["machine"] == MACHINE else f" {content['machine']}."
        parts = [f"**{content['title']}.**", table(content["columns"], content["rows"]), source]
        found[name] = "\n\n".join(parts)
        for row in content["rows"]:
            for column, cell in zip(content["columns"][1:], row[1:]):
                found[f"{name}.{slug(row[0])}.{slug(column)}"] = cell
    return found


def real_noun_results() -> dict[str, str]:
    """Tables of real nouns, and the accuracy on pictured nouns for the report, by the probe and of masked words."""
    kept = real_nouns.read_results(EVIDENCE / "real_nouns")
    found = {f"real-{name}": text for name, text in real_nouns.tables(kept).items()}
    for row in {row for rows in kept.values() for row in rows}:
        for name, value in real_nouns.accuracies(kept, row, "report", "pictured").items():
            found[f"real.{row}.{name}"] = f"{value:.2f}"
    for row in {row for rows in kept.values() for row in rows if row in real_nouns.ROWS}:
        for name, value in real_nouns.accuracies(kept, row, "report", "masked").items():
            found[f"real-masked.{row}.{name}"] = f"{value:.2f}"
        losses = [rows[row]["mlm_loss"] for rows in kept.values() if row in rows]
        found[f"real.{row}.mlm_loss"] = f"{mean(losses):.2f}"
    for entry in real_nouns.comparisons(kept):
        place = {"pictured": "real", "masked": "real-masked"}.get(entry["group"])
        if place and entry["part"] == "report":
            found[f"{place}.{entry['row']}.{entry['set']}.p"] = f"p {downstream.format_p(entry['p'])}"
    return found


def results() -> dict[str, str]:
    """Every table and number that a marker can name."""
    found = {**world_results(), **ablation_results(), **objective_results(), **downstream_results()}
    found |= scale_results() | question_results() | real_noun_results()
    for name in STEPS:
        found |= step_results(name)
    return {**found, **measurement_results()}


def fill(text: str, values: dict[str, str]) -> str:
    """Replaces what stands between the markers of a page.

    Raises:
        KeyError: A marker names something that is not among the results.
    """

    def replace(match: re.Match) -> str:
        value = values[match[1]]
        value = f"\n\n{value}\n\n" if "\n" in value else value
        return f"<!-- results: {match[1]} -->{value}<!-- /results -->"

    return MARKER.sub(replace, text)


def draw_figures() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from step import draw as draw_step

    world.draw(read("results.json"), EVIDENCE / "report.png")
    draw_tradeoff(world.points(read("results.json")), EVIDENCE / "tradeoff.png")
    tables = ablation_tables()
    for name, (rows, kept) in tables.items():
        ablations.draw(name, rows, kept, EVIDENCE / "ablations" / f"{name}.png")
    draw_tradeoff(points(tables["weights"][1]), EVIDENCE / "ablations" / "tradeoff.png")
    for name in ("step-small", "step-base", "step-small-amd"):
        content = read(f"{name}/step.json")
        draw_step(content["rows"], content["machine"], EVIDENCE / name / "step.png")
    draw_accuracies(real_nouns.read_results(EVIDENCE / "real_nouns"), EVIDENCE / "real_nouns" / "accuracy.png")
    scores = read("downstream/report.json")
    scores["models"] = [MODELS[model] for model in scores["models"]]
    downstream._figure(scores, EVIDENCE / "downstream" / "report.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", action="store_true", help="also redraw the figures (needs matplotlib)")
    parser.add_argument("--list", action="store_true", help="print the names of all results and stop")
    args = parser.parse_args()
    values = results()
    if args.list:
        print("\n".join(name if "\n" in value else f"{name}: {value}" for name, value in values.items()))
        return
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if (filled := fill(text, values)) != text:
            page.write_text(filled, encoding="utf-8")
            print(f"Filled {page.relative_to(ROOT)}")
    if args.figures:
        draw_figures()


if __name__ == "__main__":
    main()
