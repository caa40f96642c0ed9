"""Imports run one way, files and functions stay short, public names are sound."""

import ast
import importlib
import inspect
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import skprune

PACKAGE = Path(skprune.__file__).parent
LAYERS = [
    {"exceptions"},
    {"base"},
    {"games"},
    {"samplers"},
    {"scorers"},
    {"strategies"},
    {"networks"},
    {"evaluation"},
    {"pruners"},
    {"inspection", "metrics", "persistence"},
]
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}
WITHOUT_TORCH = [name for name, rank in RANKS.items() if rank <= RANKS["strategies"]]
TORCH_SIDE = {"torch", "torch_pruning", "torchvision", "skorch", "triton"}


def module_name(path, root=PACKAGE):
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
PUBLIC = [name for name in PATHS if not any(p[0] == "_" for p in name.split("."))]


@cache
def tree_of(name):
    return ast.parse(PATHS[name].read_text(encoding="utf-8"))


def layer_of(name):
    """The part after `skprune.`; None for the package itself."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else None


def imported_modules(tree, known=frozenset(PATHS)):
    """Every module that a tree imports, wherever the statement stands."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.append(inner if inner in known else base)
    return found


def is_ours(name):
    return name == "skprune" or name.startswith("skprune.")


def import_faults(name, imported):
    """Say what is wrong with the imports of one of our modules."""
    layer, faults = layer_of(name), []
    for target in imported:
        if target.startswith("."):
            faults.append(f"{name} imports {target}: write it absolute")
        elif layer in WITHOUT_TORCH and target.split(".")[0] in TORCH_SIDE:
            faults.append(f"{name} imports {target}: this layer never imports torch")
        elif is_ours(target) and layer_of(target) != layer:
            faults += border_faults(name, target)
    return faults


def border_faults(name, target):
    """Say what is wrong with an import across the border of a layer."""
    layer, other = layer_of(name), layer_of(target)
    if layer is None:
        return [f"{name} imports {target}: name it in _HOMES, which is lazy"]
    if other is None:
        return [f"{name} imports {target}: import from the subpackage instead"]
    if RANKS[other] >= RANKS[layer]:
        return [f"{name} imports {target}: imports only run downwards"]
    if any(part.startswith("_") for part in target.split(".")):
        return [f"{name} imports {target}: import from skprune.{other} instead"]
    return []


def imports_in_functions(tree):
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    inside = [node for node in ast.walk(tree) if isinstance(node, functions)]
    return sorted({name for f in inside for name in imported_modules(f)})


def long_functions(tree, limit=60):
    """Names of the functions whose body, without the docstring, is over the limit."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body and node.end_lineno - body[0].lineno + 1 > limit:
                found.append(node.name)
    return found


def find_cycle(graph):
    """The modules of one import cycle, or an empty list."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_every_module_belongs_to_a_layer():
    assert {layer_of(name) for name in PATHS} <= {None, *RANKS}


@pytest.mark.parametrize("name", PATHS)
def test_imports_run_one_way(name):
    assert import_faults(name, imported_modules(tree_of(name))) == []


@pytest.mark.parametrize("name", PATHS)
def test_no_import_is_hidden_in_a_function(name):
    hidden = imports_in_functions(tree_of(name))
    assert [target for target in hidden if is_ours(target)] == []


@pytest.mark.parametrize("name", PATHS)
def test_no_star_import(name):
    nodes = [n for n in ast.walk(tree_of(name)) if isinstance(n, ast.ImportFrom)]
    assert all(alias.name != "*" for node in nodes for alias in node.names)


def test_imports_have_no_cycle():
    graph = {name: imported_modules(tree_of(name)) for name in PATHS}
    assert find_cycle(graph) == []


@pytest.mark.parametrize("name", PATHS)
def test_files_and_functions_are_short(name):
    n_lines = len(PATHS[name].read_text(encoding="utf-8").splitlines())
    assert n_lines <= 500, f"{name} has {n_lines} lines: it is two rooms"
    assert long_functions(tree_of(name)) == []


def test_the_first_layers_never_load_torch():
    present = [
        f"skprune.{name}" for name in WITHOUT_TORCH if f"skprune.{name}" in PATHS
    ]
    code = (
        "import sys, importlib\n"
        f"for name in {present}: importlib.import_module(name)\n"
        f"print(sorted({TORCH_SIDE} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_sorted_documented_and_there(name):
    module = importlib.import_module(name)
    assert inspect.getdoc(module), f"{name} has no docstring"
    assert list(module.__all__) == sorted(set(module.__all__))
    for public in module.__all__:
        value = getattr(module, public)
        if inspect.isclass(value) or inspect.isroutine(value):
            assert value.__doc__, f"{name}.{public} has no docstring"


def test_the_package_exports_what_it_says():
    assert set(skprune._HOMES) == set(skprune.__all__) <= set(dir(skprune))
    with pytest.raises(AttributeError, match="no attribute 'Pruner'"):
        _ = skprune.Pruner


@pytest.mark.parametrize(
    ("name", "target", "fault"),
    [
        ("skprune.samplers._orders", "skprune.scorers", "only run downwards"),
        ("skprune.metrics", "skprune.persistence", "only run downwards"),
        ("skprune.scorers._base", "skprune.games._base", "from skprune.games"),
        ("skprune.scorers._base", "skprune", "from the subpackage"),
        ("skprune.scorers._base", ".games", "absolute"),
        ("skprune.scorers._base", "torch.nn", "never imports torch"),
        ("skprune", "skprune.games", "lazy"),
    ],
)
def test_the_rules_see_their_faults(name, target, fault):
    assert len(import_faults(name, [target])) == 1
    assert fault in import_faults(name, [target])[0]


def test_the_rules_pass_what_is_allowed():
    allowed = ["numpy", "skprune.exceptions", "skprune.games", "skprune.scorers._exact"]
    assert import_faults("skprune.scorers._base", allowed) == []
    assert import_faults("skprune.evaluation._payoffs", ["torch", "skorch"]) == []


def test_the_readers_of_source_see_what_they_look_for():
    body = "\n".join(["    x = 1"] * 61)
    tree = ast.parse(
        f"def long():\n    'doc'\n{body}\n"
        "def hiding():\n    from skprune.games import _x\n"
        "from . import samplers\n"
    )
    assert long_functions(tree) == ["long"]
    assert long_functions(tree, limit=61) == []
    known = {"skprune.games._x"}
    assert set(imported_modules(tree, known)) == {"skprune.games._x", "."}
    assert imports_in_functions(tree) == ["skprune.games"]
    assert set(find_cycle({"a": ["b"], "b": ["c"], "c": ["a"]})) == {"a", "b", "c"}
    assert find_cycle({"a": ["b", "c"], "b": ["c"]}) == []
