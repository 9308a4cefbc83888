"""The definition file of a project's image: commands that install what is locked, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from factory.recipes.languages import PYTHON
from factory.recipes.projects import system
from factory.recipes.projects.model import Needs, normalized
from factory.recipes.projects.needs import WHEELS

PLACE = "/opt/project"  # in the image
CODE = "/project"  # where the project's own code is bound
# The wheels of uv on PyPI for Linux with glibc; the lock of singfactory's own development has them, too.
UV = "uv==0.13.9"
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
    lines += ["", "%post", f"    cd {PLACE}", *_find_python(needs, style), *_apt_first(needs, style)]
    lines += _uv(needs, style)
    if style.code:
        lines += ["    # The project's own code. Its build tools come from the index, in no fixed versions."]
        lines += [f"    $uv --no-deps {PLACE}/{name}" for name in _code_folders(needs)]
    elif needs.own:
        lines += _bound(needs)
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


def _find_python(needs: Needs, style: Style) -> list[str]:
    del needs
    wanted = f"files/requirements.txt is for Python {style.python}, but the base has "
    return [
        f"    for python in {_PYTHONS}; do",
        '        test ! -x "$python" || break',
        "    done",
        f"    \"$python\" -c 'import sys",
        f'found = ".".join(map(str, sys.version_info[:2])); found == "{style.python}" or sys.exit("{wanted}" + found)\'',
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
        lines += ["    # To build packages that have no wheel, or to fetch them from git. Removed below.", *_apt("install", goes)]
    return lines


def _apt_last(needs: Needs, style: Style) -> list[str]:
    goes = build_packages(needs, code=style.code, debian_python=style.base.startswith("recipe://"))
    goes = tuple(name for name in goes if name not in (*system.runtime(needs.names), "ca-certificates"))
    return ["    apt-get purge -y --auto-remove " + " ".join(goes)] if goes else []


def _apt(action: str, packages: tuple[str, ...]) -> list[str]:
    return [f"    apt-get {action} -y --no-install-recommends {' '.join(packages)}"]


def _uv(needs: Needs, style: Style) -> list[str]:
    system_python = " --break-system-packages" if style.foreign else ""
    lines = [
        "    # uv comes from its wheel, by hash, and does not stay in the image.",
        '    "$python" -m pip install --no-cache-dir --no-deps --require-hashes --target uv --requirement uv.txt',
        f'    uv="uv/bin/uv pip install --python $python --no-cache --link-mode copy --compile-bytecode{system_python}"',
    ]
    options = []
    if needs.hashed:
        lines += [
            "    # Only files with the hashes of the lock, from any index that the build machine has (PIP_INDEX_URL,",
            "    # PIP_FIND_LINKS, UV_INDEX, …): a hash says which file it is, so it does not matter where it comes from.",
        ]
        options += ["--require-hashes", "--index-strategy unsafe-best-match"]
    options += ["--no-deps"] if needs.complete else []
    options += ["--constraint constraints.txt"] if needs.constraints else []
    command = " ".join(["    $uv", *options, "--requirement requirements.txt"])
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
        lines += ["    # Commits of git repositories: git itself checks that it got them.", "    $uv --no-deps --requirement direct.txt"]
    return lines


def _bound(needs: Needs) -> list[str]:
    places = " ".join(f"{CODE}/{place}".rstrip("/") for place in source_folders(needs))
    return [
        f"    # The project's own code stays outside: bind its folder to {CODE}, and Python finds its packages there.",
        f"    printf '%s\\n' {places} \\",
        '        >"$("$python" -c \'import sysconfig; print(sysconfig.get_path("purelib"))\')/project.pth"',
    ]


def source_folders(needs: Needs) -> tuple[str, ...]:
    """Return the folders with the project's packages, relative to the project."""
    joined = ("/".join(part for part in (code.folder, code.source) if part not in ("", ".")) for code in needs.own)
    return tuple(dict.fromkeys(joined))


def _code_folders(needs: Needs) -> tuple[str, ...]:
    folders = [code.folder for code in needs.own] or ["."]
    return tuple("code" if folder == "." else f"code/{folder}" for folder in folders)
