"""The notebook, executed with little data, against the files of the run that it makes."""

import ast
import json
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "explore_a_run.ipynb"
TINY = {"IMAGE_SIZE": 32, "BASE_CHANNELS": 4, "NUM_TRAINVAL": 40, "NUM_TEST": 12, "EPOCHS": 2}
REPORT = """
import json
print(json.dumps({
    "run": str(run.absolute()),
    "scores": scores.to_dict("index"),
    "worst": per_image.name.tolist()[0],
    "best": best["name"],
    "accuracy": accuracy,
}))
"""


def read():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook after its execution, and what its variables hold at the end."""
    notebook, folder = read(), tmp_path_factory.mktemp("notebook")
    (parameters,) = (i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
    settings = {**TINY, "FOLDER": str(folder / "out")}
    assert settings.keys() == {
        node.id for node in ast.walk(ast.parse(notebook.cells[parameters].source)) if isinstance(node, ast.Name)
    }
    injected = new_code_cell("\n".join(f"{name} = {value!r}" for name, value in settings.items()))
    notebook.cells.insert(parameters + 1, injected)
    notebook.cells.append(new_code_cell(REPORT))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": folder}}).execute()
    assert [path.name for path in folder.iterdir()] == ["out"]
    return notebook, json.loads(notebook.cells[-1].outputs[0].text)


def test_is_valid_and_holds_no_outputs():
    notebook = read()
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5)
    assert all(re.fullmatch(r"[a-z-]+", cell.id) for cell in notebook.cells)
    assert [(cell.outputs, cell.execution_count) for cell in code_cells(notebook)] == [([], None)] * len(
        code_cells(notebook)
    )


def test_calls_public_names_only():
    names = set()
    for node in ast.walk(ast.parse("\n".join(cell.source for cell in code_cells(read())))):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                names.add(name)
            case ast.ImportFrom(module=module, names=aliases):
                names |= {*str(module).split("."), *(alias.name for alias in aliases)}
    assert "load_module" in names
    assert [name for name in names if name.startswith("_")] == []


def test_its_scores_are_those_of_metrics_json(executed):
    _, found = executed
    metrics = json.loads(Path(found["run"], "metrics.json").read_text())
    assert found["scores"].keys() == {"test", "train", "val"}
    for split, scores in found["scores"].items():
        expected = metrics["splits"][split]["protocols"]["trimap"]
        assert scores == {
            "accuracy": expected["accuracy"],
            "mean IoU": expected["miou"],
            **{f"IoU {name}": expected["iou"][name] for name in ("pet", "background", "border")},
        }


def test_the_model_loaded_back_scores_what_the_table_says(executed):
    _, found = executed
    table = pd.read_csv(Path(found["run"], "per_image.csv")).set_index("name")
    assert len(table) == TINY["NUM_TEST"]
    assert (found["worst"], found["best"]) == (table["miou"].idxmin(), table["miou"].idxmax())
    assert found["accuracy"] == pytest.approx(table.at[found["best"], "accuracy"], abs=1.5 / 32**2)


def test_shows_pictures_and_tables_and_no_warning(executed):
    notebook, _ = executed
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 5
    assert sum("<table" in output.get("data", {}).get("text/html", "") for output in outputs) == 2
    assert [output for output in outputs if output.get("name") == "stderr" or "Warning" in str(output)] == []
