"""The figure that shows what each student learned and what it paid: knowledge against language modeling."""

from pathlib import Path

from ...utils.extras import requires_extra
from ...utils.figures import COLORS

# Color, marker and label of each kind; students with several objectives have those of the last.
STYLES = {
    "nst": ("#7a4fb5", "s", "NST"),
    "crd": ("#2f6fab", "o", "CRD"),
    "infonce": ("#2a9d8f", "D", "InfoNCE"),
    "regression": ("#c2456b", "^", "regression"),
    "soft_label": ("#8a6d3b", "v", "soft labels"),
    "voken": ("#5b7f2b", "p", "vokens"),
    "continue": ("#3d3d3d", "P", "teacher's text encoder"),
}


def draw_tradeoff(points: list[dict], path: str | Path) -> None:
    """Draws one marker per point, hollow for longer training; lines mark the text-only students and the teacher.

    Args:
        points: Entries with `mlm_loss`, `gap_closed` and `kind`: a key of `STYLES`, `"text_only"` or `"control"`. One
            may have a `label`, which is written next to its marker, and a `steps_factor` of 2: twice the steps of the
            other students.
        path: File of the figure.
    """
    with requires_extra("world"):
        from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 5), layout="constrained")
    axis = figure.subplots()
    axis.axhline(1, color=COLORS["teacher"], lw=1.5, zorder=1, label="teacher")
    axis.axhline(0, color=COLORS["control"], ls="--", lw=1.5, zorder=1)
    for factor, line, length in ((1, "--", ""), (2, ":", ", twice the steps")):
        trained = [point for point in points if point.get("steps_factor", 1) == factor]
        base = [point["mlm_loss"] for point in trained if point["kind"] == "text_only"]
        if base:
            label = f"text only{length}"
            axis.axvline(sum(base) / len(base), color=COLORS["control"], ls=line, lw=1.5, zorder=1, label=label)
        for kind in (*STYLES, "control"):
            chosen = [point for point in trained if point["kind"] == kind]
            color, marker, label = STYLES.get(kind, (COLORS["control"], "X", "control"))
            edge = {"facecolor": color, "edgecolor": "white"} if factor == 1 else {"facecolor": "none", "color": color}
            if chosen:
                style = {"marker": marker, **edge, "s": 60, "zorder": 3, "label": label + length}
                axis.scatter([p["mlm_loss"] for p in chosen], [p["gap_closed"] for p in chosen], **style)
    height, labelled = 2.0, [point for point in points if "label" in point and point["kind"] != "text_only"]
    for i, point in enumerate(sorted(labelled, key=lambda point: -point["gap_closed"])):
        height = min(point["gap_closed"] + 0.03, height - 0.055)  # labels of close points stand below each other
        line = {"arrowstyle": "-", "lw": 0.6, "color": COLORS["control"]}
        style = {"fontsize": 9, "va": "center", "arrowprops": line, "bbox": {"fc": "white", "ec": "none", "pad": 1}}
        style["zorder"] = 2.9 - 0.01 * i  # the line to a point passes behind the labels above
        place = (point["mlm_loss"], point["gap_closed"]), (12, height)
        axis.annotate(point["label"], *place, textcoords=("offset points", "data"), **style)
    axis.set(xlabel="masked-language-model loss on held-out text, nats (lower is better)", ylim=(-0.15, 1.15))
    axis.margins(x=0.35 if any("label" in point for point in points) else 0.05)  # room for the labels
    axis.set(ylabel="share of the gap closed (higher is better)", yticks=[0, 0.25, 0.5, 0.75, 1])
    axis.set_yticklabels(["0", "25 %", "50 %", "75 %", "100 %"])
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title("What each student knows, and how well it models language", fontsize=11)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    figure.savefig(path, dpi=120)
