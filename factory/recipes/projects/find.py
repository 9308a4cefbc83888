"""Find out what a folder locks its packages with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from factory.errors import NotFound, UsageError
from factory.recipes.projects.documents import text_of
from factory.recipes.projects.model import refused

UV, PYLOCK, REQUIREMENTS, CONDA_LOCK, PIXI, ENVIRONMENT = (
    *("uv.lock", "pylock.toml", "requirements.txt"),
    *("conda-lock.yml", "pixi.lock", "environment.yml"),
)
_NAMES = {
    UV: (UV,),
    PYLOCK: (PYLOCK,),
    REQUIREMENTS: ("requirements.lock", "requirements.txt"),
    CONDA_LOCK: (CONDA_LOCK, "conda-lock.yaml"),
    PIXI: (PIXI,),
    ENVIRONMENT: (ENVIRONMENT, "environment.yaml"),
}
_OTHERS = {
    "poetry.lock": "poetry export --output requirements.txt (with poetry-plugin-export)",
    "pdm.lock": "pdm export --output requirements.txt",
    "Pipfile.lock": "pipenv requirements --hash > requirements.txt",
    "Pipfile": "pipenv lock, then pipenv requirements --hash > requirements.txt",
    "requirements.in": "uv pip compile requirements.in --generate-hashes -o requirements.txt",
    "pyproject.toml": "uv lock",
    "setup.cfg": "uv pip compile setup.cfg --generate-hashes -o requirements.txt",
    "setup.py": "uv pip compile setup.py --generate-hashes -o requirements.txt",
    "pixi.toml": "pixi lock",
}


@dataclass(frozen=True)
class Found:
    """The file that says what to install: its kind, its path, and the project's folder. others: files not used."""

    kind: str
    path: Path
    folder: Path
    others: tuple[str, ...] = ()


def find(place: Path) -> Found:
    """Return what a folder, or a file in it, locks. Raises NotFound, UsageError, ProblemError with the way out."""
    if place.is_file():
        return _of_file(place)
    if not place.is_dir():
        raise NotFound(f"there is no folder {place}", fix="correct --project")
    there = [(kind, name) for kind, names in _NAMES.items() for name in names if (place / name).is_file()]
    if (workspace := _workspace(place)) is not None and not any(kind == UV for kind, _ in there):
        there.insert(0, (UV, ""))
    if not there:
        raise _nothing(place)
    kind, name = there[0]
    path = place / name if name else (workspace or place / UV)
    if kind == UV:
        _require_project(place, path)
    return Found(kind, path, place, tuple(name for _, name in there[1:]))


def _of_file(path: Path) -> Found:
    name, folder = path.name, path.parent
    if name in (UV, "pyproject.toml"):
        lock = folder / UV if (folder / UV).is_file() else _workspace(folder)
        if lock is None:
            raise _nothing(folder)
        _require_project(folder, lock)
        return Found(UV, lock, folder)
    if name in _OTHERS and name != "requirements.in":
        raise _other(path)
    if name == PYLOCK or (name.startswith("pylock.") and name.endswith(".toml")):
        return Found(PYLOCK, path, folder)
    if name == PIXI:
        return Found(PIXI, path, folder)
    if path.suffix in (".yml", ".yaml"):
        return Found(CONDA_LOCK if "lock" in name else ENVIRONMENT, path, folder)
    if path.suffix in (".txt", ".lock", ".in"):
        return Found(REQUIREMENTS, path, folder)
    raise UsageError(
        f"{path} is no file that locks packages",
        fix=f"name the project's folder, or one of {', '.join(_NAMES)}",
    )


def _workspace(folder: Path) -> Path | None:
    """Return the `uv.lock` of the workspace that a folder with a `pyproject.toml` belongs to, if any."""
    if not (folder / "pyproject.toml").is_file():
        return None
    real = folder.resolve()
    for above in (real, *real.parents):
        if (above / UV).is_file():
            inside = real.relative_to(above).as_posix()
            # A folder below that is no member of the workspace is a project of its own.
            return above / UV if above == real or f'= "{inside}" }}' in text_of(above / UV) else None
        if (above / ".git").exists():
            return None
    return None


def _require_project(folder: Path, lock: Path) -> None:
    if not (folder / "pyproject.toml").is_file():
        raise refused(
            lock,
            0,
            "the pyproject.toml that it belongs to is missing",
            f"put it into {folder}, or lock the project there: uv lock",
            "only both together say what the project needs",
        )


def _nothing(folder: Path) -> UsageError:
    for name in _OTHERS:
        if (folder / name).is_file():
            return _other(folder / name)
    if several := sorted((folder / "requirements").glob("*.txt")):
        return UsageError(
            f"{folder} has several lists of packages",
            why=", ".join(f"requirements/{path.name}" for path in several[:5]),
            fix=f"name the one that the image is for: --project {several[0]}",
        )
    return UsageError(
        f"{folder} has nothing that says which packages to install",
        why=f"singfactory reads {', '.join(_NAMES)}",
        fix="add one of them, as with: uv init && uv add numpy; for a Docker image use --from",
    )


def _other(path: Path) -> UsageError:
    what = (
        "is no lock"
        if path.name in ("pyproject.toml", "setup.cfg", "setup.py", "Pipfile", "pixi.toml")
        else "is not read"
    )
    return UsageError(
        f"{path} {what}",
        why=f"singfactory reads {', '.join(_NAMES)}",
        fix=f"in {path.parent}, run: {_OTHERS[path.name]}",
    )
