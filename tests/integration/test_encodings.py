"""A factory below a folder whose name is not UTF-8, with output and files that are not, in a Latin-1 locale."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.factory_project import Done, Project, make_project
from tests.servers import Server

LATIN_1 = "en_US.ISO-8859-1"
DEFINITION = """
Bootstrap: docker
From: {{ base }}

%files
    files /data
    日本.txt /

%post
    echo made > /made
    printf 'it prints caf\\351 and 日本\\n'
"""
TEST = """
[[test]]
name = "made"
run = "printf 'caf\\\\351 '; cat /made"
stdout = "made"
"""


def run(project: Project, env: Mapping[str, str], *arguments: str, at: Path | None = None) -> Done:
    """Run a command; bytes that are not UTF-8 become surrogates, as in file names."""
    command = [sys.executable, "-m", "factory.cli", *arguments]
    kept = {name: text for name, text in project.env.items() if not name.startswith(("LC_", "LANG", "PYTHONIO"))}
    done = subprocess.run(
        command, cwd=at or project.folder, env={**kept, **env}, capture_output=True, check=False, timeout=200
    )
    out, err = os.fsdecode(done.stdout), os.fsdecode(done.stderr)
    assert "a bug in singfactory" not in err, err
    assert "Traceback" not in err, err
    return Done(done.returncode, out, err)


@pytest.mark.parametrize("locale", [LATIN_1, "C"])
def test_a_factory_works_below_a_folder_whose_name_is_not_utf_8(
    tmp_path: Path, engine: str, registry_process: Server, locale: str
) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9-\xe6\x97\xa5"))
    folder.mkdir()
    project = make_project(folder, engine, registry_process.host)
    program = shutil.which("localedef")
    if program is None:
        pytest.skip("no localedef")
    made = subprocess.run(
        [program, "-f", "ISO-8859-1", "-i", "en_US", str(tmp_path / LATIN_1)], capture_output=True, check=False
    )
    assert made.returncode in (0, 1), made  # 1: with warnings
    env = {"LC_ALL": locale, "LOCPATH": str(tmp_path)}
    made_of = project.recipe("tool", definition=DEFINITION, more=TEST)
    (made_of / "files").mkdir()
    (made_of / "files" / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"data")
    (made_of / "日本.txt").write_bytes(b"more")
    for command in ("lint", "plan", "update"):
        assert run(project, env, *command.split()).code == 0

    # The engine takes no such path. Each error names the setting that helps.
    for setting, value in (("SINGFACTORY_TMPDIR", tmp_path), ("SINGFACTORY_WORK", tmp_path / "work")):
        refused = run(project, env, "make")
        assert refused.code == 8
        assert "the path is not UTF-8" in refused.err
        assert setting in refused.err
        env[setting] = str(value)
    env["SINGFACTORY_REGISTRY"] = "oci:images"
    seen = run(project, env, "make", "-v")
    assert seen.code == 0, seen
    assert "published  tool" in seen.out
    for command in ("list", "show tool", "diff tool tool", "status", "report", "make --json", "plan", "publish tool"):
        assert run(project, env, *command.split()).code == 0, command
    pulled = run(project, env, "pull", "tool")
    assert pulled.out.startswith(f"{folder}/store/blobs/")
    refused = run(project, env, "exec", "tool", "--", "ls", "/data")
    assert (refused.code, "SINGFACTORY_STORE" in refused.err) == (8, True)
    env |= {"SINGFACTORY_STORE": str(tmp_path / "store"), "SINGFACTORY_REGISTRY": f"oci:{folder}/images"}
    refused = run(project, env, "exec", "tool", "--", "ls", "/data")
    assert (refused.code, "run this in another folder" in refused.err) == (8, True)
    listed = run(project, env, "exec", "tool", "--", "ls", "/data", at=tmp_path)
    assert listed.out.encode("utf-8", "surrogateescape") in (b"caf\xe9.txt\n", b"caf?.txt\n")  # as busybox shows it
    assert run(project, env, "store", "verify").code == 0
