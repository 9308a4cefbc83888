"""Targets: a Dockerfile, what it copies, and the image that a builder made of one."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from factory.build.dockerfile import read_settings
from factory.check.readiness.running import is_worth_starting, judged
from factory.oci.digest import Descriptor
from factory.recipes.definition.parser import scan
from factory.recipes.dockerfile import build, ignore, scaffold
from factory.recipes.dockerfile import parser as dockerfiles
from factory.recipes.dockerfile.archives import unpacking
from factory.recipes.dockerfile.context import Context, Source
from factory.recipes.dockerfile.rewrite import rewritten
from factory.recipes.dockerfile.source_tree import Tree
from factory.recipes.dockerfile.translate import translate
from factory.recipes.lint.lint import lint, scripts
from factory.recipes.load import load_recipe
from factory.recipes.model import Place, Recipe
from factory.recipes.scaffold import create
from factory.registry.protocol import MANIFEST
from tests.attacks.fuzzing.target import Target

_CASES = Path(__file__).resolve().parents[2] / "dockerfiles"
_SEEDS = (
    *("01-run-forms", "06-arg-scopes", "12-copy-globs", "13-copy-links-and-modes", "18-multi-stage"),
    *("24-here-documents-run", "25-here-documents-copy", "26-shell", "28-entrypoint-shell", "32-labels-and-metadata"),
    *("36-mounts", "37-secrets", "38-add", "40-directives", "43-copy-parents-exclude", "44-substitutions"),
)
_TOML = '[recipe]\nname = "tool"\nversion = "1"\nsummary = "s"\n[build]\ndockerfile = "Dockerfile"\n'
_ARCHIVE = "archive.tar.gz"


def _context(place: Path) -> Path:
    """A recipe's folder with the files that all seeds copy."""
    folder = place / "recipes/tool"
    for path, content in _files().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


@lru_cache
def _files() -> Mapping[str, bytes]:
    found = {"recipe.toml": _TOML.encode()}
    for name in _SEEDS:
        paths = (path for path in (_CASES / name).rglob("*") if path.is_file() and "Dockerfile" not in path.name)
        found |= {path.relative_to(_CASES / name).as_posix(): path.read_bytes() for path in paths}
    return found


def _dockerfiles(_place: Path) -> Sequence[bytes]:
    return [(_CASES / name / "Dockerfile").read_bytes() for name in _SEEDS]


def _checked(folder: Path) -> Recipe:
    """The recipe, after all that `lint` does with it."""
    for problem in lint(folder, []):
        str(problem).encode()
        assert "\n" not in str(problem)
    for script in scripts(folder):
        script.body.encode()
    return load_recipe(folder)


def _dockerfile(data: bytes, place: Path) -> None:
    """Lint it, and read it again as builders get it."""
    folder = _context(place)
    (folder / "Dockerfile").write_bytes(data)
    recipe = _checked(folder)
    planned = build.plan(recipe, "amd64")
    assert set(build.inputs(recipe, "amd64")) == {"definition", "files", "rules"}
    for entry in planned.entries:
        assert (folder / entry.path).resolve().is_relative_to(folder)
    for here_documents in (True, False):
        text = rewritten(planned.target, ("TZ",), here_documents=here_documents)
        again = dockerfiles.parse(text.text, folder / "Dockerfile")
        assert len(again.stages) == len(planned.target.stages)
        assert [len(stage.instructions) + 1 for stage in again.stages] == [len(lines) for lines in text.lines]
        for name in text.documents:
            assert not name.startswith("/")
            assert ".." not in name.split("/")


def _converted(data: bytes, place: Path) -> None:
    """Translate it; what comes out has no mistake that lint reports as one of its form."""
    folder = _context(place)
    file = folder / "Dockerfile"
    file.write_bytes(data)
    found = translate(dockerfiles.read(folder, "Dockerfile"), Tree(folder, "Dockerfile"), {})
    for problem in (*found.losses, *found.notes):
        str(problem).encode()
        assert "\n" not in str(problem)
    definition, problems = scan(found.text, folder / "image.def")
    assert not problems
    assert not definition.variables()
    (folder / "image.def").write_text(found.text, encoding="utf-8")
    (folder / "recipe.toml").write_text(_TOML.replace('dockerfile = "Dockerfile"', 'definition = "image.def"'))
    errors = [problem for problem in lint(folder, []) if not problem.warning]
    assert not [problem for problem in errors if problem.rule in ("", "here-documents", "structure")], errors


def _scaffold(data: bytes, place: Path) -> None:
    """The recipe of `new --dockerfile` can be read and checked."""
    folder = _context(place)
    (folder / "Dockerfile").write_bytes(data)
    found = scaffold.read(folder / "Dockerfile", folder, "tool", target="", args={})
    made = create(place / "made", "tool", found.content, executable=found.executable, links=found.links)
    recipe = _checked(made)
    assert recipe.tests
    build.plan(recipe, "amd64")


def _ignored(data: bytes, place: Path) -> None:
    folder = _context(place)
    (folder / ".dockerignore").write_bytes(data)
    found = ignore.read(folder, "Dockerfile")
    for path in ("a", "src/main.py", "/".join("a" * 60), "a/.git/x", "é/\u202e"):
        found.hides(path)
    context = Context(folder, "Dockerfile")
    context.digests(context.entries([Source("COPY", ".", 1), Source("COPY", "*/*", 2)]))
    Tree(folder).find(".", Place(folder / "Dockerfile", 1))


def _ignoring(_place: Path) -> Sequence[bytes]:
    cases = [path.read_bytes() for path in sorted(_CASES.glob("*/.dockerignore"))]
    return [*cases, b"# all but\n*\n!src\n!**/*.py\nsrc/**/x?[a-c]\n/a**b\n\\!x\n"]


def _archives(_place: Path) -> Sequence[bytes]:
    """Archives as ADD finds them: what is looked at is the beginning of each."""
    plain = (_CASES / "38-add/plain.tar").read_bytes()
    packed = (gzip.compress(plain, mtime=0), bz2.compress(plain), lzma.compress(plain))
    return [plain, *packed, b"\x28\xb5\x2f\xfd" + plain[:100]]


def _archive(data: bytes, place: Path) -> None:
    folder = place / "context"
    folder.mkdir()
    for name in (_ARCHIVE, "x.tar.zst"):
        (folder / name).write_bytes(data)
        assert unpacking(folder, name) in ("", "-xf", "-xzf", "-xjf", "-xJf", "--zstd -xf")
    text = f"FROM debian:12\nADD {_ARCHIVE} /opt/\n"
    (folder / "Dockerfile").write_text(text)
    translate(dockerfiles.read(folder, "Dockerfile"), Tree(folder, "Dockerfile"), {})


def _configurations(_place: Path) -> Sequence[bytes]:
    whole: dict[str, object] = {
        "Entrypoint": ["/bin/sh", "-c", "exec app"],
        "Cmd": ["--help", ""],
        "WorkingDir": "/opt/app",
        "User": "1000:app",
        "Volumes": {"/data": {}, "/var/lib/x y": {}},
        "Env": ["PATH=/bin", "A=b"],
        "OnBuild": None,
    }
    return [json.dumps({"architecture": "amd64", "os": "linux", "config": config}).encode() for config in (whole, {})]


def _configuration(data: bytes, place: Path) -> None:
    """An image whose digests are right, as the program that wrote it chose them."""
    layout = place / "layout"
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)
    config = Descriptor.of("application/vnd.oci.image.config.v1+json", data)
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config.to_json(), "layers": []})
    described = Descriptor.of(MANIFEST, manifest.encode())
    (blobs / config.digest.hex).write_bytes(data)
    (blobs / described.digest.hex).write_text(manifest)
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described.to_json()]}))
    settings = read_settings(layout)
    made = _recipe(place)
    for has_shell in (True, False):
        text = build.last_step(made, settings, 0, has_shell=has_shell).text()
        definition, problems = scan(text, made.definition_path)
        assert not problems
        assert len(definition.stages) == 1
    build.run_script(settings).encode()


def _layout_index(data: bytes, place: Path) -> None:
    layout = place / "layout"
    layout.mkdir()
    (layout / "index.json").write_bytes(data)
    read_settings(layout)


def _runscript(data: bytes, _place: Path) -> None:
    text = data.decode("utf-8", "replace")
    assert is_worth_starting(text) in (True, False)
    for failed in (True, False):
        for finding in judged(text, failed=failed):
            assert str(finding).isprintable()


def _runscripts(_place: Path) -> Sequence[bytes]:
    settings = build.Settings(("/bin/sh", "-c"), ("exec app 'x y'",), "/opt/x")
    return [
        build.run_script(settings).encode(),
        b'#!/bin/sh\nOCI_ENTRYPOINT=\'"/bin/sh"\'\nOCI_CMD=\'"-c" "x"\'\n',
        b'#!/bin/sh\nexec /bin/bash --login "$@"\n',
        b"touch: /opt/x: Read-only file system\nbind() to 0.0.0.0:80 failed: Permission denied\nmust be run as root\n",
    ]


def _recipe(place: Path) -> Recipe:
    folder = place / "recipes/tool"
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(_TOML)
    (folder / "Dockerfile").write_text("FROM scratch\n")
    return load_recipe(folder)


_WORDS = (
    b"FROM scratch AS x\n",
    b"FROM x\n",
    b"FROM --platform=$BUILDPLATFORM a/b:1 AS b\n",
    b"RUN <<EOF\nx\nEOF\n",
    b"RUN <<-'EOF' cat\n",
    b"COPY <<a <<b /x/\na\nb\n",
    b"COPY --from=x /a /b\n",
    b"COPY --from=0 --chown=1:2 --chmod=755 . /x\n",
    b"COPY --parents ./*/x /\n",
    b"COPY --exclude=*.txt . /d/\n",
    b"ADD https://example.org/x /x\n",
    b"ADD archive.tar.gz /\n",
    b'COPY ["a b", "/c d"]\n',
    b'RUN ["sh", "-c", "x"]\n',
    b"RUN --mount=type=bind,source=.,target=/x true\n",
    b'RUN --mount="type=cache,""target=/x" true\n',
    b"RUN --mount=type=secret,id=a,env=B true\n",
    b"ARG A=1\n",
    b"ARG A\n",
    b"ENV A=b C='d e' F=\"$A\"\n",
    b"ENV A b c\n",
    b"WORKDIR $A/${B:-x}\n",
    b"${A:+b}",
    b"${A%%*x}",
    b"${A//a/b}",
    b"${A:-${A:-${A}}}",
    b'SHELL ["/bin/bash", "-c"]\n',
    b'ENTRYPOINT ["a"]\n',
    b"CMD a 'b\n",
    b"CMD []\n",
    b"USER a:b\n",
    b"VOLUME /a\n",
    b"LABEL a=b\n",
    b"ONBUILD RUN x\n",
    b"HEALTHCHECK NONE\n",
    b"# escape=`\n",
    b"# syntax=docker/dockerfile:1\n",
    b"\\\n",
    b"\\",
    b"$(",
    b"%post\n",
    b"{{ x }}",
    b"Bootstrap: docker\n",
    b"'",
    b'"',
    b"`",
    b"<<EOF",
    b"../../etc/passwd",
    b"\xee\x80\x80",
)
_IGNORE_WORDS = (b"**", b"*", b"!", b"!**/x", b"[", b"[a-", b"[^a]", b"?", b"/", b"..", b"a**b/", b"**/**/", b"\\")
_RUN_WORDS = (
    *(b"exec sh\n", b"exec 'x\n", b"OCI_CMD='a'\n", b"OCI_ENTRYPOINT=''\n", b"Read-only file system", b"/tmp/x"),
    *(b"permission denied", b"must be run as root", b"chown /x not permitted", b"EROFS", b"bind ", b"# x\n", b"\\\n"),
)

TARGETS = (
    Target("dockerfile", _dockerfile, _dockerfiles, "text", inputs=100, words=_WORDS),
    Target("dockerfile-to-convert", _converted, _dockerfiles, "text", inputs=100, words=_WORDS),
    Target("dockerfile-of-new", _scaffold, _dockerfiles, "text", inputs=80, words=_WORDS),
    Target("dockerignore", _ignored, _ignoring, "text", inputs=80, words=_IGNORE_WORDS),
    Target("archive-of-add", _archive, _archives, "sif", inputs=100),
    Target("configuration-of-a-built-image", _configuration, _configurations, "json", inputs=120),
    Target("runscript", _runscript, _runscripts, "text", inputs=120, words=_RUN_WORDS),
    Target("index-of-a-built-image", _layout_index, lambda _: [b'{"manifests": [{}]}'], "json", inputs=60),
)
