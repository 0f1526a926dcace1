"""The notebook runs from its first cell to its last, and is committed with small outputs that name no machine."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "examples" / "notebook.ipynb"


def printed_by(cells) -> str:
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    return "".join("".join(output["text"]) for output in outputs if output["output_type"] == "stream")


def check_scores(printed: str) -> None:
    """Teacher and student know more about colour than the text-only student and chance."""
    rows = {
        name: float(colour) for name, colour in re.findall(r"^(\w[\w ]*?) +([\d.]+) +[\d.]+ +[\d.]+$", printed, re.M)
    }
    assert set(rows) == {"teacher", "student", "text only", "chance"}
    assert min(rows["teacher"], rows["student"]) > max(rows["text only"], rows["chance"])


def test_committed_outputs_are_complete_and_small():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    counts = [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    check_scores(printed_by(cells))
    content = NOTEBOOK.read_text()
    assert len(content) < 400_000 and content.count('"image/jpeg"') >= 3
    assert not re.search(r"/(home|root|tmp|work|Users)/|Warning", content)


@pytest.mark.slow
def test_notebook_runs_and_its_student_learns_from_the_teacher(tmp_path):
    pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    spec = importlib.util.spec_from_file_location("run_notebook", ROOT / "docs" / "run_notebook.py")
    run_notebook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run_notebook)
    notebook = run_notebook.run_notebook(tmp_path)
    page = (tmp_path / "outputs" / "notebook" / "grounding.html").read_text()
    assert "data:image/jpeg;base64," in page and '"student": {' in page
    check_scores(printed_by(notebook.cells))
