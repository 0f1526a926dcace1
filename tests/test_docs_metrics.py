"""Everything that a run logs is in the tables of docs/metrics.md."""

import re

import pytest
from docs_pages import DOCS, text_of


def metrics_of(kind: str) -> set[str]:
    """The names in the first column of a model's table of logged metrics, and of the table of both models."""
    page = text_of(DOCS / "metrics.md")
    sections = [page.partition(f"\n## {title}\n")[2].partition("\n## ")[0] for title in (kind.capitalize(), "Both")]
    rows = re.findall(r"^\| (.+?) \|", "\n".join(sections), re.M)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


@pytest.mark.parametrize("kind", ["student", "teacher"])
def test_all_that_a_run_logs_is_in_the_table(kind, tmp_path):
    from helpers import train

    from vidlankd_hf.models.losses import OBJECTIVES

    trainer = train(kind, tmp_path, objectives={"nst": 1.0, "crd": 1.0}, eval_strategy="steps", eval_steps=2)
    logged = {name for entry in trainer.state.log_history for name in entry} | set(trainer.evaluate())
    names = metrics_of(kind)
    assert {"loss", "grad_norm", "mlm_loss", "eval_mlm_loss", "eval_perplexity", "learning_rate"} <= logged
    assert not logged - names, f"not in the tables of metrics.md: {sorted(logged - names)}"
    if kind == "student":
        assert {f"{start}{name}_loss" for name in OBJECTIVES for start in ("", "eval_")} <= names
