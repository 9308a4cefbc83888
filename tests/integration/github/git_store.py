"""A real git repository, written and read like GitHub's Git database."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

_PERSON = {
    "GIT_AUTHOR_NAME": "Mona",
    "GIT_AUTHOR_EMAIL": "mona@example.org",
    "GIT_COMMITTER_NAME": "Mona",
    "GIT_COMMITTER_EMAIL": "mona@example.org",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}


class GitStore:
    """A bare repository below folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "repository.git"
        subprocess.run(["git", "init", "--quiet", "--bare", str(self._folder)], check=True, env=self._env())

    def blob(self, content: bytes) -> str:
        return self._git("hash-object", "-w", "--stdin", given=content)

    def tree(self, base: str, entries: list[dict[str, Any]]) -> str:
        index = {"GIT_INDEX_FILE": str(self._folder / f"index-{os.urandom(6).hex()}")}
        if base:
            self._git("read-tree", base, env=index)
        for entry in entries:
            self._git(
                "update-index", "--add", "--cacheinfo", f"{entry['mode']},{entry['sha']},{entry['path']}", env=index
            )
        return self._git("write-tree", env=index)

    def commit(self, message: str, tree: str, parents: list[str]) -> str:
        arguments = [part for parent in parents for part in ("-p", parent)]
        return self._git("commit-tree", tree, *arguments, given=message.encode())

    def read_commit(self, sha: str) -> dict[str, Any]:
        tree, parents, date, message = self._git("show", "-s", "--format=%T%n%P%n%cI%n%B", sha).split("\n", 3)
        return {"tree": tree, "parents": parents.split(), "date": date, "message": message.rstrip("\n")}

    def read_tree(self, sha: str, *, recursive: bool) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for line in self._git("ls-tree", "-lz", *(["-r", "-t"] if recursive else []), sha).split("\0")[:-1]:
            about, path = line.split("\t", 1)
            mode, kind, name, size = about.split()
            found.append({"path": path, "mode": mode, "type": kind, "sha": name})
            if kind == "blob":
                found[-1]["size"] = int(size)
        return found

    def delete_ref(self, name: str) -> None:
        self._git("update-ref", "-d", name)

    def ref(self, name: str) -> str | None:
        done = self._run("rev-parse", "--verify", "--quiet", name)
        return done.stdout.decode().strip() if done.returncode == 0 else None

    def set_ref(self, name: str, sha: str) -> None:
        self._git("update-ref", name, sha)

    def is_forward(self, old: str, new: str) -> bool:
        return self._run("merge-base", "--is-ancestor", old, new).returncode == 0

    def exists(self, sha: str) -> bool:
        return self._run("cat-file", "-e", sha).returncode == 0

    def files(self, name: str) -> dict[str, tuple[str, bytes]]:
        """Mode and content of every file of a branch."""
        entries = self.read_tree(name, recursive=True)
        return {
            entry["path"]: (entry["mode"], self._run("cat-file", "blob", entry["sha"]).stdout)
            for entry in entries
            if entry["type"] == "blob"
        }

    def save(self, branch: str, files: dict[str, bytes], message: str, executable: tuple[str, ...] = ()) -> str:
        """A commit on a branch, as a person's push makes one."""
        parent = self.ref(f"refs/heads/{branch}")
        entries = [
            {"mode": "100755" if path in executable else "100644", "sha": self.blob(content), "path": path}
            for path, content in files.items()
        ]
        sha = self.commit(message, self.tree(parent or "", entries), [parent] if parent else [])
        self.set_ref(f"refs/heads/{branch}", sha)
        return sha

    def _git(self, *arguments: str, given: bytes = b"", env: dict[str, str] | None = None) -> str:
        done = self._run(*arguments, given=given, env=env)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip("\n")

    def _run(
        self, *arguments: str, given: bytes = b"", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        command = ["git", "--git-dir", str(self._folder), *arguments]
        return subprocess.run(command, input=given, capture_output=True, check=False, env=self._env(env))

    def _env(self, more: dict[str, str] | None = None) -> dict[str, str]:
        return {**os.environ, **_PERSON, **(more or {})}
