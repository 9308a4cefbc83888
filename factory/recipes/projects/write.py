"""Write the recipe of a project, and bring it up to date with a changed lock without touching what people edited."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from factory.errors import UsageError
from factory.io import plain
from factory.io.files import atomic_write, make_folder, remove_file
from factory.io.trees import remove_tree
from factory.oci.names import version_name
from factory.recipes.model import ProjectSpec
from factory.recipes.projects import conda_install, install, tests_of
from factory.recipes.projects.conda import CondaNeeds
from factory.recipes.projects.install import Style
from factory.recipes.projects.model import Needs, normalized
from factory.recipes.projects.needs import WHEELS

_SEAL = re.compile(r"# From (\S+), by singfactory new --project; --update writes it again\. sha256:([0-9a-f]{64})\n")
_LIMIT = 16 * 1024 * 1024  # bytes of a file that was written
_CUDA = re.compile(r"nvidia-(?:cuda-runtime|cublas|cudnn)(?:-cu[0-9]+)?|cupy-cuda[0-9x]+|jax-cuda[0-9]+-plugin")
_LOCAL_CUDA = re.compile(r"\+cu[0-9]+$")
_GB = 1_000_000_000
_UV_TEXT = f"""\
{install.UV} \\
    --hash=sha256:d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19 \\
    --hash=sha256:ecb6028d79dc96fbeafffe5c8af62a7099487ebc05a701e76714eebcffd06375 \\
    --hash=sha256:5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe
"""
_RECIPE = """\
# How this image is built, tested and run. Check this file with: singfactory lint {name}

[recipe]
name = "{name}"
version = "{version}"  # of the project; the factory appends a build number
summary = {summary}
license = "NOASSERTION"  # of the software in the image: an SPDX identifier such as MIT or BSD-3-Clause
maintainers = ["@your-name"]

[build]
definition = "image.def"
base = "{base}"  # {{{{ base }}}} in image.def
arch = ["amd64"]{arch_comment}
disk = "{disk}GB"  # free disk space that the build needs{disk_comment}
timeout = "2h"

[run]  # options of singfactory exec on the cluster
gpu = "{gpu}"
{binds}# env = {{ OMP_NUM_THREADS = "8" }}

{project}
[[test]]
name = "imports"
run = "{test}"
stdout = " 0 wrong"
timeout = "10m"
{gpu_test}
[rebuild]
when = ["base-changed", "inputs-changed"]
# max_age = "30d"
{hints}"""
_GPU_TEST = """
[[test]]
name = "gpu"
run = "python tests/gpu.py"
stdout = "computed"
gpu = true
timeout = "5m"
"""
_HINTS = """
[quiet]
hints = false  # {why}
"""


@dataclass(frozen=True)
class Recipe:
    """What `new --project` writes. wheels: files of the project to copy, by name; code: likewise, below files/code."""

    name: str
    version: str
    base: str
    project: ProjectSpec
    needs: Needs | CondaNeeds
    foreign: bool = False
    code: Mapping[str, Path] = field(default_factory=dict)

    @property
    def gpu(self) -> str:
        """``nvidia`` if the lock names CUDA libraries, else ``none``."""
        if isinstance(self.needs, CondaNeeds):
            return "nvidia" if self.needs.gpu else "none"
        for name, version, _ in self.needs.distributions:
            if _CUDA.fullmatch(normalized(name)) or _LOCAL_CUDA.search(version):
                return "nvidia"
        return "none"

    @property
    def disk(self) -> int:
        """The disk space that the build needs, in GB: archives, what is unpacked of them twice, and the image."""
        size = self.needs.size
        floor = 4 if isinstance(self.needs, Needs) else 10
        if not size:
            return 10
        return max(floor, math.ceil((1.5 * _GB + 6 * size) / _GB))

    def documents(self) -> dict[str, str]:
        """Return the files that `--update` writes again, by their path in the recipe."""
        lock, needs = self.project.lock, self.needs
        if isinstance(needs, CondaNeeds):
            found = conda_install.documents(needs, self.base)
            if needs.pip:
                found["files/uv.txt"] = _UV_TEXT
        else:
            style = Style(self.base, self.project.python, self.project.include_code, self.foreign)
            found = {
                "image.def": install.definition(needs, style),
                "files/requirements.txt": "".join(f"{line}\n" for line in needs.requirements),
                "files/uv.txt": _UV_TEXT,
                "tests/imports.py": tests_of.IMPORTS,
                "tests/distributions.txt": tests_of.distributions(needs),
            }
            if needs.direct:
                found["files/direct.txt"] = "".join(f"{line}\n" for line in needs.direct)
            if needs.constraints:
                found["files/constraints.txt"] = "".join(f"{line}\n" for line in needs.constraints)
            if self.gpu != "none":
                found["tests/gpu.py"] = tests_of.GPU
        return {path: sealed(text, lock) for path, text in found.items()}

    def copies(self) -> dict[str, Path]:
        """Return the files of the project that are copied, by their path in the recipe."""
        wheels = {f"files/{WHEELS}/{name}": path for name, path in self.files.items()}
        return wheels | {f"files/code/{name}": path for name, path in self.code.items()}

    @property
    def files(self) -> Mapping[str, Path]:
        """The wheels of the project to copy."""
        return self.needs.files if isinstance(self.needs, Needs) else {}

    def recipe_toml(self) -> str:
        """Return the text of recipe.toml."""
        needs = self.needs
        conda = isinstance(needs, CondaNeeds)
        both = isinstance(needs, Needs) and needs.complete and not any("only " in note for note in needs.notes)
        bound = isinstance(needs, Needs) and bool(needs.own) and not self.project.include_code
        places = ', "/dataset", "/final_log"'
        why = self._why_hints()
        return _RECIPE.format(
            name=self.name,
            version=self.version,
            summary=json.dumps(f"The packages of {self.name}, as its {self.project.lock} has them"),
            base=self.base,
            arch_comment='  # the lock has all packages for "arm64", too' if both else "",
            disk=self.disk,
            disk_comment="" if needs.size else "; a guess, since the lock has no sizes",
            gpu=self.gpu,
            binds=f'binds = ["{install.CODE}"{places}]  # mount points; the project itself is bound to {install.CODE}\n'
            if bound
            else f"binds = [{places[2:]}]  # mount points in the image\n",
            project=project_table(self.project),
            test="python tests/packages.py" if conda else "python tests/imports.py",
            gpu_test=_GPU_TEST if self.gpu != "none" and not conda else "",
            hints=_HINTS.format(why=why) if why else "",
        )

    def _why_hints(self) -> str:
        needs = self.needs
        if isinstance(needs, CondaNeeds):
            return "" if needs.explicit else f"{self.project.lock} is no lock"
        if "apt-get install" in install.definition(
            needs, Style(self.base, self.project.python, self.project.include_code, self.foreign)
        ):
            return "Debian's packages are not in the lock"
        return "" if needs.hashed else f"{self.project.lock} is no lock"


def project_table(spec: ProjectSpec) -> str:
    """Return the table `[project]`."""
    values: dict[str, object] = {
        "source": spec.source,
        "path": spec.path,
        "commit": spec.commit,
        "dirty": spec.dirty,
        "lock": spec.lock,
        "python": spec.python,
        "extras": list(spec.extras),
        "groups": list(spec.groups),
        "include_code": spec.include_code,
    }
    lines = [
        f"{name} = {json.dumps(value, ensure_ascii=False)}\n"
        for name, value in values.items()
        if value not in ("", [], False)
    ]
    return "[project]  # what singfactory new --project read; with --update it reads it again\n" + "".join(lines)


def version_of(text: str) -> str:
    """Return a project's version as a recipe's; 1.0 if it is none."""
    try:
        return version_name(text) if text else "1.0"
    except UsageError:
        return "1.0"


def sealed(text: str, lock: str) -> str:
    """Return a text with a first line that tells whether somebody has edited it since."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return (
        f"# From {lock or 'a project'}, by singfactory new --project; --update writes it again. sha256:{digest}\n{text}"
    )


def is_untouched(content: bytes) -> bool:
    """Return whether a file is as it was written."""
    text = content.decode("utf-8", "surrogateescape")
    match = _SEAL.match(text)
    return (
        match is not None
        and hashlib.sha256(text[match.end() :].encode("utf-8", "surrogateescape")).hexdigest() == match[2]
    )


def contents(recipe: Recipe) -> dict[str, str | bytes]:
    """Return every file of the new recipe, by its path in it. Raises PlaceUnusable."""
    found: dict[str, str | bytes] = {"recipe.toml": recipe.recipe_toml(), **recipe.documents()}
    for path, source in recipe.copies().items():
        found[path] = plain.read_plain(source, 4 * _GB, follow=True)
    return found


@dataclass(frozen=True)
class Updated:
    """What `--update` did: files written and removed, and files that people edited, which were kept."""

    changed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def update(folder: Path, recipe: Recipe, before: ProjectSpec) -> Updated:
    """Write the files of a recipe again that `new --project` wrote, and its table `[project]`.

    Edited files are kept, and named; if the list of packages itself was edited, nothing is written. The commit in
    `[project]` stays if no file changes: it is the commit whose packages the image has. Raises UsageError.
    """
    new: dict[str, str | bytes] = dict(recipe.documents())
    new |= {path: plain.read_plain(source, 4 * _GB, follow=True) for path, source in recipe.copies().items()}
    changed, kept = list[str](), list[str]()
    for path, content in new.items():
        there = _read(folder / path)
        wanted = content.encode() if isinstance(content, str) else content
        if there == wanted or (there is not None and _body(there) == _body(wanted)):
            continue
        if there is not None and isinstance(content, str) and not is_untouched(there):
            kept.append(path)
        else:
            changed.append(path)
    lists = ("files/requirements.txt", "files/direct.txt", "files/environment.yml", "files/explicit.txt")
    if mine := [path for path in kept if path in lists]:
        raise UsageError(
            f"{folder / mine[0]} was edited, so that it does not follow {recipe.project.lock} any more",
            why="--update would lose the change",
            fix=f"make the change in the project, remove {folder / mine[0]}, then run this again",
        )
    gone = [path for path in _written(folder) if path not in new]
    if not changed and not gone:
        return Updated((), tuple(kept))
    for path in changed:
        make_folder((folder / path).parent)
        atomic_write(folder / path, new[path])
    for path in gone:
        remove_file(folder / path)
    if not recipe.code and (folder / "files/code").is_dir() and before.include_code:
        remove_tree(folder / "files/code")
    text = (folder / "recipe.toml").read_text(encoding="utf-8")
    atomic_write(folder / "recipe.toml", with_project(text, recipe.project))
    return Updated((*changed, *gone), tuple(kept))


def with_project(text: str, spec: ProjectSpec) -> str:
    """Return recipe.toml with another table `[project]`; everything else stays as it is."""
    lines = text.splitlines(keepends=True)
    first = next((index for index, line in enumerate(lines) if re.match(r"\[project\]", line)), None)
    if first is None:
        return text.rstrip("\n") + "\n\n" + project_table(spec)
    end = next((index for index in range(first + 1, len(lines)) if lines[index].startswith("[")), len(lines))
    last = max((index for index in range(first, end) if re.match(r"[\[a-z]", lines[index])), default=first)
    return "".join((*lines[:first], project_table(spec), *lines[last + 1 :]))


def _written(folder: Path) -> list[str]:
    """Return the files of a recipe that were written by `new --project` and that nobody has edited."""
    found = []
    for below in ("files", "tests"):
        for path in sorted((folder / below).glob("*")) if (folder / below).is_dir() else ():
            content = _read(path)
            if content is not None and is_untouched(content):
                found.append(f"{below}/{path.name}")
    for below in (f"files/{WHEELS}", "files/code"):
        paths = sorted((folder / below).rglob("*")) if (folder / below).is_dir() else ()
        found += [path.relative_to(folder).as_posix() for path in paths if path.is_file() and not path.is_symlink()]
    return found


def _body(content: bytes) -> bytes:
    """Return a file's content without its first line if that is a seal."""
    head, _, rest = content.partition(b"\n")
    return rest if head.startswith(b"# From ") and b"by singfactory new --project" in head else content


def _read(path: Path) -> bytes | None:
    try:
        return plain.read_plain(path, _LIMIT)
    except (OSError, plain.NotPlainError):
        return None
