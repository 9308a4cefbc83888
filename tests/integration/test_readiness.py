"""The readiness checks with a real engine: what it builds is checked, refused, mended or ignored, and published."""

from __future__ import annotations

import re
from pathlib import Path

from tests.factory_project import DEFINITION, TEST, Project

PROBLEMS = (
    DEFINITION
    + r"""
    mkdir -p /opt/tool /root/data
    printf '#!/bin/sh\necho tool\n' > /opt/tool/run
    chmod 4755 /opt/tool/run
    echo 'machine example.net login me password hunter2-secret' > /opt/tool/.netrc
    dd if=/dev/zero of=/root/data/model bs=1024 count=100
    ln -s /scratch/models /opt/tool/models

%environment
    export PATH=/opt/gone/bin:$PATH DB_PASSWORD=hunter2-secret

%runscript
    exec nosuchtool "$@"
"""
)
MENDED = DEFINITION + "\n    mkdir -p /opt/tool\n    printf '#!/bin/sh\\necho tool\\n' > /opt/tool/run\n"
NETRC = "secret: /opt/tool/.netrc: it contains the login of a server"
FOUND = {
    ("setuid", "/opt/tool/run"),
    ("secret", "/opt/tool/.netrc"),
    ("secret", "$DB_PASSWORD"),
    ("hidden-files", "/root/data"),
    ("dangling-link", "/opt/tool/models"),
    ("missing-path-folder", "/opt/gone/bin"),
    ("entry-point", "/.singularity.d/runscript"),
    ("no-bash", "/bin/bash"),
}


def places(findings: list[dict[str, str]]) -> set[tuple[str, str]]:
    return {(one["code"], one["place"]) for one in findings if one["severity"] != "information"}


def test_an_image_with_problems_is_refused_with_advice_that_leads_to_a_release(project: Project) -> None:
    folder = project.recipe("tool", definition=PROBLEMS)
    done = project.run("make", "tool")
    assert done.code == 7
    what, why, fix = done.err.strip().splitlines()[-3:]
    assert what == f"singfactory: tool will not work on a cluster: {NETRC}"
    assert why.strip() == "everyone who can pull the image can read it, and old versions keep it"
    assert "hunter2" not in done.out + done.err
    (report,) = project.run("test", "tool", "--json").json()
    assert places(report["findings"]) == FOUND
    assert project.run("publish", "tool").code == 7

    # The second half of the advice, as it was given:
    line = re.search(r"in recipe\.toml: (\[checks\]) (ignore = \{.*\})", fix)
    assert line is not None
    recipe = folder / "recipe.toml"
    recipe.write_text(recipe.read_text() + f"\n{line[1]}\n{line[2]}\n")
    made = project.ok("make", "tool")
    assert f"ignored   tool / {NETRC}" in made.out
    assert "warning   tool / hidden-files: /root/data: 1 file, 102 kB" in made.out
    shown = project.ok("show", "tool", "--json").json()
    assert places(shown["findings"]) == FOUND
    assert "readiness    7 warnings, 1 ignored" in project.ok("show", "tool").out


def test_a_mended_image_has_no_findings_and_an_ignored_code_that_is_not_needed_is_one(project: Project) -> None:
    bash = '\n[checks]\nignore = { no-bash = "busybox is all of it", setuid = "left over" }\n'
    project.recipe("tool", definition=MENDED, more=f"{TEST}{bash}")
    project.ok("build", "tool")
    done = project.ok("test", "tool")
    (report,) = project.ok("test", "tool", "--json").json()
    assert places(report["findings"]) == {("no-bash", "/bin/bash"), ("unused-ignore", _line(project, "ignore ="))}
    assert "tool: 1 passed; readiness: 1 warning, 1 ignored" in done.out
    assert "largest-folders" not in done.out
    assert "note      tool / largest-folders: /: " in project.ok("test", "tool", "-v").out


def _line(project: Project, text: str) -> str:
    lines = Path(project.folder, "recipes/tool/recipe.toml").read_text().splitlines()
    return f"recipe.toml:{next(number for number, line in enumerate(lines, 1) if line.startswith(text))}"


def test_any_image_can_be_checked_and_a_problem_in_a_base_stops_what_is_built_on_it(project: Project) -> None:
    project.recipe("lower", definition=PROBLEMS)
    upper = DEFINITION.replace("docker", "recipe").replace("/made", "/upper")
    project.recipe("upper", base="recipe://lower", definition=upper, more="")
    assert project.run("make").code == 7
    done = project.run("build", "upper")
    assert done.code == 6
    assert "lower will not work on a cluster: secret: /opt/tool/.netrc" in done.err
    image = project.folder / ".singfactory/candidates/lower-amd64/image.sif"
    assert project.run("test", "upper", "--image", str(image)).code == 7
