"""A stage of a definition file in the making: what `%files` copies, and what `%post` runs, in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from factory.recipes.dockerfile.shell import value

COPIED = "/.copied"  # holds files until their moment in %post
_AT_ONCE = 40 * 1024  # bytes of a section; the engine reads up to 64 KiB

HELPERS = {
    "put": """\
put() ( # DESTINATION SOURCE...: as COPY does, of a folder its content
    to=$1
    shift
    for from; do
        if [ ! -d "$from" ]; then
            case $to in */) mkdir -p "$to" ;; *) mkdir -p "$(dirname "$to")" ;; esac
            cp -a "$from" "$to"
        elif [ -d "$to" ]; then
            for one in "$from"/* "$from"/.[!.]* "$from"/..?*; do
                if [ -e "$one" ] || [ -L "$one" ]; then cp -a "$one" "$to"; fi
            done
        else
            mkdir -p "$(dirname "$to")"
            cp -a "$from" "${to%/}"
        fi
    done
)
""",
    "cover": f"""\
cover() {{ # PATH: puts aside what is there, as a mount does
    [ ! -e "$1" ] || {{ mkdir -p "$(dirname "{COPIED}/aside$1")" && mv "$1" "{COPIED}/aside$1"; }}
}}
uncover() {{
    rm -rf "$1"
    [ ! -e "{COPIED}/aside$1" ] || mv "{COPIED}/aside$1" "$1"
}}
""",
    "keep": """\
keep() { # NAME: keeps the value of a variable for the image
    eval "set -- \\"\\$1\\" \\"\\$$1\\""
    printf "export %s='%s'\\\\n" "$1" "$(printf %s "$2" | sed "s/'/'\\\\\\\\''/g")" >>"$APPTAINER_ENVIRONMENT"
}
""",
    "fetch": """\
fetch() { # URL FILE
    if command -v curl >/dev/null; then curl -fsSL -o "$2" "$1"; else wget -q -O "$2" "$1"; fi
}
""",
}


@dataclass
class Sections:
    """The headers and sections of a stage. name: of `Stage:`. Each statement of `%post` is complete."""

    name: str
    headers: list[str]
    files: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    statements: list[str] = field(default_factory=list)
    helpers: dict[str, None] = field(default_factory=dict)
    environment: list[str] = field(default_factory=list)
    runscript: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    def copy(self, source: str, destination: str, stage: str = "") -> None:
        """Add a line to `%files`, or to `%files from STAGE`."""
        self.files.setdefault(stage, []).append((source, destination))

    def run(self, statement: str, *helpers: str) -> None:
        """Add a statement to `%post`."""
        # Lines that are commands by themselves are indented one by one.
        self.statements += statement.split("\n") if _is_flat(statement) else [statement]
        self.helpers.update(dict.fromkeys(helpers))

    def export(self, name: str, text: str) -> None:
        """Set a variable for the statements that follow."""
        self.run(f"export {name}={value(text)}")

    def text(self) -> str:
        """Return the stage's text."""
        parts = ["\n".join(self.headers) + "\n"]
        for stage, copies in self.files.items():
            head = f"%files from {stage}" if stage else "%files"
            parts += _sections(head, [f"    {_word(source)} {_word(destination)}\n" for source, destination in copies])
        if self.statements:
            parts += _sections("%post", self._post())
        for name in ("labels", "environment", "runscript"):
            lines = [f"    {line}\n" for line in getattr(self, name)]
            parts += _sections(f"%{name}", lines) if lines else []
        return "\n".join(parts)

    def _post(self) -> Iterator[str]:
        yield "    umask 022\n"
        for helper in self.helpers:
            yield _indented(HELPERS[helper])
        for statement in self.statements:
            yield _indented(statement + "\n")
        if any(COPIED in statement for statement in self.statements):
            yield f"    cd /\n    rm -rf {COPIED}\n"


def _is_flat(statement: str) -> bool:
    """Return whether each line of a statement is a whole command, without quotes or groups over several lines."""
    return not set(statement) & set("'\"(<`")


def _indented(text: str) -> str:
    """Return a statement with an indentation, unless a quoted text or a here-document has several lines."""
    lines = text.splitlines(keepends=True)
    free = len(lines) == 1 or text.startswith("(\n") or text in HELPERS.values()
    return "".join(f"    {line}" for line in lines) if free else text


def _sections(head: str, pieces: Iterator[str] | list[str]) -> list[str]:
    """Return one or more sections, none longer than the engine reads. The engine joins those of the same name."""
    found: list[str] = []
    body: list[str] = []
    size = 0
    for piece in pieces:
        if body and size + len(piece.encode()) > _AT_ONCE:
            found.append(f"{head}\n{''.join(body)}")
            body, size = [], 0
        body.append(piece)
        size += len(piece.encode())
    found.append(f"{head}\n{''.join(body)}")
    return found


def _word(path: str) -> str:
    return f'"{path}"' if " " in path else path
