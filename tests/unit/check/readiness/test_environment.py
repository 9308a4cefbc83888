from __future__ import annotations

from pathlib import Path

import pytest

from factory.sif.variables import assignments
from tests.unit.check.readiness.images import elf, findings, places
from tests.unit.check.readiness.test_hidden import environment
from tests.unit.sif.packing import write


def test_folders_of_path_that_do_not_exist_are_found(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        write(folder, ".singularity.d/env/10-docker2singularity.sh", 'export PATH="/opt/tool/bin:/usr/bin:/bin"\n')
        (folder / ".singularity.d/env/90-environment.sh").write_text("export PATH=/opt/other/bin:$PATH:$HOME/bin\n")
        (folder / "opt/other/bin").mkdir(parents=True)

    found = findings(tmp_path, make)
    assert places(found) == {("missing-path-folder", "/opt/tool/bin")}


def test_the_engines_own_scripts_say_nothing_about_an_image(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        write(folder, ".singularity.d/env/99-runtimevars.sh", 'PATH="${SING_USER_DEFINED_PATH}"\n')

    assert places(findings(tmp_path, make)) == set()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ('#!/bin/sh\n\n    exec gone "$@"\n', "it starts gone, which is not in the image"),
        ("#!/bin/sh\nexec /opt/gone --flag\n", "it starts /opt/gone, which is not in the image"),
        ("#!/bin/sh\nexec /opt/closed\n", "it starts /opt/closed, which users cannot execute"),
        ("#!/opt/zsh\ntrue\n", "it is a script for /opt/zsh, which is not in the image"),
        ("#!/bin/sh\nOCI_ENTRYPOINT='\"/entry.sh\" \"x\"'\nOCI_CMD=''\n", "it starts /entry.sh, which is not in the"),
        ("#!/bin/sh\nOCI_ENTRYPOINT=''\nOCI_CMD='\"gone\"'\n", "it starts gone, which is not in the image"),
        ("#!/bin/sh\nOCI_ENTRYPOINT=''\nOCI_CMD='\"tool\" \"-x\"'\nexec $OCI_CMD\n", ""),
        ("#!/bin/sh\n. /opt/venv/bin/activate\nexec gone\n", ""),
        ("#!/bin/sh\nexport PATH=/opt/x:$PATH\nexec gone\n", ""),
        ('#!/bin/sh\nexec "$TOOL" x\nexec ./relative\nexec -a name tool\n', ""),
        ("#!/bin/bash\nexec tool 'a string\nover two lines'\n", ""),
    ],
)
def test_an_entry_point_starts_what_is_there(tmp_path: Path, script: str, message: str) -> None:
    def make(folder: Path) -> None:
        write(folder, ".singularity.d/runscript", script, mode=0o755)
        write(folder, "opt/closed", elf(), mode=0o644)

    found = [one for one in findings(tmp_path, make) if one.code == "entry-point"]
    assert bool(found) is bool(message)
    assert all(message in one.message and one.place == "/.singularity.d/runscript" for one in found)


def test_a_runscript_that_users_cannot_execute_is_found(tmp_path: Path) -> None:
    found = findings(tmp_path, lambda folder: (folder / ".singularity.d/runscript").chmod(0o700))
    assert places(found) == {("entry-point", "/.singularity.d/runscript")}


@pytest.mark.parametrize(
    ("program", "module", "variable", "name"),
    [
        ("opt/py/bin/python", "opt/py/lib/site-packages/a-1.dist-info/METADATA", "PYTHONNOUSERSITE=1", "Python"),
        ("usr/bin/Rscript", "usr/local/lib/R/site-library/dplyr/DESCRIPTION", "R_LIBS_USER=NULL", "R"),
        ("opt/julia/bin/julia", "opt/julia/depot/packages/A/src/A.jl", "JULIA_DEPOT_PATH=/opt/julia/depot", "Julia"),
        ("usr/bin/perl", "usr/local/share/perl/5.36.0/Try/Tiny.pm", "PERL5LIB=", "Perl"),
    ],
)  # fmt: skip
def test_a_language_that_loads_packages_from_the_users_home_is_found(
    tmp_path: Path, program: str, module: str, variable: str, name: str
) -> None:
    def make(folder: Path) -> None:
        write(folder, program, elf(), mode=0o755)
        write(folder, module, "x")
        environment(folder, f"export PATH=$PATH:/{program.rpartition('/')[0]}\n")

    def mended(folder: Path) -> None:
        make(folder)
        environment(folder, f"    export {variable}\n")

    (found,) = [one for one in findings(tmp_path / "1", make) if one.severity != "information"]
    assert (found.code, found.place) == ("user-packages", f"/{program}")
    key = variable.partition("=")[0]
    assert found.message == f"{name} loads packages from the user's home first: {key} is not set"
    assert places(findings(tmp_path / "2", mended)) == set()
    assert places(findings(tmp_path / "3", make, f'[run]\nenv = {{ {key} = "1" }}')) == set()


def test_an_interpreter_that_only_the_distribution_uses_is_not_reported(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        write(folder, "usr/bin/python3", elf(), mode=0o755)
        write(folder, "usr/lib/python3/dist-packages/apt-1.egg-info", "x")
        owned = "/usr/bin/python3\n/usr/lib/python3/dist-packages/apt-1.egg-info\n"
        write(folder, "var/lib/dpkg/info/python3-apt.list", owned)

    assert places(findings(tmp_path, make)) == set()


@pytest.mark.parametrize(
    ("script", "wanted"),
    [
        ("export A=1 B='two words'", [("A", "1"), ("B", "two words")]),
        ('export A="${A:-"/opt/x"}"', [("A", "/opt/x")]),
        ("A=1 command", []),
        ("export A", []),
        ("A='starts here\nB=2'", []),
        ("# A=1\nB=2 # C=3", [("B", "2")]),
        ("if [ $x = 1 ]; then", []),
    ],
)
def test_only_plain_assignments_of_a_script_are_understood(script: str, wanted: list[tuple[str, str]]) -> None:
    assert list(assignments(script)) == wanted


def test_variables_that_grow_without_end_are_cut(tmp_path: Path) -> None:
    lines = "export A=xxxxxxxxxxxxxxxx\n" + "export A=$A$A\n" * 100
    assert places(findings(tmp_path, lambda folder: environment(folder, lines))) == set()
