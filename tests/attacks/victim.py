"""Somebody who builds a stranger's recipe: with a home, logins, tokens in the environment, and running programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.attacks import account
from tests.factory_project import ROOT, Done, Project, make_project

SECRET = "SECRET-OF-THE-VICTIM"
TOKENS = {
    "GITHUB_TOKEN": SECRET,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "APPTAINER_DOCKER_PASSWORD": SECRET,
    "APPTAINER_DOCKER_USERNAME": "me",
    "SINGULARITY_LOGIN_PASSWORD": SECRET,
    "SINGFACTORY_PASSWORD": SECRET,
    "MY_OWN_VARIABLE": SECRET,
    "HTTPS_PROXY": f"http://me:{SECRET}/x@127.0.0.1:9",
}
HERE, USER, USER_WITH_IDS = "who runs the tests", "an ordinary user", "an ordinary user with /etc/subuid"


@dataclass(frozen=True)
class Victim(Project):
    """A project of one account. program: the id of a program that the account runs, its name holds SECRET."""

    kind: str = HERE
    program: int = 0
    settings: str = ""

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        """Start `singfactory` as that account."""
        command = [sys.executable, "-m", "factory.cli"]
        if self.kind != HERE:
            engine = Path(self.env["SINGFACTORY_ENGINE"]).resolve()
            prefix = next(place for place in engine.parents if place.name not in ("bin", "usr"))
            ids = "--subuid" if self.kind == USER_WITH_IDS else "--no-subuid"
            program = Path(account.__file__)
            command = [sys.executable, str(program), ids, "--reach", sys.base_prefix, sys.prefix, str(prefix), "--"]
        return subprocess.Popen(
            [*command, *arguments],
            cwd=self.folder,
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def log(self, recipe: str) -> str:
        """What a build has printed."""
        return (self.folder / f".singfactory/candidates/{recipe}-amd64/build.log").read_text(errors="replace")

    def attack(self, definition: str, *, base: str = "", settings: str = "") -> Done:
        """Build a recipe with this %post and so on; @folder@ in it is this project's folder."""
        (self.folder / "factory.toml").write_text(settings or self.settings)  # the last attack may have got there
        self.recipe("hostile", definition=definition.replace("@folder@", str(self.folder)), base=base)
        self.own()
        return self.run("build", "--force", "hostile")

    def own(self) -> None:
        """Hand everything in the project over to the account."""
        if self.kind != HERE:
            for place, below, names in os.walk(self.folder):
                for path in (Path(place), *(Path(place, name) for name in (*below, *names))):
                    os.chown(path, account.USER, account.USER, follow_symlinks=False)


@contextmanager
def victim(kind: str, folder: Path, engine: str, host: str) -> Iterator[Victim]:
    """An account with something to lose; folder: a new one that the account can reach."""
    project = make_project(folder / "factory", engine, host)
    settings = (project.folder / "factory.toml").read_text()
    made = Victim(project.folder, {**project.env, **TOKENS}, project.base, kind, settings=settings)
    for name, text in {
        "home/.ssh/id_ed25519": SECRET,
        "home/.bashrc": "mine\n",
        "home/.docker/config.json": '{"auths": {}, "note": "' + SECRET + '"}',
        "recipes/other/image.def": "mine\n",
        ".git/config": "mine\n",
        "store/mine": "mine\n",
    }.items():
        path = project.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (project.folder / "home/.ssh").chmod(0o700)
    (project.folder / "home/.ssh/id_ed25519").chmod(0o600)
    shutil.rmtree(project.folder / "recipes/other")
    made.own()

    user = None if kind == HERE else account.USER
    program = subprocess.Popen(["/bin/sh", "-c", "sleep 300; :", SECRET], user=user, start_new_session=True)
    try:
        yield replace(made, program=program.pid)
    finally:
        os.killpg(program.pid, 9)
        program.wait()


__all__ = ["HERE", "ROOT", "SECRET", "TOKENS", "USER", "USER_WITH_IDS", "Victim", "victim"]
