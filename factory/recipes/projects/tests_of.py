"""The first tests of a project's image, which need no knowledge of its packages."""

from __future__ import annotations

from factory.recipes.projects.model import Needs

IMPORTS = '''\
"""Check that the image has the locked versions, and import what each package brings that the project asks for."""

import importlib
import sys
from importlib import metadata, util
from pathlib import Path, PurePosixPath

SUFFIXES = (".py", ".so", ".pyd")
NOT_FOR_USERS = {"test", "tests", "testing", "doc", "docs", "example", "examples", "benchmarks", "scripts", "tools"}


def modules_of(distribution):
    """Return the names of the packages and modules that a distribution brings, from its list of files."""
    files = [PurePosixPath(str(file)) for file in distribution.files or ()]
    packages = {file.parent for file in files if file.name == "__init__.py" or file.name.startswith("__init__.")}
    top = {package for package in packages if not packages.intersection(package.parents)}
    found = {".".join(package.parts) for package in top}
    # A compiled module's name ends at its first dot.
    found |= {file.name.partition(".")[0] for file in files if len(file.parts) == 1 and file.name.endswith(SUFFIXES)}
    named = {name for name in found if all(part.isidentifier() for part in name.split("."))}
    public = {name for name in named if not name.startswith("_") and name.partition(".")[0] not in NOT_FOR_USERS}
    return sorted(public)


def lacks_an_extra(error):
    """Return whether a module is missing that is not installed at all: an optional part of the package needs it."""
    name = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
    return bool(name) and util.find_spec(name.partition(".")[0]) is None


def import_all(modules):
    """Import what a distribution brings. Return the number of modules, and what is wrong."""
    imported, wrong, optional = 0, [], []
    for module in modules:
        print("import", module, flush=True)  # the last line names a module that crashes the interpreter
        try:
            importlib.import_module(module)
            imported += 1
        except BaseException as error:  # a module may even exit
            words = f"import {module}: {type(error).__name__}: {error}"
            (optional if lacks_an_extra(error) else wrong).append(words)
    if not imported:  # then it was no optional part
        return imported, optional + wrong
    for line in optional:
        print(f"left out: {line}, an extra that is not locked")
    return imported, wrong


def main():
    wrong, imported = [], 0
    lines = (Path(__file__).parent / "distributions.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line.split() for line in lines if line and not line.startswith("#")]
    for name, version, asked in wanted:
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is not installed")
            continue
        if version != "-" and distribution.version != version:
            wrong.append(f"{name} is {distribution.version}, not {version}")
        count, problems = import_all(modules_of(distribution) if asked == "import" else ())
        imported += count
        wrong += problems
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"{len(wanted)} distributions, {imported} imported, {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
'''

GPU = '''\
"""Compute something on a GPU with the library of the lock that can."""

from importlib import import_module, util

if util.find_spec("torch"):
    torch = import_module("torch")
    assert torch.cuda.is_available(), "torch sees no GPU"
    ones = torch.ones(64, 64, device="cuda")
    assert float((ones @ ones).sum()) == 64.0**3
elif util.find_spec("jax"):
    jax = import_module("jax")
    assert jax.devices()[0].platform == "gpu", f"jax sees {jax.devices()}"
    ones = jax.numpy.ones((64, 64))
    assert float((ones @ ones).sum()) == 64.0**3
elif util.find_spec("tensorflow"):
    assert import_module("tensorflow").config.list_physical_devices("GPU"), "tensorflow sees no GPU"
elif util.find_spec("cupy"):
    assert int(import_module("cupy").arange(10).sum()) == 45
else:
    ctypes = import_module("ctypes")
    assert ctypes.CDLL("libcuda.so.1").cuInit(0) == 0, "the driver finds no GPU"
print("computed")
'''


def distributions(needs: Needs) -> str:
    """Return the lines of the list that the test reads: name, version or ``-``, and whether it is imported."""
    every = not any(asked for _, _, asked in needs.distributions)
    return "".join(
        f"{name} {version or '-'} {'import' if asked or every else 'check'}\n"
        for name, version, asked in needs.distributions
    )
