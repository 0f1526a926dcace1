"""The notebook runs from its first cell to its last and ends with a page."""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parent.parent / "examples" / "notebook.ipynb"


@pytest.mark.slow
def test_notebook_runs_and_its_student_learns_from_the_teacher(tmp_path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    page = (tmp_path / "outputs" / "notebook" / "grounding.html").read_text()
    assert "data:image/jpeg;base64," in page and '"student": {' in page
    printed = "".join(
        output["text"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output["output_type"] == "stream"
    )
    rows = {line[:10].strip(): [float(v) for v in line[10:].split()] for line in printed.splitlines()
            if line.startswith(("teacher   ", "student   ", "text only ", "chance    "))}  # fmt: skip
    colour = {name: values[0] for name, values in rows.items()}
    assert len(rows) == 4 and min(colour["teacher"], colour["student"]) > max(colour["text only"], colour["chance"])
