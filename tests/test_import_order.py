"""Nothing imports upwards, in a circle, or for nothing; `import cupola` stays light (style.md 16, 20).

A room is a package or module directly in `cupola`. Imports inside functions count as well. Each check is a function of
a source tree, so that the second half of this file can show that it fails when it should.
"""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import cupola
from cupola.cli import VERBS, module_of

SOURCE = Path(cupola.__file__).parents[1]

LAYERS = (
    ("cupola",),
    ("errors", "progress"),
    ("types",),
    ("taxonomy",),
    ("io", "devices"),
    ("config", "diagnosis"),
    ("geometry", "engines", "visualize", "report", "runs"),
    ("data", "evaluation"),
    ("correspondence",),
    ("semantics",),
    ("motion",),
    ("pseudo_labels", "models"),
    ("training", "weights"),
    ("prediction", "inspection", "scoring"),
    ("experiment",),
    ("demo_report", "ablation", "finetuning", "export"),
    ("demonstration",),
    ("cli",),
)
"""The rooms from the ground up. A room imports only itself and rooms of the rows above its own in this table."""

ENTRIES = frozenset(
    {"cupola", "cupola.cli", "cupola.cli.__main__"} | {module_of(verb) for verb in VERBS} | set(cupola._HOMES.values())
)
"""Where use begins: the verbs, `python -m cupola.cli`, and the homes of the public names."""

HEAVY = ("torch", "numpy", "cv2", "numba", "scipy", "matplotlib")


def modules_of(source):
    """Name -> file of every module; a package goes by its own name."""
    files = {".".join(path.relative_to(source).with_suffix("").parts): path for path in source.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in files.items()}


def imports_of(source):
    """Module -> modules that its text names, anywhere in it."""
    modules = modules_of(source)
    graph = {}
    for module, path in modules.items():
        named = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module} imports relatively in line {node.lineno}"
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    named.add(inner if inner in modules else node.module)
        graph[module] = (named & modules.keys()) - {module}
    return graph


def room_of(module):
    return module.split(".")[1] if "." in module else module


def upward_imports(source, layers):
    height = {room: number for number, row in enumerate(layers) for room in row}
    graph = imports_of(source)
    assert {room_of(module) for module in graph} == height.keys(), (
        "the table of layers lacks a room, or has one too many"
    )
    return [
        f"{module} imports {named}"
        for module, names in graph.items()
        for named in names
        if room_of(module) != room_of(named) and height[room_of(named)] >= height[room_of(module)]
    ]


def circle(source):
    """Modules that import each other in a circle, or nothing."""
    try:
        TopologicalSorter(imports_of(source)).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def unreachable(source, entries):
    """Modules that no entry leads to. Importing a module runs the packages around it, so those are reached too."""
    graph = imports_of(source)
    reached, waiting = set(), list(entries)
    while waiting:
        module = waiting.pop()
        if module in graph and module not in reached:
            reached.add(module)
            waiting += [*graph[module], module.rpartition(".")[0]]
    return sorted(graph.keys() - reached)


def loaded_by(statement):
    """Heavy packages in a fresh interpreter after a statement."""
    code = f"import sys\n{statement}\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.split()


def test_nothing_imports_upwards():
    assert upward_imports(SOURCE, LAYERS) == []


def test_nothing_imports_in_a_circle():
    assert circle(SOURCE) == []


def test_everything_is_reached_from_an_entry():
    assert unreachable(SOURCE, ENTRIES) == []


def test_every_entry_exists():
    assert ENTRIES - modules_of(SOURCE).keys() == set()


@pytest.mark.parametrize("module", ["cupola", "cupola.cli"])
def test_the_package_and_its_command_line_import_nothing_heavy(module):
    assert loaded_by(f"import {module}") == []


# What follows shows that the checks above can fail.


def write_tree(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


SOUND = {
    "house/__init__.py": "",
    "house/ground.py": "import os\n",
    "house/first/__init__.py": "from house.first.hall import door\n",
    "house/first/hall.py": "from house import ground\ndoor = 1\n",
    "house/first/room.py": "from house.first import hall\n",
    "house/roof.py": "def build():\n    from house.first import room\n",
}
HOUSE = (("house",), ("ground",), ("first",), ("roof",))


def test_a_sound_house_passes(tmp_path):
    tree = write_tree(tmp_path, SOUND)
    assert upward_imports(tree, HOUSE) == []
    assert circle(tree) == []
    assert unreachable(tree, {"house.roof"}) == []


@pytest.mark.parametrize(
    ("line", "culprit"),
    [
        ("import house.roof", "house.first.hall imports house.roof"),
        ("from house import roof", "house.first.hall imports house.roof"),
        ("def late():\n    from house.roof import build", "house.first.hall imports house.roof"),
    ],
)
def test_an_upward_import_is_found_wherever_it_stands(tmp_path, line, culprit):
    tree = write_tree(tmp_path, SOUND | {"house/first/hall.py": f"{line}\ndoor = 1\n"})
    assert upward_imports(tree, HOUSE) == [culprit]


def test_rooms_of_one_row_may_not_import_each_other(tmp_path):
    tree = write_tree(tmp_path, SOUND)
    assert upward_imports(tree, (("house",), ("ground",), ("first", "roof"))) == ["house.roof imports house.first.room"]


def test_a_room_missing_from_the_table_is_found(tmp_path):
    tree = write_tree(tmp_path, SOUND | {"house/shed.py": ""})
    with pytest.raises(AssertionError, match="table of layers"):
        upward_imports(tree, HOUSE)


@pytest.mark.parametrize("line", ["from house.first import room", "from house.first import door"])
def test_a_circle_inside_a_room_is_found(tmp_path, line):
    tree = write_tree(tmp_path, SOUND | {"house/first/hall.py": f"def late():\n    {line}\n"})
    assert "house.first.hall" in circle(tree)


def test_a_module_that_nothing_uses_is_found(tmp_path):
    tree = write_tree(tmp_path, SOUND | {"house/attic.py": "from house import roof\n"})
    assert unreachable(tree, {"house.roof"}) == ["house.attic"]


def test_a_heavy_import_is_found():
    assert "torch" in loaded_by("import cupola.models")
    assert "torch" not in loaded_by("import cupola.evaluation")
