"""Git repositories whose settings name programs. A trap that springs leaves its environment in a file."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

TOKEN = "ghs_this_must_not_get_out"
_NOBODYS = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}
_IDENTITY = {f"GIT_{who}_{what}": "a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@dataclass(frozen=True)
class Trap:
    """What a repository's config says (SPY: a shell command), and what else it needs.

    missing: the folder's tree is left out, so that git would fetch it. signed: the commit bears a signature.
    """

    config: str
    files: Mapping[str, str] = field(default_factory=dict)
    missing: bool = False
    signed: bool = False


_PROMISED = (
    '[core]\nrepositoryFormatVersion = 1\n[extensions]\npartialClone = origin\n[remote "origin"]\npromisor = true\n'
)
TRAPS = {
    "fsmonitor": Trap('[core]\nfsmonitor = "SPY #"\n'),
    "a file that is included": Trap("[include]\npath = more\n", {"more": '[core]\nfsmonitor = "SPY #"\n'}),
    "a clean filter": Trap('[filter "x"]\nclean = "SPY; cat"\n', {".gitattributes": "* filter=x\n"}),
    "a filter process": Trap('[filter "x"]\nprocess = "SPY #"\n', {".gitattributes": "* filter=x\n"}),
    "a hook": Trap("", {"hooks/post-index-change": "#!/bin/sh\nSPY\n"}),
    "hooks elsewhere": Trap("[core]\nhooksPath = bin\n", {"bin/post-index-change": "#!/bin/sh\nSPY\n"}),
    "a program for signatures": Trap(
        "[log]\nshowSignature = true\n[gpg]\nprogram = ./gpg\n", {"gpg": "#!/bin/sh\nSPY\n"}, signed=True
    ),
    "an ssh command": Trap(
        f'{_PROMISED}url = ssh://localhost/x\n[core]\nsshCommand = "SPY #"\n[ssh]\nvariant = simple\n', missing=True
    ),
    "a remote that is a command": Trap(
        f'{_PROMISED}url = "ext::sh ./fetch"\n[protocol "ext"]\nallow = always\n', {"fetch": "SPY\n"}, missing=True
    ),
    "a proxy": Trap(
        f'{_PROMISED}url = git://localhost/x\n[core]\ngitProxy = "./proxy"\n',
        {"proxy": "#!/bin/sh\nSPY\n"},
        missing=True,
    ),
    "an upload-pack": Trap(f'{_PROMISED}url = /\nuploadpack = "SPY #"\n', missing=True),
}
traps = pytest.mark.parametrize("trap", TRAPS.values(), ids=TRAPS)


def git(folder: Path, *arguments: str, stdin: str = "", **env: str) -> str:
    """Run git as a person does who has no settings of their own."""
    done = subprocess.run(
        ["git", "-C", folder, *arguments],
        check=True,
        capture_output=True,
        text=True,
        input=stdin,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **_NOBODYS, **_IDENTITY, **env},
    )
    return done.stdout.strip()


def commit(top: Path) -> None:
    """Commit all that a folder holds, at one moment; at first it becomes a repository."""
    if not (top / ".git").exists():
        git(top, "init", "-q", "-b", "main")
    git(top, "add", "--all", "--force", ".")
    git(top, "commit", "-q", "-m", "x", GIT_COMMITTER_DATE="@1700000000 +0000")


@dataclass(frozen=True)
class Spy:
    """The file that a trap which springs writes to."""

    file: Path

    @property
    def command(self) -> str:
        return f"env >>{self.file}"

    @property
    def saw(self) -> str:
        """'' while nothing has run, else whether the token was there."""
        if not self.file.exists():
            return ""
        return "a program ran, and saw the token" if TOKEN in self.file.read_text() else "a program ran"


def set_trap(trap: Trap, spy: Spy, git_dir: Path, top: Path) -> None:
    """Make git_dir a repository of the folder top with this trap, complete: a commit, an index, and bad settings."""
    for name, text in trap.files.items():
        place = (git_dir if name.startswith(("hooks/", "more")) else top) / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text.replace("SPY", spy.command))
        place.chmod(0o755)
    make = _making(git_dir, top)
    if git_dir == top:  # what a maker of such a folder leaves out of it
        make("init", "-q", "-b", "main")
    names = ["recipe.toml"] if (top / "recipe.toml").exists() else ["."]
    make("add", "--force", "--", *names)
    tree = make("write-tree")
    signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\n" if trap.signed else ""
    told = f"tree {tree}\nauthor a <a> 1700000000 +0000\ncommitter a <a> 1700000000 +0000\n{signature}\nx\n"
    commit_id = make("hash-object", "-t", "commit", "-w", "--stdin", stdin=told)
    make("update-ref", "refs/heads/main", commit_id)
    if trap.missing:
        (git_dir / "objects" / tree[:2] / tree[2:]).unlink()
    worktree = "." if git_dir == top else ".."
    settings = f"[core]\nrepositoryFormatVersion = 0\nbare = false\nworktree = {worktree}\n{trap.config}"
    (git_dir / "config").write_text(settings.replace("SPY", spy.command))
    spy.file.unlink(missing_ok=True)  # hooks run while the repository is made, too


def _making(git_dir: Path, top: Path) -> Callable[..., str]:
    where = ("--git-dir", str(git_dir), "--work-tree", str(top))

    def make(*arguments: str, stdin: str = "") -> str:
        return git(top, *where, "-c", "core.attributesFile=/dev/null", *arguments, stdin=stdin)

    return make
