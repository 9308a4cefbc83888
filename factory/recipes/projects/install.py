"""The definition file of a project's image: commands that install what is locked, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from factory.recipes.languages import PYTHON
from factory.recipes.projects import system
from factory.recipes.projects.model import Needs, OwnCode, normalized
from factory.recipes.projects.needs import WHEELS

PLACE = "/opt/project"  # in the image
CODE = "/project"  # where the project's own code is bound
# The wheels of uv on PyPI for Linux with glibc; the lock of singfactory's own development has them, too.
UV = "uv==0.13.9"
PIP_UV = "python -m pip install --no-cache-dir --no-deps --require-hashes --target uv --requirement uv.txt"
_PYTHONS = "/opt/python/bin/python3 /usr/local/bin/python3 /opt/conda/bin/python3 /usr/bin/python3"


@dataclass(frozen=True)
class Style:
    """How a recipe installs. python: ``3.11``. code: whether the project's own code is in the image.

    foreign: whether the base is one that `new` did not choose itself.
    """

    base: str
    python: str
    code: bool = False
    foreign: bool = False


def definition(needs: Needs, style: Style) -> str:
    """Return the text of the definition file."""
    agent = style.base.partition("://")[0]
    copies = [("files/requirements.txt", "requirements.txt"), ("files/uv.txt", "uv.txt")]
    copies += [("files/direct.txt", "direct.txt")] if needs.direct else []
    copies += [("files/constraints.txt", "constraints.txt")] if needs.constraints else []
    copies += [(f"files/{WHEELS}", WHEELS)] if needs.files else []
    copies += [("files/code", "code")] if style.code else []
    lines = [f"Bootstrap: {agent}", "From: {{ base }}", "", "%files"]
    lines += [f"    {source} {PLACE}/{name}" for source, name in copies]
    lines += ["", "%post", f"    cd {PLACE}", *_find_python(style), *_apt_first(needs, style)]
    lines += _uv(needs, style)
    lines += _included(needs) if style.code else _bound(needs) if needs.own else []
    lines += ["    rm -r uv", *_apt_last(needs, style)]
    lines += ["", "%environment", "    export LC_ALL=C.UTF-8"]
    lines += ["    # Keep users' own packages out: those in their home folders, and those in variables of the cluster."]
    lines += [f"    export {PYTHON.assignments()}", "", "%runscript", '    exec python "$@"', ""]
    return "\n".join(lines)


def build_packages(needs: Needs, *, code: bool, debian_python: bool) -> tuple[str, ...]:
    """Return the Debian packages that the build installs and removes again."""
    git = any("git+" in line for line in (*needs.direct, *needs.requirements))
    source = {normalized(name) for name in needs.source_only}
    found = system.for_builds(source, git=git)
    headers = ("python3-dev",) if debian_python and source else ()
    return tuple(sorted({*found, *headers})) if found or code else ()


def _find_python(style: Style) -> list[str]:
    wanted = f"files/requirements.txt is for Python {style.python}, but the base has "
    return [
        f"    for python in {_PYTHONS}; do",
        '        test ! -x "$python" || break',
        "    done",
        '    "$python" -c \'import sys',
        'found = ".".join(map(str, sys.version_info[:2]))',
        f'found == "{style.python}" or sys.exit("{wanted}" + found)\'',
    ]


def _apt_first(needs: Needs, style: Style) -> list[str]:
    stays = system.runtime(needs.names)
    goes = build_packages(needs, code=style.code, debian_python=style.base.startswith("recipe://"))
    if not stays and not goes:
        return []
    lines = ["    apt-get update"]
    if stays:
        lines += ["    # Libraries and programs that the packages need and do not bring.", *_apt("install", stays)]
    if goes:
        lines += [
            "    # To build packages that have no wheel, or to fetch them from git. Removed below.",
            *_apt("install", goes),
        ]
    return lines


def _apt_last(needs: Needs, style: Style) -> list[str]:
    goes = build_packages(needs, code=style.code, debian_python=style.base.startswith("recipe://"))
    goes = tuple(name for name in goes if name not in (*system.runtime(needs.names), "ca-certificates"))
    return ["    apt-get purge -y --auto-remove " + " ".join(goes)] if goes else []


def _apt(action: str, packages: tuple[str, ...]) -> list[str]:
    return [f"    apt-get {action} -y --no-install-recommends {' '.join(packages)}"]


def _uv(needs: Needs, style: Style) -> list[str]:
    system_python = " UV_BREAK_SYSTEM_PACKAGES=1" if style.foreign else ""
    lines = [
        "    # uv comes from its wheel, by hash, and does not stay in the image.",
        f'    "$python" {PIP_UV.partition(" ")[2]}',
        f'    export UV_PYTHON="$python" UV_NO_CACHE=1 UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1{system_python}',
    ]
    options = []
    if needs.hashed:
        lines += [
            "    # Only files with the hashes of the lock, from any index that the build machine has (PIP_INDEX_URL,",
            "    # PIP_FIND_LINKS, UV_INDEX, …): a hash says which file it is, so its origin does not matter.",
        ]
        options += ["--require-hashes", "--index-strategy unsafe-best-match"]
    options += ["--no-deps"] if needs.complete else []
    options += ["--constraint constraints.txt"] if needs.constraints else []
    command = " ".join(["    uv/bin/uv pip install", *options, "--requirement requirements.txt"])
    indexes = " ".join(f"--index {address}" for address in needs.indexes)
    if indexes:
        lines += [
            f"    {command.strip()} {indexes} || {{",
            '        echo "again, with the indexes of the build machine alone" >&2',
            f"        {command.strip()}",
            "    }",
        ]
    else:
        lines.append(command)
    if needs.direct:
        lines += [
            "    # Commits of git repositories: git itself checks that it got them.",
            "    uv/bin/uv pip install --no-deps --requirement direct.txt",
        ]
    return lines


def _bound(needs: Needs) -> list[str]:
    return [
        f"    # The project's own code stays outside: bind its folder to {CODE}, and Python finds its packages there.",
        *_found_by_python(CODE, needs.own),
    ]


def _included(needs: Needs) -> list[str]:
    built = [code for code in needs.own if code.installable]
    others = tuple(code for code in needs.own if not code.installable)
    lines = (
        ["    # The project's own code. Its build tools come from the index, in no fixed versions."] if built else []
    )
    lines += [f"    uv/bin/uv pip install --no-deps ./{_joined('code', code.folder)}" for code in built]
    if others:
        lines += [
            "    # The project's own code, which does not say how it is built.",
            *_found_by_python(f"{PLACE}/code", others),
        ]
    return lines


def _found_by_python(place: str, own: Sequence[OwnCode]) -> list[str]:
    """Return the commands that put folders on Python's path (the standard library's module site)."""
    places = dict.fromkeys(_joined(place, code.folder, code.source) for code in own)
    return [
        f"    printf '%s\\n' {' '.join(places)} \\",
        '        >"$("$python" -c \'import sysconfig; print(sysconfig.get_path("purelib"))\')/project.pth"',
    ]


def _joined(*parts: str) -> str:
    return "/".join(part for part in parts if part not in ("", "."))
