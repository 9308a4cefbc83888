"""The generated test of a project's image, run by a real Python on distributions of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from factory.recipes.projects.tests_of import IMPORTS


def install(site: Path, name: str, **modules: str) -> None:
    """Install a distribution of single modules, as an installer records it."""
    site.mkdir(exist_ok=True)
    for module, text in modules.items():
        (site / f"{module}.py").write_text(text)
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{module}.py,,\n" for module in modules))


def run(folder: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    (folder / "imports.py").write_text(IMPORTS)
    (folder / "distributions.txt").write_text("".join(f"{line}\n" for line in lines))
    code = f"import sys; sys.path.insert(0, {str(folder / 'site')!r}); sys.argv = [{str(folder / 'imports.py')!r}]; "
    code += f"import runpy; runpy.run_path({str(folder / 'imports.py')!r}, run_name='__main__')"
    return subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False, timeout=60)


def test_a_part_that_needs_an_extra_which_is_not_locked_is_left_out(tmp_path: Path) -> None:
    install(tmp_path / "site", "duck", duck="", duck_extra="import no_such_manager")
    done = run(tmp_path, "duck 1.0 import")
    assert done.returncode == 0, done.stderr
    assert "left out: import duck_extra: ModuleNotFoundError: No module named 'no_such_manager'" in done.stdout
    assert "1 distributions, 1 imported, 0 wrong" in done.stdout


def test_a_distribution_of_which_nothing_can_be_imported_is_wrong(tmp_path: Path) -> None:
    install(tmp_path / "site", "duck", duck="import no_such_manager")
    done = run(tmp_path, "duck 1.0 import")
    assert done.returncode == 1
    assert "import duck: ModuleNotFoundError: No module named 'no_such_manager'" in done.stderr


def test_a_part_that_fails_in_another_way_is_wrong(tmp_path: Path) -> None:
    install(tmp_path / "site", "duck", duck="", duck_a="raise SystemExit", duck_b="import duck.nothing", duck_c="1 / 0")
    done = run(tmp_path, "duck 1.0 import")
    assert done.returncode == 1
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == [
        "import duck_a",
        "import duck_b",
        "import duck_c",
    ]


def test_a_version_that_is_not_the_locked_one_is_wrong(tmp_path: Path) -> None:
    install(tmp_path / "site", "duck", duck="")
    done = run(tmp_path, "duck 2.0 import", "goose - check")
    assert done.stderr.splitlines() == ["duck is 1.0, not 2.0", "goose is not installed"]
