"""`uv.lock`: held against uv itself, on real locks."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from itertools import product
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from uv import find_uv_bin

from factory.errors import FactoryError
from factory.recipes.projects.model import Target
from factory.recipes.projects.needs import from_lock, from_source, impossible
from factory.recipes.projects.uvlock import Chosen, UvLock

ROOT = Path(__file__).resolve().parents[4]
PROJECTS = ROOT / "tests/projects"
LOCKS = sorted(path.parent.name for path in PROJECTS.glob("*/uv.lock"))
_EXPORTED = re.compile(r"^(\S+==\S+(?: ; [^\\\n]*?)?) \\\n((?:    --hash=\S+(?: \\)?\n)+)", re.MULTILINE)


@cache
def export(project: Path, options: tuple[str, ...]) -> str:
    """What uv writes for all platforms together."""
    command = [find_uv_bin(), "export", "--frozen", "--no-emit-workspace", "--no-default-groups", "--quiet", *options]
    return subprocess.run(command, cwd=project, check=True, capture_output=True, text=True).stdout


def exported(project: Path, target: Target, *options: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Version and hashes of all that uv itself would install from the lock."""
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for line, hashes in _EXPORTED.findall(export(project, options)):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(dict(target.environment())):
            version = str(requirement.specifier).removeprefix("==")
            found[canonicalize_name(requirement.name)] = (version, frozenset(re.findall(r"--hash=(\S+)", hashes)))
    return found


def ours(project: Path, target: Target, chosen: Chosen) -> dict[str, tuple[str, frozenset[str]]]:
    lock = UvLock(project / "uv.lock", project, chosen)
    needs = from_lock(lock, target)
    names = {canonicalize_name(name) for name, _, _ in needs.distributions}
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for entry in needs.requirements:
        line, *hashes = entry.split(" \\\n")
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(dict(target.environment())):
            version = str(requirement.specifier).removeprefix("==")
            digests = frozenset(text.strip().removeprefix("--hash=") for text in hashes)
            found[canonicalize_name(requirement.name)] = (version, digests)
    assert names == found.keys()
    return found


@pytest.mark.slow  # large locks, for eight platforms each
@pytest.mark.parametrize("name", LOCKS)
def test_what_an_image_gets_is_what_uv_itself_would_install(name: str) -> None:
    project = PROJECTS / name
    for arch, python in product(("amd64", "arm64"), ((3, 10), (3, 11), (3, 12), (3, 13))):
        target = Target(arch, python)
        lock = UvLock(project / "uv.lock", project, Chosen())
        if not lock.requires_python.allows(target) or impossible(lock.needed(target), target):
            continue
        found, wanted = ours(project, target, Chosen()), exported(project, target)
        assert {name: version for name, (version, _) in found.items()} == {
            name: version for name, (version, _) in wanted.items()
        }
        for package, (_, hashes) in found.items():
            assert hashes, package
            assert hashes <= wanted[package][1], package


@pytest.mark.parametrize(
    ("name", "chosen", "options"),
    [
        ("scientific", Chosen(extras=("plots",)), ["--extra", "plots"]),
        ("web-fastapi", Chosen(extras=("tracing",)), ["--extra", "tracing"]),
        ("web-flask", Chosen(groups=("dev",)), ["--group", "dev"]),
        ("workspace", Chosen(groups=("docs",)), ["--group", "docs"]),
    ],
)
def test_extras_and_groups_are_added(name: str, chosen: Chosen, options: list[str]) -> None:
    target = Target("amd64", (3, 11))
    found = {package: version for package, (version, _) in ours(PROJECTS / name, target, chosen).items()}
    wanted = {package: version for package, (version, _) in exported(PROJECTS / name, target, *options).items()}
    assert found == wanted
    assert found.keys() > ours(PROJECTS / name, target, Chosen()).keys()


def test_forks_for_conflicting_extras_are_told_apart(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "uv.lock"):
        (tmp_path / name).write_bytes((Path(__file__).parent / "conflict" / name).read_bytes())
    target = Target("amd64", (3, 11))
    for extra in ("cpu", "gpu"):
        found = ours(tmp_path, target, Chosen(extras=(extra,)))
        wanted = exported(tmp_path, target, "--extra", extra)
        assert {name: version for name, (version, _) in found.items()} == {
            name: version for name, (version, _) in wanted.items()
        }
    assert ours(tmp_path, target, Chosen(extras=("cpu",))) != ours(tmp_path, target, Chosen(extras=("gpu",)))


def test_a_package_without_a_wheel_is_built_from_source_and_only_then_its_archive_is_allowed() -> None:
    project = PROJECTS / "compiled"
    lock, target = UvLock(project / "uv.lock", project, Chosen()), Target("amd64", (3, 11))
    assert [package.name for package in from_source(lock.needed(target), target)] == ["psycopg2"]
    needs = from_lock(lock, target)
    sources = {package.sdist.digest for package in lock.needed(target) if package.sdist}
    by_name = {line.partition("==")[0]: line for line in needs.requirements}
    assert any(digest in by_name["psycopg2"] for digest in sources)
    assert not any(digest in by_name["lxml"] for digest in sources)


LOCK = """\
version = 1
requires-python = ">=3.10"

[[package]]
name = "demo"
version = "0.1"
source = {{ virtual = "." }}
dependencies = [{{ name = "thing" }}]

[package.metadata]
requires-dist = [{{ name = "thing", specifier = ">=1" }}]

[[package]]
name = "thing"
version = "1.0"
source = {source}
{files}
"""
PROJECT = """\
[project]
name = "demo"
version = "0.1"
requires-python = ">=3.10"
dependencies = [
    "thing>=1",
]
"""
SHA = "a" * 64
SDIST = f'sdist = {{ url = "https://files.packages.example/thing-1.0.tar.gz", hash = "sha256:{SHA}", size = 10 }}'
PYPI = '{ registry = "https://pip.test/simple" }'


def written(folder: Path, *, source: str = PYPI, files: str = SDIST, project: str = PROJECT, lock: str = "") -> UvLock:
    (folder / "pyproject.toml").write_text(project)
    (folder / "uv.lock").write_text(lock or LOCK.format(source=source, files=files))
    return UvLock(folder / "uv.lock", folder, Chosen())


def refused(folder: Path, **parts: str) -> list[str]:
    with pytest.raises(FactoryError) as caught:
        from_lock(written(folder, **parts), Target("amd64", (3, 11)))
    return [line.replace(f"{folder}/", "") for line in caught.value.lines()]


def test_a_git_dependency_is_pinned_to_its_commit(tmp_path: Path) -> None:
    commit = "0123456789" * 4
    source = f'{{ git = "https://github.com/x/thing?subdirectory=py&rev=v1#{commit}" }}'
    needs = from_lock(written(tmp_path, source=source, files=""), Target("amd64", (3, 11)))
    assert needs.requirements == ()
    assert needs.direct == (f"thing @ git+https://github.com/x/thing@{commit}#subdirectory=py",)


def test_a_wheel_in_the_project_is_copied_and_checked_by_its_hash(tmp_path: Path) -> None:
    files = f'wheels = [{{ filename = "thing-1.0-py3-none-any.whl", hash = "sha256:{SHA}" }}]'
    needs = from_lock(
        written(tmp_path, source='{ path = "vendor/thing-1.0-py3-none-any.whl" }', files=files),
        Target("amd64", (3, 11)),
    )
    assert needs.files == {"thing-1.0-py3-none-any.whl": tmp_path / "vendor/thing-1.0-py3-none-any.whl"}
    assert needs.requirements == (
        f"thing @ file:///opt/project/wheels/thing-1.0-py3-none-any.whl \\\n    --hash=sha256:{SHA}",
    )


@pytest.mark.parametrize("name", ["vendor/a-1-py3-none-any.whl", "vendor/a b.whl", "loop.whl", f"{'x' * 300}.whl"])
def test_a_wheel_that_leads_out_of_the_project_or_has_no_plain_name_is_refused(tmp_path: Path, name: str) -> None:
    project = tmp_path / "project"
    (project / "vendor").mkdir(parents=True)
    (tmp_path / "secret").touch()
    (project / "vendor/a-1-py3-none-any.whl").symlink_to("../../secret")
    (project / "vendor/a b.whl").touch()
    (project / "loop.whl").symlink_to("loop.whl")
    files = f'wheels = [{{ filename = "a-1-py3-none-any.whl", hash = "sha256:{SHA}" }}]'
    found = refused(project, source=f'{{ path = "{name}" }}', files=files)
    assert found[0].startswith(f"uv.lock:14: thing is the file '{name[:90]}")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("dependencies = [\n", "optional-dependencies = 7\ndependencies = [\n"),
        ("[project]\n", "[[dependency-groups]]\nx = 1\n[project]\n"),
        ("[project]\n", "[tool.uv]\nsources = 7\n[project]\n"),
    ],
)
def test_tables_that_are_none_are_taken_for_empty_ones(tmp_path: Path, before: str, after: str) -> None:
    assert written(tmp_path, project=PROJECT.replace(before, after)).name == "demo"
    damaged = LOCK.format(source=PYPI, files=SDIST)
    damaged = damaged.replace(
        "requires-dist = [", 'requires-dev = 7\nrequires-dist = [[], {name = "thing", extras = 1}, '
    )
    assert written(tmp_path, lock=damaged).name == "demo"


@pytest.mark.parametrize(
    ("parts", "lines"),
    [
        (
            {"source": '{ git = "ssh://git@github.com/x/thing?rev=v1#0123456789012345678901234567890123456789" }'},
            ["uv.lock:14: thing is in a git repository that needs a login or a key"],
        ),
        (
            {"source": '{ registry = "https://me:secret@pypi.example.org/simple" }'},
            ["uv.lock:14: thing comes from an index whose address holds a login"],
        ),
        (
            {"source": '{ registry = "/srv/wheels" }'},
            ["uv.lock:14: thing comes from '/srv/wheels', which builds cannot reach"],
        ),
        (
            {"source": '{ directory = "../lib" }'},
            ["uv.lock:14: thing is the folder ../lib, outside of the project, whose content is not locked"],
        ),
        (
            {"source": '{ path = "../a-1-py3-none-any.whl" }'},
            ["uv.lock:14: thing is the file '../a-1-py3-none-any.whl', which is outside of the project or has no hash"],
        ),
        (
            {
                "files": 'wheels = [{ url = "https://x.org/thing-1.0-cp313-cp313-manylinux_2_28_x86_64.whl", '
                f'hash = "sha256:{SHA}" }}]'
            },
            ["uv.lock:14: thing 1.0 has no wheel for Python 3.11 on amd64, and no source"],
        ),
        (
            {"files": 'wheels = [{ url = "https://x.org/thing-1.0-py3-none-any.whl" }]'},
            ["uv.lock:14: thing 1.0 has no hash in the lock"],
        ),
        (
            {"files": 'wheels = [{ url = "https://x.org/thing-1.0-py3-none-any.whl", hash = "sha256:0\\n--index x" }]'},
            ["uv.lock:14: the lock is damaged: 'sha256:0\\n--index x' is no hash"],
        ),
        (
            {"project": PROJECT.replace('"thing>=1",', '"thing>=1",\n    "more>=2",')},
            ["pyproject.toml:7: uv.lock was made before 'more>=2' was written here"],
        ),
        (
            {"project": PROJECT.replace("thing>=1", "thing>=2")},
            ["pyproject.toml:6: uv.lock was made before 'thing>=2' was written here"],
        ),
        (
            {"project": PROJECT.replace('    "thing>=1",\n', "")},
            ["pyproject.toml:5: uv.lock was made when thing was still among the dependencies"],
        ),
        (
            {"project": PROJECT + '[dependency-groups]\ndev = ["pytest"]\n'},
            ["pyproject.toml:9: uv.lock was made before 'pytest' was written here"],
        ),
        (
            {"project": PROJECT.replace('">=3.10"', '">=3.12"')},
            ["pyproject.toml:4: uv.lock was made for Python >=3.10, not for >=3.12"],
        ),
        (
            {"project": PROJECT + '[[tool.uv.index]]\nname = "lab"\nurl = "https://me:secret@x.org/simple"\n'},
            ["pyproject.toml:10: the index lab has a login in its address"],
        ),
        ({"project": "[project\n"}, ["pyproject.toml:1: not TOML: Expected ']' at the end of a table declaration"]),
        ({"lock": "version = 1\n[[package]]\nname = \n"}, ["uv.lock:3: not TOML: Invalid value", "run: uv lock"]),
        ({"lock": "version = 2\n"}, ["uv.lock:1: uv.lock has format 2"]),
        ({"lock": "version = 1\n"}, ["pyproject.toml:2: uv.lock does not contain the project demo"]),
        (
            {"lock": LOCK.format(source=PYPI, files=SDIST).replace('"thing" }]', '"other" }]', 1)},
            ["uv.lock: the lock is damaged: 'other' is needed, but not among the packages"],
        ),
        (
            {"lock": LOCK.format(source=PYPI, files=SDIST).replace('name = "thing"\n', 'name = "-r /etc"\n')},
            ["uv.lock:14: the lock is damaged: '-r /etc' is no name of a package"],
        ),
    ],
)
def test_what_a_lock_cannot_give_is_refused_with_file_and_line(
    tmp_path: Path, parts: dict[str, str], lines: list[str]
) -> None:
    found = refused(tmp_path, **parts)
    assert lines == [found[0], *found[-1:]][: len(lines)]
    assert len(found) in (2, 3)
    assert "secret" not in "".join(found)
