"""Runs examples/notebook.ipynb in an empty folder and keeps its outputs, without progress bars.

python docs/run_notebook.py
"""

import tempfile
from pathlib import Path

NOTEBOOK = Path(__file__).parent.parent / "examples" / "notebook.ipynb"


def run_notebook(folder: str | Path):
    """The notebook after all its cells have run in `folder`."""
    import nbclient
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def trim(notebook) -> None:
    """Removes what is of no use to a reader: stderr, second formats of pictures, times and machine."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.get("outputs", ()):
            if "image/jpeg" in output.get("data", {}):
                output.data.pop("image/png", None)
    notebook.metadata = {key: notebook.metadata[key] for key in ("kernelspec",) if key in notebook.metadata}


if __name__ == "__main__":
    import nbformat

    with tempfile.TemporaryDirectory() as folder:
        notebook = run_notebook(folder)
    trim(notebook)
    nbformat.write(notebook, NOTEBOOK)
