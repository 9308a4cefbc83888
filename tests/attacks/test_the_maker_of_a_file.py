"""The attacker wrote a file that somebody uses: a lock file, a factory.toml, an archive, a SIF."""

from __future__ import annotations

import os
from pathlib import Path

from factory.recipes.epoch import epoch_of
from factory.recipes.load import load_recipe
from tests.attacks.git_traps import TOKEN, Spy, Trap, git, set_trap, traps


@traps
def test_the_repository_in_an_unpacked_archive_starts_no_program(trap: Trap, tmp_path: Path) -> None:
    top, spy = tmp_path / "unpacked", Spy(tmp_path / "spied")
    folder = top / "recipes/bad"
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text('[recipe]\nname = "bad"\nversion = "1"\n')
    (folder / "image.def").write_text("Bootstrap: docker\nFrom: debian:12\n")
    git(top, "init", "-q", "-b", "main")
    set_trap(trap, spy, top / ".git", top)
    os.utime(folder / "recipe.toml", (1, 1))
    assert epoch_of(load_recipe(folder), {"PATH": os.environ["PATH"], "GITHUB_TOKEN": TOKEN, "HOME": str(tmp_path)})
    assert spy.saw == ""
