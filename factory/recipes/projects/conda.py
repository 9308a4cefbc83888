"""Read conda projects: `environment.yml`, `conda-lock.yml` and `pixi.lock`.

Specifications: https://docs.conda.io/projects/conda/en/stable/user-guide/tasks/manage-environments.html,
https://conda.github.io/conda-lock/, https://pixi.sh/latest/workspace/lockfile/ (version 6)
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.errors import UsageError
from factory.recipes.model import ProblemError
from factory.recipes.projects.documents import Yaml
from factory.recipes.projects.model import HASH, NAME, VERSION, has_login, host_of, is_web_address, refused

PLATFORMS = {"amd64": "linux-64", "arm64": "linux-aarch64"}
_CHANNEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,198}", re.ASCII)
_SPEC = re.compile(r"(?:[A-Za-z0-9._/:-]+::)?([A-Za-z0-9_][A-Za-z0-9._-]*)((?:[ =<>!~].*)?)", re.ASCII)
_UNSAFE = re.compile(r"[\x00-\x1f\x7f;&`$\\\"']")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,198}", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,198}", re.ASCII)
_EXACT = re.compile(r"==?\s*([A-Za-z0-9._+!]+)(?:=.*)?", re.ASCII)
_MD5 = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class CondaNeeds:
    """What a conda image installs. files: by name, for the recipe's folder files/. explicit: exact archives by URL.

    packages: names of conda packages, and their versions ('' if any). pip: lines of a requirements file; hashed: each
    has a hash. hosts: where the packages come from.
    """

    files: Mapping[str, str]
    explicit: bool
    packages: tuple[tuple[str, str], ...]
    pip: tuple[str, ...] = ()
    hashed: bool = False
    size: int = 0
    hosts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def gpu(self) -> bool:
        """Return whether packages are for GPUs of NVIDIA."""
        names = {name for name, _ in self.packages}
        return bool(names & {"cudatoolkit", "cuda-version", "pytorch-cuda", "pytorch-gpu", "cuda-cudart", "cudnn"})


def environment(path: Path) -> CondaNeeds:
    """Read an `environment.yml`. Raises ProblemError."""
    file = Yaml(path)
    content = _mapping(file, file.content)
    unknown = [
        key for key in content if key not in ("name", "channels", "dependencies", "prefix", "variables", "platforms")
    ]
    if unknown:
        raise refused(path, file.line(unknown[0]), f"{unknown[0][:40]!r} is no key of an environment.yml", "remove it")
    if content.get("variables"):
        raise refused(
            path,
            file.line("variables"),
            "variables are not supported",
            "write them as env = { … } under [run] in recipe.toml",
        )
    channels = _strings(file, content.get("channels") or ["conda-forge"], "channels")
    for channel in channels:
        _require_channel(file, channel)
    dependencies = content.get("dependencies")
    if not isinstance(dependencies, list) or not dependencies:
        raise refused(path, file.line("dependencies"), "there are no dependencies", "write dependencies: [python=3.12]")
    packages, pip = [], list[str]()
    for item in dependencies:
        if isinstance(item, dict) and list(item) == ["pip"]:
            pip += _pip(file, item["pip"])
        elif isinstance(item, str):
            packages.append(_spec(file, item))
        else:
            raise refused(path, file.line("dependencies"), f"{_text(item)[:60]!r} is no package", "write NAME=VERSION")
    if not any(name == "python" for name, _ in packages) and pip:
        raise refused(path, file.line("pip:"), "packages of pip need a Python", "add python=3.12 to the dependencies")
    # Without the pip section, which is installed by itself; and without name and prefix, which are the author's.
    specs = [item for item in dependencies if isinstance(item, str)]
    if pip and not any(name == "pip" for name, _ in packages):
        specs.append("pip")  # uv comes with it
    text = "channels:\n" + "".join(f"  - {name}\n" for name in channels)
    text += "dependencies:\n" + "".join(f'  - "{spec}"\n' for spec in specs)
    lock = "conda-lock --platform linux-64 --platform linux-aarch64, then --project …/conda-lock.yml"
    notes = [f"{path.name} is no lock: each build may take other builds of the packages; to lock it: {lock}"]
    return CondaNeeds(
        {"environment.yml": text},
        explicit=False,
        packages=tuple(packages),
        pip=tuple(pip),
        hosts=tuple(dict.fromkeys(host_of(name) or "conda.anaconda.org" for name in channels)),
        notes=tuple(notes),
    )


def conda_lock(path: Path, arch: str) -> CondaNeeds:
    """Read a `conda-lock.yml`, version 1. Raises ProblemError."""
    file = Yaml(path)
    content = _mapping(file, file.content)
    if content.get("version") != "1" or not isinstance(content.get("package"), list):
        raise refused(
            path, file.line("version:"), "this is no conda-lock.yml of version 1", "write it with conda-lock 1 or later"
        )
    here = PLATFORMS[arch]
    entries = [entry for entry in content["package"] if isinstance(entry, dict)]
    there = sorted({_text(entry.get("platform"))[:40] for entry in entries})[:5]
    mine = [entry for entry in entries if entry.get("platform") == here and entry.get("category", "main") == "main"]
    if not mine:
        raise refused(
            path,
            0,
            f"the lock is for {', '.join(there) or 'no platform'}, not for {here}",
            f"run: conda-lock --platform {here}",
        )
    conda, pip = list[tuple[str, str, str, str, int]](), list[str]()
    for entry in mine:
        hashes = entry.get("hash")
        found = hashes if isinstance(hashes, dict) else {}
        name, version, url = (_text(entry.get(key)) for key in ("name", "version", "url"))
        if entry.get("manager") == "pip":
            pip.append(_pinned(file, name, version, url, _text(found.get("sha256"))))
        else:
            _require_names(file, url, name, version)
            conda.append((name, version, _archive(file, url, _text(found.get("md5"))), _text(found.get("sha256")), 0))
    return _explicit(file, conda, pip)


def pixi_lock(path: Path, arch: str, environment_name: str) -> CondaNeeds:
    """Read a `pixi.lock`, version 6. environment_name: '' for the default one. Raises ProblemError and UsageError."""
    file = Yaml(path)
    content = _mapping(file, file.content)
    environments, packages = content.get("environments"), content.get("packages")
    if content.get("version") != "6" or not isinstance(environments, dict) or not isinstance(packages, list):
        raise refused(
            path, file.line("version:"), "this is no pixi.lock of version 6", "run: pixi lock, with a current pixi"
        )
    wanted = environment_name or "default"
    chosen = environments.get(wanted)
    if not isinstance(chosen, dict):
        raise UsageError(
            f"{path} has no environment {wanted!r}",
            why=f"it has {', '.join(environments)[:200]}",
            fix="correct --group",
        )
    here = PLATFORMS[arch]
    by_platform = chosen.get("packages")
    by_platform = by_platform if isinstance(by_platform, dict) else {}
    listed = by_platform.get(here)
    if not isinstance(listed, list):
        there = ", ".join(by_platform)[:200]
        remedy = f'add "{here}" to platforms in pixi.toml, then run: pixi lock'
        raise refused(
            path, file.line(f"{wanted}:"), f"the lock is for {there or 'no platform'}, not for {here}", remedy
        )
    by_url = {
        _text(package.get("conda") or package.get("pypi")): package for package in packages if isinstance(package, dict)
    }
    conda, pip = list[tuple[str, str, str, str, int]](), list[str]()
    for item in listed:
        url = _text(item.get("conda") or item.get("pypi")) if isinstance(item, dict) else ""
        package = by_url.get(url)
        if package is None:
            raise refused(
                path, file.line(url) if url else 0, f"{url[:100]!r} is not among the packages", "run: pixi lock"
            )
        if "conda" in package:
            name, version = _of_archive(url)
            _require_names(file, url, name, version)
            archive = _archive(file, url, _text(package.get("md5")))
            conda.append((name, version, archive, _text(package.get("sha256")), _size(package.get("size"))))
        elif is_web_address(url):
            name, version = _text(package.get("name")), _text(package.get("version"))
            pip.append(_pinned(file, name, version, url, _text(package.get("sha256"))))
        # A path: the project itself, which stays outside.
    return _explicit(file, conda, pip)


def _explicit(file: Yaml, conda: Iterable[tuple[str, str, str, str, int]], pip: list[str]) -> CondaNeeds:
    packages = tuple(sorted((name, version) for name, version, _, _, _ in conda))
    conda = list(conda)
    if not conda:
        raise refused(file.path, 0, "no package of conda is locked", "use a requirements.txt for packages of pip alone")
    text = "@EXPLICIT\n" + "".join(f"{archive}\n" for _, _, archive, _, _ in conda)
    sums = [
        f"{digest}  {posixpath.basename(archive.partition('#')[0])}\n"
        for _, _, archive, digest, _ in conda
        if _DIGEST.fullmatch(digest)
    ]
    return CondaNeeds(
        {"explicit.txt": text, **({"sha256.txt": "".join(sums)} if sums else {})},
        explicit=True,
        packages=packages,
        pip=tuple(pip),
        hashed=True,
        size=sum(size for *_, size in conda),
        hosts=tuple(dict.fromkeys(host_of(archive) for _, _, archive, _, _ in conda)),
    )


def _archive(file: Yaml, url: str, md5: str) -> str:
    """Return a line of an explicit list."""
    if has_login(url) or "/t/" in url:
        raise refused(
            file.path,
            file.line(url),
            "the channel's address holds a login or token",
            "use a channel that needs none",
            "builds and images must not see logins",
        )
    if not is_web_address(url) or not url.endswith((".conda", ".tar.bz2")):
        raise refused(file.path, file.line(url), f"{url[:100]!r} is no archive of a package", "lock the project again")
    return f"{url}#{md5}" if _MD5.fullmatch(md5) else url


def _require_names(file: Yaml, url: str, name: str, version: str) -> None:
    """Raise ProblemError for a name or version that no list of packages can have."""
    if _NAME.fullmatch(name) is None or (version and _VERSION.fullmatch(version) is None):
        raise refused(file.path, file.line(url), f"{name[:60]!r} has no name or version", "lock the project again")


def _pinned(file: Yaml, name: str, version: str, url: str, digest: str) -> str:
    """Return a line of a requirements file for a package of pip."""
    hashed = f"sha256:{digest}"
    if NAME.fullmatch(name) is None or VERSION.fullmatch(version) is None or HASH.fullmatch(hashed) is None:
        raise refused(file.path, file.line(url), f"{name[:60]!r} has no version or no hash", "lock the project again")
    return f"{name}=={version} \\\n    --hash={hashed}"


def _text(value: object) -> str:
    """Return a text, '' for a list or table: a table that repeats parts of the file may be endless as text."""
    return value if isinstance(value, str) else ""


def _size(value: object) -> int:
    text = _text(value)
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else 0


def _of_archive(url: str) -> tuple[str, str]:
    """Return name and version of a conda archive: NAME-VERSION-BUILD.conda."""
    stem = posixpath.basename(url).removesuffix(".conda").removesuffix(".tar.bz2")
    parts = stem.rsplit("-", 2)
    return (parts[0], parts[1]) if len(parts) == 3 else (stem, "")  # noqa: PLR2004


def _mapping(file: Yaml, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise refused(file.path, 1, "the file has no keys", "write dependencies: and a list of packages")
    return value


def _strings(file: Yaml, value: object, key: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise refused(file.path, file.line(f"{key}:"), f"{key} is no list of names", f"write {key}: [conda-forge]")
    return list(value)


def _require_channel(file: Yaml, channel: str) -> None:
    if has_login(channel) or "/t/" in channel:
        raise _channel(file, channel, "holds a login or token", "use a channel that needs none")
    if not is_web_address(channel) and (_CHANNEL.fullmatch(channel) is None or channel.startswith(("file", "/"))):
        raise _channel(file, channel, "is no channel that builds can reach", "write conda-forge, or https://HOST/NAME")


def _channel(file: Yaml, channel: str, what: str, remedy: str) -> ProblemError:
    shown = re.sub(r"(://)[^/]*@|/t/.*", r"\1…", channel)[:80]
    return refused(file.path, file.line(channel), f"the channel {shown} {what}", remedy)


def _spec(file: Yaml, text: str) -> tuple[str, str]:
    match = _SPEC.fullmatch(text.strip())
    if match is None or _UNSAFE.search(text):
        raise refused(file.path, file.line(text), f"{text[:80]!r} is no package of conda", "write NAME=VERSION")
    exact = _EXACT.fullmatch(match[2].strip())
    version = exact[1] if exact and match[2].strip().startswith("==") else ""
    return match[1].lower(), version


def _pip(file: Yaml, items: object) -> Iterator[str]:
    for item in items if isinstance(items, list) else ():
        text = _text(item).strip()
        if text.startswith(("-", ".", "/", "file:")):
            raise refused(
                file.path,
                file.line(text),
                f"{text[:60]!r} under pip is not supported",
                "list the packages there themselves",
            )
        if (
            not text
            or not text.isprintable()
            or _UNSAFE.search(text.partition(";")[0])
            or has_login(text.partition("@ ")[2].strip())
        ):
            raise refused(file.path, file.line(text), f"{text[:60]!r} is no requirement", "write NAME==VERSION")
        yield text
