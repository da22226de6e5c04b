"""Who may import whom, read from the source of every module: a new file is covered at once.

A part is a room (a folder of the package), a module of its root, or `report/__main__`, which is a door.
"""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {
    path.relative_to(ROOT).with_suffix("").as_posix().removesuffix("/__init__").replace("/", "."): path
    for path in sorted((ROOT / "petseg_lightning").rglob("*.py"))
}
DOORS = {"train", "evaluate", "predict", "export", "compare", "audit", "benchmark", "app", "shard", "report.__main__"}
TOP = DOORS | {"config", "cli", "own_folder", "sweeping"}  # what speaks to Hydra
# what doors run: heavy, given a config, without Hydra
BODIES = {
    "training",
    "scoring",
    "certifying",
    "benchmarking",
    "sharding",
    "comparing",
    "predicting",
    "exporting",
    "serving",
}
PURE = {"models", "losses", "metrics"}
HEAVY = {"torch", "torchvision", "torchmetrics", "lightning", "albumentations"}  # seconds to import


def part(module: str) -> str:
    name = module.removeprefix("petseg_lightning.")
    return name if name in TOP else name.partition(".")[0]


def statements(tree: ast.AST, executed: bool) -> Iterator[ast.AST]:
    """All nodes; with `executed` only those that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if executed and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if executed and isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from statements(node, executed)


@cache
def imports(module: str, executed: bool = False) -> frozenset[str]:
    """Modules that a module imports: full names inside the package, the top-level ones of others."""
    names = set()
    for node in statements(ast.parse(MODULES[module].read_text("utf-8")), executed):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import; write it in full"
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
    return frozenset(name if name in MODULES else name.partition(".")[0] for name in names)


def imported_parts(module: str) -> set[str]:
    return {part(name) for name in imports(module) if name.startswith("petseg_lightning.")} - {part(module)}


def executed_by(module: str) -> dict[str, str]:
    """Everything that importing a module imports, each with the module that does it."""
    found, waiting = {module: module}, [module]
    while waiting:
        importer = waiting.pop()
        if importer not in MODULES:
            continue
        parent = importer.rpartition(".")[0]
        for name in imports(importer, executed=True) | ({parent} if parent else set()):
            if name not in found:
                found[name] = importer
                waiting.append(name)
    return found


@pytest.mark.parametrize("module", MODULES)
def test_only_doors_config_and_cli_import_hydra(module):
    assert part(module) in TOP or "hydra" not in imports(module)


@pytest.mark.parametrize("module", MODULES)
def test_no_room_imports_what_stands_above_the_rooms(module):
    if part(module) in BODIES:
        assert not imported_parts(module) & (TOP - {"config"})
    elif part(module) not in TOP:
        assert not imported_parts(module) & (TOP | BODIES)


@pytest.mark.parametrize("module", [module for module in MODULES if part(module) in PURE])
def test_models_losses_and_metrics_know_torch_and_no_other_room(module):
    assert imported_parts(module) <= {"errors"}
    framework = {"hydra", "omegaconf", "lightning", "pytorch_lightning"}
    if part(module) != "metrics":
        framework.add("torchmetrics")
    assert not imports(module) & framework


def test_parts_import_each_other_in_one_direction():
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        graph.setdefault(part(module), set()).update(imported_parts(module))
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("module", [m for m in MODULES if part(m) in TOP or part(m) == "report"])
def test_help_typos_and_reports_start_without_torch(module):
    assert {name: by for name, by in executed_by(module).items() if name in HEAVY} == {}


@pytest.mark.parametrize(
    "module",
    [m for m in MODULES if part(m) in {"inference", "predicting", "serving"} and not m.endswith("predictor_module")],
)
def test_predicting_starts_without_what_only_training_needs(module):
    unneeded = HEAVY - {"torch"} | {"matplotlib"}
    assert {name: by for name, by in executed_by(module).items() if name in unneeded} == {}


@pytest.mark.parametrize("module", [m for m in MODULES if part(m) == "report"])
def test_report_imports_no_torch_even_later(module):
    assert not imports(module) & HEAVY
    assert imported_parts(module) <= {"conf_tree", "data", "errors", "files", "plain_files", "rules"}
    assert {name for name in imports(module) if part(name) == "data"} <= {"petseg_lightning.data.picture_file"}
    assert imported_parts("petseg_lightning.data.picture_file") <= {"errors", "files"}
