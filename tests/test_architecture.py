"""Import direction is a test: who may know whom is told by the table in docs/architecture.md."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest

from factory.store.store import Store
from tests.unit.parts import folder_registry, push_foreign
from tests.unit.store.stored import put

ROOT = Path(__file__).resolve().parent.parent
FACTORY = ROOT / "factory"
TABLE = ROOT / "docs/architecture.md"
TOUCHES_THE_WORLD = {
    "os",
    "pathlib",
    "socket",
    "subprocess",
    "shutil",
    "tempfile",
    "urllib",
    "http",
    "requests",
    "time",
}
APART = (4, 5)  # layers whose rows do not import each other: stages, and what is built of them
BECOME_THE_ENGINE = ("exec", "run", "shell")
FACTORY_SIDE = {"oras", "github", "jsonschema", "docker", "packageurl"}
NETWORK = {"requests", "urllib3", "ssl", "http", "concurrent", "factory.pull.pull", "factory.io.http"}


def rooms() -> dict[str, int]:
    """Every place that the table names, and its layer."""
    found: dict[str, int] = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        row = re.match(r"\| (\d) \| (.*?) \|", line)
        if row:
            found |= dict.fromkeys(re.findall(r"`([^`]+)`", row[2]), int(row[1]))
    return found


def rows() -> dict[str, int]:
    """Every place that the table names, and the number of its row: those of one row may know each other."""
    lines = (re.match(r"\| \d \| (.*?) \|", line) for line in TABLE.read_text(encoding="utf-8").splitlines())
    named = (re.findall(r"`([^`]+)`", line[1]) for line in lines if line)
    return {room: number for number, places in enumerate(named) for room in places}


def modules() -> list[Path]:
    return sorted(FACTORY.rglob("*.py"))


def room_of(parts: tuple[str, ...]) -> str:
    """The room of a module: ``factory.io.files`` is in ``io/``, ``factory.errors`` is ``errors.py``."""
    if len(parts) < 2:
        return ""
    return f"{parts[1]}/" if (FACTORY / parts[1]).is_dir() else f"{parts[1]}.py"


def own_room(path: Path) -> str:
    return room_of(("factory", *path.relative_to(FACTORY).with_suffix("").parts))


def imports(source: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and dotted name of everything that a module imports, lazily or not."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, tuple(name.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            # A relative import would hide where things come from.
            base = ("relative", "import") if node.level else tuple((node.module or "").split("."))
            for name in node.names:
                yield node.lineno, (*base, name.name)


def breaches(room: str, source: str) -> Iterator[str]:
    """Every import that the layers forbid to a module of this room."""
    layers, row = rooms(), rows()
    own = layers[room]
    for line, name in imports(source):
        if name[0] == "relative":
            yield f"{line}: a relative import"
        if name[0] != "factory":
            if own == 0 and name[0] in TOUCHES_THE_WORLD:
                yield f"{line}: layer 0 imports {name[0]}, which touches the world"
            continue
        theirs = room_of(name)
        if theirs in (room, "__version__.py"):
            continue
        if layers[theirs] > own:
            yield f"{line}: layer {own} imports {'.'.join(name)} of layer {layers[theirs]}"
        elif own in APART and layers[theirs] == own and row[theirs] != row[room]:
            yield f"{line}: {room} imports {'.'.join(name)} of another row of layer {own}"
        elif layers[theirs] == own == 2 and name[1:3] != ("registry", "protocol"):
            yield f"{line}: {room} imports its sibling {'.'.join(name)}"


def test_every_room_of_the_table_exists_and_every_module_is_in_a_room() -> None:
    layers = rooms()
    assert {0, 1, 2, 3, 4, 5, 6} == set(layers.values())
    missing = [room for room in layers if not (FACTORY / room).exists()]
    assert not missing, f"the table names rooms that do not exist: {missing}"
    homeless = {own_room(path) for path in modules()}
    assert homeless - set(layers) - {"__init__.py"} == set(), "modules that the table does not know"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(FACTORY)))
def test_imports_go_downwards_and_siblings_do_not_know_each_other(path: Path) -> None:
    if path != FACTORY / "__init__.py":
        assert list(breaches(own_room(path), path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("room", "planted", "found"),
    [
        ("store/", "import factory.cli.main", "1: layer 2 imports factory.cli.main of layer 6"),
        ("store/", "from factory import plan", "1: layer 2 imports factory.plan of layer 4"),
        ("store/", "from factory.engine import host", "1: store/ imports its sibling factory.engine.host"),
        ("io/", "def f():\n    from factory.store.store import Store", "2: layer 1 imports factory.store.store.Store"),
        ("oci/", "import os", "1: layer 0 imports os, which touches the world"),
        (
            "plan/",
            "from factory.build.build import build",
            "1: plan/ imports factory.build.build.build of another row of layer 4",
        ),
        ("build/", "from factory.make import make", "1: layer 4 imports factory.make.make of layer 5"),
        ("report/", "from factory.make import make", "1: report/ imports factory.make.make of another row of layer 5"),
        ("pull/", "from .store import store", "1: a relative import"),
    ],
)
def test_a_forbidden_import_is_found(room: str, planted: str, found: str) -> None:
    assert [breach[: len(found)] for breach in breaches(room, planted)] == [found]


def module_name(path: Path) -> str:
    parts = ("factory", *path.relative_to(FACTORY).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def known_module(name: tuple[str, ...], known: Collection[str]) -> str:
    """The module of ours that an imported name is, or is in; '' for what is not ours."""
    return next((".".join(one) for one in (name, name[:-1]) if ".".join(one) in known), "")


def circles(sources: Mapping[str, str]) -> list[list[str]]:
    """Modules that import each other, by way of others or not; lazy imports and those for types alone count too."""
    imported = {
        module: {known_module(name, sources) for _, name in imports(source)} - {"", module}
        for module, source in sources.items()
    }
    found = []
    while imported:
        free = {module for module, others in imported.items() if not others & imported.keys()}
        if not free:  # all that is left leads into a circle: walk on until a module comes again
            way = [min(imported)]
            while way[-1] not in way[:-1]:
                way.append(min(imported[way[-1]] & imported.keys()))
            found.append(way[way.index(way[-1]) :])
            free = {way[-1]}
        imported = {module: others for module, others in imported.items() if module not in free}
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles({module_name(path): path.read_text(encoding="utf-8") for path in modules()}) == []


def test_a_circle_is_found() -> None:
    planted = {
        "factory.cli": "from factory.cli.a import run",
        "factory.cli.a": "from factory.cli import b",
        "factory.cli.b": "def f():\n    from factory.cli.c import g",
        "factory.cli.c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import factory.cli.a",
    }
    assert circles(planted) == [["factory.cli.a", "factory.cli.b", "factory.cli.c", "factory.cli.a"]]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(FACTORY)))
def test_only_cli_prints_exits_or_reads_the_environment(path: Path) -> None:
    if path.is_relative_to(FACTORY / "cli"):
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "exit", "quit", "input"), f"{path}:{node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            at_top = path.name == "launch.py"  # a program of its own, which becomes another one
            assert at_top or name not in ("os.environ", "os.getenv", "sys.exit"), f"{path}:{node.lineno}: {name}"


def test_modules_stay_small() -> None:
    long = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert {name: lines for name, lines in long.items() if lines > 400} == {}


REPORT = """
import atexit, sys
from factory.cli import main

def report(*_):
    print("LOADED", *sys.modules, file=sys.stderr, flush=True)

sys.addaudithook(lambda event, _: report() if event == "os.exec" else None)
atexit.register(report)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """The environment of a user who has a stored image and an engine that only says so."""
    put(Store(tmp_path / "store"), b"the image", "tool", "1.0-1", "latest")
    engine = tmp_path / "apptainer"
    engine.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "apptainer version 1.4.5" || echo "started $2"\n')
    engine.chmod(0o755)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "SINGFACTORY_STORE": str(tmp_path / "store"),
        "SINGFACTORY_ENGINE": str(engine),
        "SINGFACTORY_REGISTRY": "ghcr.io/org/images",
        "SLURM_TMPDIR": str(tmp_path),
    }


def loaded_by(env: Mapping[str, str], *arguments: str) -> set[str]:
    """Run a command, which must succeed. Returns the modules loaded when it ends or becomes another program."""
    command = [sys.executable, "-c", REPORT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, cwd=env["HOME"])
    assert done.returncode == 0, done.stderr
    assert (arguments[0] in BECOME_THE_ENGINE) == done.stdout.startswith(f"started {arguments[0]}")
    return set(done.stderr.rpartition("LOADED")[2].splitlines()[0].split())


@pytest.mark.parametrize(
    "arguments",
    [
        ("path", "tool"),
        ("exec", "tool", "true"),
        ("run", "tool"),
        ("shell", "tool"),
        ("stage", "tool"),
        ("lock", "tool"),
        ("store", "verify"),
        ("pull", "tool", "--registry", "oci:registry"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_the_cluster_side_starts_without_heavy_modules(cluster: dict[str, str], arguments: tuple[str, ...]) -> None:
    if arguments[0] == "pull":
        push_foreign(folder_registry(Path(cluster["HOME"]) / "registry"), "tool", "latest", b"the image")
    loaded = loaded_by(cluster, *arguments)
    assert loaded & FACTORY_SIDE == set()
    if arguments[0] not in ("pull", "store"):
        assert loaded & NETWORK == set()
    if arguments[0] == "path":
        assert {name for name in loaded if name.startswith(("factory.engine", "factory.registry"))} == set()


def test_only_what_goes_into_the_store_is_read_unverified() -> None:
    asking = {
        str(path.relative_to(FACTORY))
        for path in modules()
        if "caller_verifies=True" in path.read_text(encoding="utf-8")
    }
    # registry/mirrors.py hashes what it reads itself, because one blob may come from two registries.
    assert asking == {"pull/pull.py", "registry/mirrors.py"}


# Who reads JSON without factory.strict, and why.
OWN_JSON = {
    "strict.py": "it is the reader",
    "io/confine.py": "a program of its own, for the standard library alone; it reads what its parent has written",
    "io/search_program.py": "the same",
}


def test_json_is_read_by_the_strict_reader_alone() -> None:
    found = {
        str(path.relative_to(FACTORY))
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("load", "loads", "JSONDecoder")
        if isinstance(node.value, ast.Name) and node.value.id == "json"
    }
    assert found == OWN_JSON.keys()
