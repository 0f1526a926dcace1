"""The figure that shows what each student learned and what it paid: knowledge against language modeling."""

from pathlib import Path

from ...utils.extras import requires_extra
from ...utils.figures import COLORS
from .report import TEXT_ONLY, row_of
from .tables import ROWS

# Color, marker and label of each objective; rows with several objectives have those of the last.
STYLES = {
    "nst": ("#7a4fb5", "s", "NST"),
    "crd": ("#2f6fab", "o", "CRD"),
    "infonce": ("#2a9d8f", "D", "InfoNCE"),
    "regression": ("#c2456b", "^", "regression"),
    "soft_label": ("#8a6d3b", "v", "soft labels"),
    "voken": ("#5b7f2b", "p", "vokens"),
}
# Teachers that have seen nothing that belongs to the words.
CONTROLS = ("text_teacher", "shuffled_teacher")


def points(results: dict[int, dict[str, dict]]) -> list[dict]:
    """One point per student: the means over seeds of its MLM loss and of the share of the gap that it closes.

    Args:
        results: For each seed the stored results by row name.

    Returns:
        Entries with `student`, `mlm_loss`, `gap_closed` and `kind`: an objective, `"text_only"` or `"control"`.
        Students of other model types are left out: their losses are not comparable.
    """
    found = []
    for student, row in ROWS.items():
        if "student_model_type" in row.options:
            continue
        made = row_of(student, results)
        if not made["seeds"] or not made["gap_closed"]:
            continue
        kind = next(reversed(row.objectives), "text_only")
        if row.teacher in CONTROLS or (student not in TEXT_ONLY and not row.objectives):
            kind = "control"
        entry = {"student": student, "kind": kind, "mlm_loss": made["mlm_loss"]["mean"]}
        found.append({**entry, "gap_closed": made["gap_closed"]["mean"]})
    return found


def draw_tradeoff(results: dict[int, dict[str, dict]], path: str | Path) -> None:
    """Draws the points; lines mark the text-only student and the teacher."""
    with requires_extra("world"):
        from matplotlib.figure import Figure

    shown = points(results)
    figure = Figure(figsize=(8.5, 5), layout="constrained")
    axis = figure.subplots()
    axis.axhline(1, color=COLORS["teacher"], lw=1.5, zorder=1, label="teacher")
    base = next((point for point in shown if point["student"] == "text_only"), None)
    if base:
        axis.axvline(base["mlm_loss"], color=COLORS["control"], ls="--", lw=1.5, zorder=1, label="text only")
        axis.axhline(0, color=COLORS["control"], ls="--", lw=1.5, zorder=1)
    for kind in ("control", *STYLES):
        chosen = [point for point in shown if point["kind"] == kind]
        color, marker, label = STYLES.get(kind, (COLORS["control"], "X", "control"))
        style = {"color": color, "marker": marker, "edgecolor": "white", "s": 60, "zorder": 3}
        if chosen:
            axis.scatter([p["mlm_loss"] for p in chosen], [p["gap_closed"] for p in chosen], label=label, **style)
    axis.set(xlabel="masked-language-model loss on held-out text (lower is better)", ylim=(-0.15, 1.15))
    axis.set(ylabel="share of the gap closed (higher is better)", yticks=[0, 0.25, 0.5, 0.75, 1])
    axis.set_yticklabels(["0", "25 %", "50 %", "75 %", "100 %"])
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title("What each student knows, and how well it models language", fontsize=11)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    figure.savefig(path, dpi=120)
