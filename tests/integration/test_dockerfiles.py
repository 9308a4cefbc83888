"""Recipes with a Dockerfile: built by buildah in the sandbox, and turned into a SIF that runs as on a cluster."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.factory_project import Project
from tests.servers import tool

pytestmark = pytest.mark.skipif(
    shutil.which("buildah") is None, reason="there is no buildah: run scripts/install-test-tools as root"
)

DOCKERFILE = """\
# syntax=docker/dockerfile:1
ARG BASE_TAG=none
FROM BASE AS build
ARG WHO
RUN <<SCRIPT
echo "made for $WHO" > /made
/bin/busybox test "$TZ" = UTC
/bin/busybox test -n "$SOURCE_DATE_EPOCH"
SCRIPT
RUN --mount=type=bind,source=src,target=/in cat /in/a.txt > /joined \\
    # a comment within
    && cat /in/a.txt >> /joined

FROM BASE AS final
ARG WHO
ENV SALUTE="hello $WHO" OLD=$PATH
ENV PATH=/app/bin:$PATH
LABEL org.example.kind="a test"
WORKDIR /app
WORKDIR data
COPY --from=build /made /joined ./
COPY --chown=1000:1000 src /app/src
COPY --chmod=755 run.sh /app/bin/run
COPY <<'TEXT' /app/
a text with $NO variables
TEXT
RUN --mount=type=cache,target=/var/cache/tool echo kept > /var/cache/tool/x
RUN echo "app:x:1000:1000::/app:/bin/sh" >> /etc/passwd
RUN /bin/busybox chmod 600 /app/src/a.txt
USER app
EXPOSE 8080
VOLUME /results
STOPSIGNAL SIGINT
HEALTHCHECK CMD true
ONBUILD RUN false
ENTRYPOINT ["run", "--fixed $HOME"]
CMD ["by default", "two"]

FROM BASE AS unused
RUN false
"""
RUN_SH = '#!/bin/sh\necho "in $PWD:"\nfor word; do echo "<$word>"; done\n'
FILES = {"src/a.txt": "a\n", "src/skipped.pyc": "x", "run.sh": RUN_SH, ".dockerignore": "**/*.pyc\n", "notes.md": "-"}
CHECK = """
[[test]]
name = "files"
run = "cat /app/data/made /app/data/joined /app/src/a.txt; ls -d /results /dataset /app/src/*"
stdout = "made for you\\na\\na\\na\\n/app/src/a.txt\\n/dataset\\n/results"
"""


def log_of(project: Project, name: str) -> str:
    return (project.folder / f".singfactory/candidates/{name}-amd64/build.log").read_text()


def test_a_dockerfile_is_built_tested_published_and_run(project: Project) -> None:
    folder = project.dockerfile("app", DOCKERFILE, FILES, build='target = "final"\nargs = { WHO = "you" }', more=CHECK)
    (folder / "run.sh").chmod(0o600)  # as under umask 077; the image gets the modes that git keeps
    assert " error: " not in project.ok("lint", "app").out
    made = project.ok("make", "app", SECRET_TOKEN="hidden")
    assert "published  app (amd64): new" in made.out, made.out + made.err
    log = log_of(project, "app")
    assert "STEP" in log
    assert "Creating SIF file" in log
    assert "hidden" not in log

    plain = {"APPTAINER_CLEANENV": "1"}
    assert project.ok("run", "app", **plain).out == "in /app/data:\n<--fixed $HOME>\n<by default>\n<two>\n"
    assert project.ok("run", "app", "mine", **plain).out == "in /app/data:\n<--fixed $HOME>\n<mine>\n"
    shown = project.ok("exec", "app", "sh", "-c", 'pwd; echo "$SALUTE|$OLD|$TZ|$WHO"; cat /app/TEXT', **plain).out
    assert shown == f"{project.folder}\nhello you|/bin|||\na text with $NO variables\n".replace("|||", "||"), shown
    left = project.ok("exec", "app", "sh", "-c", "ls /run; ls /var/cache/tool || true", **plain).out
    assert left == ""

    again = project.ok("make", "app")
    assert "unchanged  app" in again.out
    (folder / "notes.md").write_text("no instruction reads this")
    (folder / "src/skipped.pyc").write_text("and .dockerignore hides this")
    assert "1.0-1 has these inputs" in project.ok("plan", "app").out
    (folder / "src/a.txt").write_text("b\n")
    assert "changed: files" in project.ok("plan", "app").out
    (folder / "src/a.txt").write_text("a\n")
    with (folder / "Dockerfile").open("a") as file:
        file.write("# changed\n")
    assert "changed: definition" in project.ok("plan", "app").out
    assert project.leftovers() == []


def test_a_step_that_fails_is_named_by_its_line(project: Project) -> None:
    text = "FROM BASE AS one\nRUN true\nFROM BASE\n\nCOPY --from=one /base /x\nRUN echo seen \\\n  && false\n"
    project.dockerfile("broken", text)
    done = project.run("build", "broken")
    path = project.folder / "recipes/broken/Dockerfile"
    assert done.code == 6
    assert done.err.splitlines()[-4:] == [
        "    seen",
        f"singfactory: {path}:6: this step failed",
        "  exit status 1",
        f"  the whole log is {project.folder}/.singfactory/candidates/broken-amd64/build.log",
    ], done.err
    assert "seen" in log_of(project, "broken")
    assert project.leftovers() == []


def test_a_dockerfile_can_neither_see_nor_reach_the_build_machine(project: Project) -> None:
    secret = Path(project.env["HOME"], ".docker/config.json")
    secret.parent.mkdir()
    secret.write_text("token")
    text = f"""\
FROM BASE
RUN env > /seen; for pid in /proc/[0-9]*; do cat $pid/environ $pid/cmdline; done >> /seen 2>&1; cat {secret} || true
RUN /bin/busybox mknod /disk b 254 0 2>/dev/null && /bin/busybox dd if=/disk of=/raw count=1 && exit 1; true
RUN /bin/busybox mkdir /up && cd /up && /bin/busybox chroot . /x 2>/dev/null; cat /../../../..{secret} 2>&1 || true
RUN /bin/busybox grep -q SECRET_TOKEN /seen && exit 1; echo made > /made
"""
    project.dockerfile("curious", text)
    project.ok("build", "curious", SECRET_TOKEN="hidden")
    log = log_of(project, "curious")
    assert log.count("No such file or directory") >= 1
    assert "token" not in log.replace("SECRET_TOKEN", "")
    assert "token" not in project.ok("test", "curious").out


def test_an_image_without_a_shell_runs_its_program(project: Project) -> None:
    ignored = '[checks]\nignore = { no-shell = "only exec is used" }\n'
    folder = project.dockerfile("static", "FROM scratch\nCOPY busybox /bin/\n", more=ignored)
    shutil.copy(tool("busybox"), folder / "busybox")
    (folder / "recipe.toml").write_text((folder / "recipe.toml").read_text().replace('binds = ["/dataset"]', ""))
    made = project.ok("make", "static")
    assert "static has no /bin/sh: the rules for reproducible builds do not apply, only exec works" in made.err
    assert project.ok("exec", "static", "/bin/busybox", "echo", "it runs").out == "it runs\n"


def test_a_build_ends_at_its_time_limit_and_at_ctrl_c(project: Project) -> None:
    folder = project.dockerfile("slow", "FROM BASE\nRUN echo begun; sleep 300\n")
    recipe = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(recipe.replace('"2m"', '"4s"', 1))
    done = project.run("build", "slow")
    assert (done.code, "the build did not finish within 0:00:04" in done.err) == (6, True), done.err
    (folder / "recipe.toml").write_text(recipe)
    log = project.folder / ".singfactory/candidates/slow-amd64/build.log"
    log.unlink()
    running = project.start("build", "slow")
    end = time.monotonic() + 60
    while time.monotonic() < end and not (log.is_file() and "begun\n" in log.read_text()):
        time.sleep(0.1)
    os.killpg(running.pid, signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert (running.returncode, "Traceback" in err) == (130, False), err
    assert project.leftovers() == []
