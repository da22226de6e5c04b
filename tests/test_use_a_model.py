"""The notebook that uses a model, executed, against the files that it leaves."""

from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell
from PIL import Image

ROOT = Path(__file__).parents[1]
NOTEBOOK, PICTURE = ROOT / "notebooks/use_a_model.ipynb", ROOT / "petseg_lightning/serving/chelsea.jpg"


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The code cells after their execution, and the folder of the results."""
    notebook, folder = nbformat.read(NOTEBOOK, as_version=4), tmp_path_factory.mktemp("notebook")
    (parameters,) = (i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
    injected = new_code_cell(f"PICTURE, FOLDER = {str(PICTURE)!r}, {str(folder / 'out')!r}")
    notebook.cells.insert(parameters + 1, injected)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": folder}}).execute()
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}, folder / "out"


def test_is_valid_and_holds_no_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


def test_says_what_the_files_say(executed):
    cells, folder = executed
    (row,) = pd.read_csv(folder / "predictions.csv").to_dict("records")
    said = cells["predict"].outputs[0].text
    assert said == f"451 x 300 pixels, confidence {row['confidence']:.2f}\n"
    classes = np.asarray(Image.open(folder / "masks/chelsea.png"))
    shares = np.bincount(classes.ravel(), minlength=3) / classes.size
    for name, share in zip(("pet", "background", "border"), shares, strict=True):
        assert f"{name}        {share:.3f}"[:4] in cells["areas"].outputs[0].data["text/plain"]
        assert f"{share:.3f}".rstrip("0") in cells["areas"].outputs[0].data["text/plain"]


def test_shows_pictures_and_no_warning(executed):
    cells, _ = executed
    outputs = [output for cell in cells.values() for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert [output for output in outputs if output.get("name") == "stderr" or "Warning" in str(output)] == []
