"""What jobs install is locked, and the lock is what pyproject.toml asks for. Without a network."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest
import tomli
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
_PIN = re.compile(r"^(\S+==\S+(?: ; .*?)?) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)


def locked(path: Path, python: str) -> dict[str, str]:
    """Name and version of all that pip would install for a version of Python."""
    pins = [Requirement(text) for text, _ in _PIN.findall(path.read_text())]
    wanted = [pin for pin in pins if pin.marker is None or pin.marker.evaluate(environment(python))]
    found: dict[str, str] = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in wanted}
    assert len(found) == len(wanted)
    return found


def environment(python: str, extra: str = "") -> dict[str, str]:
    own = {name: str(value) for name, value in default_environment().items()}
    return {**own, "python_version": python, "python_full_version": f"{python}.0", "extra": extra}


def asked() -> list[Requirement]:
    """What pyproject.toml wants for the factory, and to build itself."""
    tables = tomli.loads((ROOT / "pyproject.toml").read_text())
    project = tables["project"]
    texts = project["dependencies"] + project["optional-dependencies"]["factory"] + tables["build-system"]["requires"]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_line_of_a_lock_is_a_version_with_its_hashes_and_none_names_an_index(path: Path) -> None:
    text = path.read_text()
    left = _PIN.sub("", text)
    assert [line for line in left.splitlines() if line.strip() and not line.lstrip().startswith("#")] == []
    assert not re.search(r"://|--index|--find-links|--trusted", text)
    assert _PIN.search(text)


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_has_what_pyproject_asks_for_on_every_python(python: str) -> None:
    found = locked(ROOT / "requirements/factory.txt", python)
    for wanted in asked():
        if wanted.marker is None or wanted.marker.evaluate(environment(python)):
            assert wanted.specifier.contains(found[canonicalize_name(wanted.name)]), wanted


def test_the_lock_has_what_its_packages_need() -> None:
    """Jobs install it without looking for more. Held against the packages that are installed here."""
    found = locked(ROOT / "requirements/factory.txt", default_environment()["python_version"])
    seen: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(wanted.name), extra) for wanted in asked() for extra in ("", *wanted.extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        here = environment(default_environment()["python_version"], extra)
        for wanted in map(Requirement, metadata.requires(name) or []):
            if wanted.marker is None or wanted.marker.evaluate(here):
                assert canonicalize_name(wanted.name) in found, f"{name} needs {wanted}"
                waiting += [(canonicalize_name(wanted.name), more) for more in ("", *wanted.extras)]
    assert "cryptography" in {name for name, _ in seen}


def test_the_jobs_install_nothing_but_the_lock() -> None:
    for path in (ROOT / ".github").rglob("*.yml"):
        for line in path.read_text().replace("\\\n", " ").splitlines():
            if re.search(r"\bpip\b.* install|\binstall --", line) and not re.search(r"\$@|apt-get", line):
                assert "--require-hashes" in line or "--no-index" in line, f"{path.name}: {line}"
