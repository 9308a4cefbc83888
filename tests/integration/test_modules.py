"""`singfactory modules` with a real Lmod: load, run a wrapper, help, defaults, conflicts, removal."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.factory_project import DEFINITION, Project
from tests.integration.front_doors import as_user, digest_in, run
from tests.servers import Server, tool

LMOD = Path("/usr/share/lmod/lmod/init/bash")


def definition(*programs: str) -> str:
    """A definition with these programs in /usr/local/bin: each says who it is, its words, and where it runs."""
    lines = "\n".join(
        f"    printf '#!/bin/sh\\necho {name} \"$@\" $APPTAINER_CONTAINER\\n' >/usr/local/bin/{name}"
        for name in programs
    )
    names = " ".join(f"/usr/local/bin/{name}" for name in programs)
    path = "\n%environment\n    export PATH=/usr/local/bin:/bin\n"
    return f"{DEFINITION}    mkdir -p /usr/local/bin\n{lines}\n    chmod 755 {names}\n{path}"


@pytest.fixture(scope="module")
def factory(new_project: Callable[[], Project], registry_process: Server) -> Project:
    """A factory that has published tool 1.0-1 (solve, plot), 1.0-2 (solve) and 1.0-3 (solve, plot, mesh)."""
    project = as_user(new_project(), f"http://{registry_process.host}/modules")
    for programs in (("solve", "plot"), ("solve",), ("solve", "plot", "mesh")):
        project.recipe("tool", definition=definition(*programs))
        project.ok("make", "tool")
    for build in (1, 2, 3):
        project.ok("pull", f"tool:1.0-{build}")
    return project


@pytest.fixture(scope="module", autouse=True)
def lmod() -> None:
    """Lmod, which scripts/install-test-tools installs for root."""
    if not LMOD.is_file() and os.geteuid() != 0:
        pytest.skip("Lmod is missing: apt-get install --no-install-recommends lmod")
    if not LMOD.is_file():
        pytest.fail("Lmod is missing: run scripts/install-test-tools", pytrace=False)


def module(factory: Project, folder: Path, script: str) -> str:
    """What a shell that has Lmod and uses the folder prints, errors included."""
    text = f". {LMOD} >/dev/null 2>&1\nmodule use {folder}\n{{\n{script}\n}} 2>&1"
    return run(factory, "bash", "-c", text, LMOD_PAGER="none", LMOD_COLORIZE="no")


def sif(factory: Project, build: int) -> str:
    return Path(factory.ok("path", f"tool:1.0-{build}").out.strip()).stem


@pytest.mark.parametrize("kind", ["lua", "tcl"])
def test_a_loaded_module_runs_its_programs_in_the_image(factory: Project, tmp_path: Path, kind: str) -> None:
    more = ["--tcl"] if kind == "tcl" else []
    done = factory.ok("modules", "tool:1.0-1", "--to", str(tmp_path), *more)
    assert (done.out, done.err) == ("tool/1.0-1\n", "")
    assert (tmp_path / f"tool/1.0-1{'' if more else '.lua'}").is_file()
    shown = module(factory, tmp_path, "module load tool && solve 'a b' && plot && module -t list; module whatis tool")
    assert digest_in(shown) == sif(factory, 1)
    assert "solve a b /" in shown
    assert "\ntool/1.0-1\n" in shown
    assert f"Image: {factory.ok('path', '--pinned', 'tool:1.0-1').out.strip()}" in shown
    assert "plot, solve" in module(factory, tmp_path, "module help tool")
    assert "solve" not in module(factory, tmp_path, "module load tool; module unload tool; command -v solve || true")


def test_environment_modules_reads_tcl(factory: Project, tmp_path: Path) -> None:
    for build in (1, 3):
        factory.ok("modules", f"tool:1.0-{build}", "--to", str(tmp_path), "--tcl")
    for name, build in (("tool", 1), ("tool/1.0-3", 3)):
        script = f'eval "$({tool("modulecmd")} bash load {name})" && solve a'
        out = run(factory, "bash", "-c", script, MODULEPATH=str(tmp_path))
        assert (out.startswith("solve a /"), digest_in(out)) == (True, sif(factory, build))
    shown = run(factory, "bash", "-c", f"{tool('modulecmd')} bash help tool 2>&1", MODULEPATH=str(tmp_path))
    assert "plot, solve" in shown


def test_a_new_version_becomes_the_default_only_when_asked(factory: Project, tmp_path: Path) -> None:
    factory.ok("modules", "tool:1.0-1", "--to", str(tmp_path))
    second = factory.ok("modules", "tool:1.0-3", "--to", str(tmp_path))
    assert second.err.splitlines() == [
        f"module load tool still means 1.0-1; to move it: singfactory modules tool:1.0-3 --to {tmp_path} --default"
    ]
    assert digest_in(module(factory, tmp_path, "module load tool; solve")) == sif(factory, 1)
    assert digest_in(module(factory, tmp_path, "module load tool/1.0-3; mesh")) == sif(factory, 3)
    shown = module(factory, tmp_path, "module load tool; module load tool/1.0-3; module -t list; solve")
    assert "\ntool/1.0-3\n" in shown
    assert "\ntool/1.0-1\n" not in shown, "another version replaces the first"
    assert digest_in(shown) == sif(factory, 3)
    factory.ok("modules", "tool:1.0-3", "--to", str(tmp_path), "--default")
    assert digest_in(module(factory, tmp_path, "module load tool; solve")) == sif(factory, 3)


def test_the_default_does_not_move_to_an_image_that_lacks_a_program(factory: Project, tmp_path: Path) -> None:
    factory.ok("modules", "tool:1.0-1", "--to", str(tmp_path))
    done = factory.run("modules", "tool:1.0-2", "--to", str(tmp_path), "--default")
    assert (done.code, done.out) == (2, "tool/1.0-2\n")
    assert done.err.splitlines() == [
        "singfactory: module load tool still means 1.0-1",
        "  1.0-2 lacks plot, which that version has",
        f"  load tool/1.0-2 by its version, or: singfactory modules tool:1.0-2 --to {tmp_path} --default --force",
    ]
    assert digest_in(module(factory, tmp_path, "module load tool; plot")) == sif(factory, 1)
    assert digest_in(module(factory, tmp_path, "module load tool/1.0-2; solve")) == sif(factory, 2)
    factory.ok(*done.err.splitlines()[2].partition(": singfactory ")[2].split())
    assert digest_in(module(factory, tmp_path, "module load tool; solve")) == sif(factory, 2)


def test_writing_the_same_module_again_changes_nothing(factory: Project, tmp_path: Path) -> None:
    arguments = ("modules", "tool:1.0-3", "--to", str(tmp_path), "--json")
    assert [one["changed"] for one in factory.ok(*arguments).json()] == [True]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    (row,) = factory.ok(*arguments).json()
    assert (row["changed"], row["programs"], row["sif_digest"]) == (
        False,
        ["mesh", "plot", "solve"],
        f"sha256:{sif(factory, 3)}",
    )
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path != tmp_path} == {
        path: time for path, time in before.items() if path != tmp_path
    }
    fewer = factory.ok("modules", "tool:1.0-3", "--to", str(tmp_path), "--program", "solve")
    assert fewer.err == "tool/1.0-3 no longer has mesh, plot\n"
    assert [path.name for path in (tmp_path / "tool/.1.0-3/bin").iterdir()] == ["solve"]


def test_the_recipe_can_name_the_programs(factory: Project, tmp_path: Path) -> None:
    recipe = factory.recipe("named", definition=definition("solve", "plot")) / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('binds = ["/dataset"]', 'programs = ["solve", "cat", "absent"]'))
    factory.ok("make", "named")
    done = factory.ok("modules", "named", "--to", str(tmp_path))
    assert "named:1.0-1 lacks absent, which its recipe names" in done.err
    wrapped = sorted(path.name for path in (tmp_path / "named/.1.0-1/bin").iterdir())
    assert wrapped == ["cat", "solve"]
    assert module(factory, tmp_path, "module load named; echo piped | cat").strip() == "piped"


def test_programs_that_the_image_lacks_are_refused(factory: Project, tmp_path: Path) -> None:
    done = factory.run("modules", "tool", "--to", str(tmp_path), "--program", "nothing")
    assert (done.code, list(tmp_path.iterdir())) == (3, [])
    assert done.err.splitlines()[0] == "singfactory: tool:1.0-3 has no program nothing"
    assert factory.run("modules", "tool", "--to", str(tmp_path), "--program", "../x").code == 2


@pytest.mark.parametrize("name", ["tool/1.0-1.lua", "tool/.1.0-1/bin/solve", "tool/.1.0-1/module.json"])
def test_files_of_others_are_never_replaced(factory: Project, tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("mine\n")
    done = factory.run("modules", "tool:1.0-1", "--to", str(tmp_path))
    assert (done.code, (tmp_path / name).read_text()) == (8, "mine\n")
    assert done.err.splitlines() == [
        f"singfactory: {tmp_path / name} is in the way",
        "  singfactory has not written it",
        "  move it, or name another folder: --to DIR",
    ]


def test_a_default_that_an_administrator_wrote_stays(factory: Project, tmp_path: Path) -> None:
    (tmp_path / "tool").mkdir()
    (tmp_path / "tool/.version").write_text('#%Module\nset ModulesVersion "0.9"\n')
    assert factory.ok("modules", "tool:1.0-1", "--to", str(tmp_path)).out == "tool/1.0-1\n"
    assert factory.run("modules", "tool:1.0-1", "--to", str(tmp_path), "--default").code == 8
    assert "0.9" in (tmp_path / "tool/.version").read_text()


def test_another_image_of_the_same_version_is_refused(factory: Project, tmp_path: Path) -> None:
    factory.ok("modules", "tool:1.0-1", "--to", str(tmp_path))
    path = factory.ok("path", "tool:1.0-2").out.strip()
    factory.ok("store", "adopt", path, "--as", "tool:1.0-1", "--store", str(tmp_path / "store"))
    done = factory.run(
        "modules", "tool:1.0-1", "--to", str(tmp_path), "--store", str(tmp_path / "store"), SINGFACTORY_REGISTRY=""
    )
    assert done.code == 2, done
    assert done.err.splitlines()[0] == "singfactory: the module tool/1.0-1 runs another image"


def test_gc_keeps_images_of_modules_and_a_module_without_its_image_says_so(factory: Project, tmp_path: Path) -> None:
    store = ("--store", str(tmp_path / "store"))
    factory.ok("modules", "tool:1.0-1", "--to", str(tmp_path / "m"), *store)
    collect = ("store", "gc", *store, "--keep", "0", "--grace", "0", "--json")
    (blob,) = (one for one in factory.ok(*collect).json()["kept"] if one["path"].endswith(".sif"))
    assert blob["why"] == f"named by {tmp_path}/m/tool/1.0-1.lua"
    Path(blob["path"]).unlink()
    shown = module(factory, tmp_path / "m", "module load tool; solve")
    said = f"tool/1.0-1: the image is no longer in the store ({blob['path']}); the first program fetches it again"
    assert said in " ".join(shown.split())
    assert "\nsolve /" in shown, "it was fetched again"
    assert Path(blob["path"]).is_file()
    factory.ok("modules", "--remove", "tool/1.0-1", "--to", str(tmp_path / "m"), *store)
    assert [path.name for path in (tmp_path / "m").iterdir() if not path.name.startswith(".")] == []
    factory.ok(*collect)
    assert not Path(blob["path"]).exists()


def test_the_default_is_removed_last(factory: Project, tmp_path: Path) -> None:
    factory.ok("modules", "tool:1.0-1", "tool:1.0-3", "--to", str(tmp_path))
    done = factory.run("modules", "--remove", "tool/1.0-1", "--to", str(tmp_path))
    assert done.code == 2
    fix = done.err.splitlines()[2]
    factory.ok(*fix.partition(": singfactory ")[2].split())
    factory.ok("modules", "--remove", "tool/1.0-1", "--to", str(tmp_path))
    assert digest_in(module(factory, tmp_path, "module load tool; solve")) == sif(factory, 3)
    assert factory.run("modules", "--remove", "tool/1.0-1", "--to", str(tmp_path)).code == 3


@pytest.mark.parametrize("name", ["a:b", "a b", "a'b", "a$b", "a\nb", "a{b", "ä"])
def test_folders_that_module_systems_cannot_read_are_refused(factory: Project, tmp_path: Path, name: str) -> None:
    done = factory.run("modules", "tool:1.0-1", "--to", str(tmp_path / name))
    assert (done.code, list(tmp_path.iterdir())) == (2, [])
    assert done.err.splitlines()[0].startswith("singfactory: modules in ")


def test_the_umask_decides_who_may_use_modules(factory: Project, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        factory.ok("modules", "tool:1.0-1", "--to", str(tmp_path / "m"))
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "m").rglob("solve")}
    assert modes == {0o750}
