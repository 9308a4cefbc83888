"""Which functions of ours parse bytes, and which of them the targets run: read from the source, and seen."""

from __future__ import annotations

import ast
import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType

from tests.attacks.fuzzing.child import seeds_of
from tests.attacks.fuzzing.table import TARGETS

_ROOT = Path(__file__).resolve().parents[3]
_FACTORY = _ROOT / "factory"
# What turns bytes or text of others into values, by the last part of its name.
_METHODS = {
    "unpack",
    "unpack_from",
    "iter_unpack",
    "from_bytes",
    "b64decode",
    "fromisoformat",
    "strptime",
    "parsedate_to_datetime",
    "fromstring",
    "decompress",
    "literal_eval",
    "urlsplit",
    "urlparse",
    "parse_qs",
    "finditer",
}
_OF_MODULES = {
    ("json", "loads"),
    ("json", "load"),
    ("tomllib", "loads"),
    ("tomllib", "load"),
    ("pickle", "loads"),
    ("pickle", "load"),
    ("yaml", "load"),
    ("yaml", "safe_load"),
    ("tarfile", "open"),
    ("zipfile", "ZipFile"),
    ("shlex", "split"),
    ("ET", "parse"),
    ("ET", "XML"),
    ("csv", "reader"),
    ("zlib", "decompressobj"),
    ("lzma", "LZMADecompressor"),
    ("configparser", "RawConfigParser"),
}
_READERS = "strict"  # a module whose functions read strictly: each caller is a parser


def parsers() -> dict[str, str]:
    """Every function of ours that calls one of these, as ``factory/x.py:function``, with what it calls."""
    found: dict[str, str] = {}
    for path in sorted(_FACTORY.rglob("*.py")):
        for name, call in _in_module(ast.parse(path.read_text(encoding="utf-8"))):
            found[f"{path.relative_to(_ROOT)}:{name}"] = call
    return found


def _in_module(tree: ast.Module) -> Iterator[tuple[str, str]]:
    strict = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in (f"factory.{_READERS}", "factory")
        for alias in node.names
        if node.module != "factory" or alias.name == _READERS
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for inner in _own(node):
                if isinstance(inner, ast.Call) and (call := _primitive(inner.func, strict)):
                    yield node.name, call


def _own(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """What is in a function, without the functions in it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.FunctionDef)]


def _primitive(called: ast.expr, strict: set[str]) -> str:
    if isinstance(called, ast.Name) and (called.id in _METHODS or called.id in strict):
        return called.id
    if isinstance(called, ast.Attribute):
        base = called.value.id if isinstance(called.value, ast.Name) else ""
        if called.attr in _METHODS or (base, called.attr) in _OF_MODULES or base in strict:
            return f"{base}.{called.attr}"
    return ""


def run_by_targets() -> set[str]:
    """Every function of ours that the sound inputs of all targets run, as ``parsers`` names them."""
    seen: set[CodeType] = set()

    def look(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            seen.add(frame.f_code)

    with tempfile.TemporaryDirectory() as folder:
        for number, target in enumerate(TARGETS):
            place = Path(folder, str(number))
            place.mkdir()
            for count, seed in enumerate(seeds_of(target, place)):
                work = place / f"work{count}"
                work.mkdir()
                threading.setprofile(look)
                sys.setprofile(look)
                try:
                    target.run(seed, work)
                except target.allowed:
                    pass
                finally:
                    sys.setprofile(None)
                    threading.setprofile(None)
    ours = (code for code in seen if code.co_filename.startswith(f"{_FACTORY}/"))
    return {f"{Path(code.co_filename).relative_to(_ROOT)}:{code.co_name}" for code in ours}


if __name__ == "__main__":
    print(json.dumps(sorted(run_by_targets())))
