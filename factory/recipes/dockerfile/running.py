"""RUN in `%post`: as a command of its own where that means the same, else in a shell of its own."""

from __future__ import annotations

import posixpath

from factory.recipes.dockerfile.instructions import here_document
from factory.recipes.dockerfile.model import Instruction
from factory.recipes.dockerfile.mounts import Mount, mounts_of
from factory.recipes.dockerfile.sections import COPIED
from factory.recipes.dockerfile.shell import command, commands, is_plain, is_safe, join, quote, value
from factory.recipes.dockerfile.stage import StageState, in_host_folder
from factory.recipes.dockerfile.words import OPEN

_LONGEST = 40 * 1024  # bytes of a script that fits into a section of the engine
_BIND = "copy what it needs with COPY"


class Runner:
    """Translates the RUN instructions of a stage. place: stages a source of a bind mount, and returns its path."""

    def __init__(self, state: StageState) -> None:
        self._state = state

    def run(self, found: Instruction, bound: dict[int, list[str]]) -> None:
        """Add RUN to `%post`. bound: the staged files of each bind mount, by its index. Raises ProblemError."""
        state = self._state
        if not state.has_shell:
            remedy = "build from an image with a shell, or copy the result from a stage that has one"
            raise state.refuse(found.line, "RUN needs /bin/sh, which this base does not have", remedy)
        self._report(found)
        statement = self._statement(found)
        if len(statement.encode()) > _LONGEST:
            message = f"RUN has more than {_LONGEST} bytes, more than the engine reads at once"
            raise state.refuse(found.line, message, "put the script into a file, COPY it, and RUN that")
        mounts = list(enumerate(mounts_of(found)))
        covered = [self._covered(index, mount, found.line, bound) for index, mount in mounts]
        before = "".join(text for text, _ in covered)
        after = "".join(text for _, text in reversed(covered))
        if before:
            here = f"cd {value(state.workdir or '/')}\n"
            for text in (f"cd /\n{before}{here}".rstrip("\n"), statement, f"cd /\n{after}{here}".rstrip("\n")):
                state.run(text, "cover", "put")
        else:
            state.run(statement)
        state.is_early = False

    def _report(self, found: Instruction) -> None:
        lose = self._state.report.lose
        if (network := found.flag("network")) in ("none", "host"):
            lose(found.line, f"--network={network}: %post has the build's own network", "remove the flag")
        if found.flag("security") == "insecure":
            lose(found.line, "--security=insecure: %post has no privileges on the host", "remove the flag")
        if found.flag("device") is not None:
            lose(found.line, "--device: %post sees no devices", "use the device when the image runs")

    def _covered(self, index: int, mount: Mount, line: int, bound: dict[int, list[str]]) -> tuple[str, str]:
        """Return what makes and what removes the folder that a mount would show."""
        state = self._state
        if mount.kind in ("secret", "ssh"):
            name = mount.id or posixpath.basename(mount.target) or "default"
            message = f"--mount=type={mount.kind}: builds have no secrets, so {name} is missing here"
            state.report.lose(line, message, "fetch it outside, put the result into the recipe's folder, and COPY it")
            return "", ""
        target = state.absolute(state.scope.expand(mount.target or ".", line), line, f"the mount of {mount.target}")
        target = target.rstrip("/")
        if OPEN in target or target in ("", "/tmp", "/var/tmp"):  # noqa: S108 - belong to the build
            if target in ("", "/") or OPEN in target:
                raise state.refuse(line, "--mount: this target cannot be covered", "name a folder, with its path")
            return "", ""
        word = quote(target)
        cover, uncover = f"cover {word}\n", f"uncover {word}\n"
        if in_host_folder(target):
            cover, uncover = "", f"rm -rf {word}\n"
        if mount.kind == "bind":
            sources = " ".join(bound.get(index, []))
            return f"{cover}put {word} {sources}\n", uncover
        return f"{cover}mkdir -p {word}\n", uncover

    def _statement(self, found: Instruction) -> str:
        user = self._user(found.line)
        if found.is_json:
            inner = command(found.words)
            return self._as_user(user, inner) if user else inner
        script, file = self._script(found)
        if file:
            path = f"{COPIED}/{found.line}.sh"
            made = f"mkdir -p {COPIED}\nprintf %s {quote(script)} >{path}\nchmod 755 {path}\n"
            return made + (self._as_user(user, path) if user else path)
        if self._state.shell == ("/bin/sh", "-c") and not user:
            return inline(script)
        if user and self._state.shell == ("/bin/sh", "-c"):
            return self._as_user(user, script)
        words = join([*self._state.shell, script])
        return self._as_user(user, words) if user else words

    def _script(self, found: Instruction) -> tuple[str, bool]:
        """Return what the shell gets, and whether it is a program with an interpreter of its own instead."""
        documents = found.here_documents
        if len(documents) == 1 and here_document(found.text) is not None:
            return documents[0].content, documents[0].body.startswith("#!")
        return found.text + "".join(f"\n{document.body}{document.name}" for document in documents), False

    def _user(self, line: int) -> str:
        user, _, group = self._state.user.partition(":")
        if not user:
            return ""
        if user.isdecimal():
            message = f"USER {self._state.user}: RUN runs as root here, as only a named user has a group and a home"
            self._state.report.lose(line, message, f"create the user: useradd -m -u {user} NAME, and write USER NAME")
            return ""
        if group and group != user:
            message = f"USER {self._state.user}: RUN has the user's own groups here"
            self._state.report.lose(line, message, f"make {group} the user's group: usermod -g {group} {user}")
        return user

    def _as_user(self, user: str, script: str) -> str:
        home = self._state.scope.environment.get("HOME")
        script = f"export HOME={value(home)}\n{script}" if home else script
        return f"su -s /bin/sh {quote(user)} -c {quote(script)}"


def inline(script: str) -> str:
    """Return a script of /bin/sh as a statement of `%post`, whose own shell has -e and -x and stays as it is."""
    parts = commands(script) if "\n" not in script else None
    if parts and len(parts) == 1 and is_plain(parts[0]) and is_safe(parts[0]):
        return parts[0]
    if parts and is_safe(script):
        return "(\n    " + " &&\n    ".join(parts) + "\n)"
    if is_safe(script):
        return f"(set +ex\n{script.rstrip()}\n)" if "<<" not in script else f"(set +ex\n{script}\n)"
    return join(["/bin/sh", "-c", script])
