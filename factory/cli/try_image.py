"""`singfactory try`: run the image of a pull request that is not published."""

from __future__ import annotations

import argparse
import errno
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from factory.cli import github_access
from factory.cli.context import Context, common_arguments
from factory.cli.network import http_settings
from factory.cli.options import CommonOptions
from factory.cli.run_options import GPU_OPTIONS
from factory.cli.terminal import say_path
from factory.engine import container
from factory.engine.machine import gpu_present, rights
from factory.errors import IntegrityFailure, NotFound, UsageError
from factory.github.artifacts import Artifact, Artifacts, PullRequest
from factory.io import files, plain
from factory.io.http.client import Client
from factory.io.progress import step
from factory.oci.digest import Digest
from factory.oci.names import NAME_LIMIT, recipe_name
from factory.recipes.document import ARCHITECTURES
from factory.records import candidate
from factory.records.record import Record
from factory.sif.header import HEADER_SIZE, begins_like_sif
from factory.sif.needs import Needs
from factory.store import tried

_RECORD_LIMIT = 64 * 1024  # bytes of candidate.json
_BLOCK = 1 << 20
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of GitHub's artifacts
_CONTAINED = ("--containall", "--no-home")


@dataclass(frozen=True)
class TryOptions(CommonOptions):
    """Options of `singfactory try`."""

    what: str
    recipe: str | None
    bind: Sequence[str]
    no_gpu: bool
    trust: bool
    arguments: Sequence[str]


@dataclass(frozen=True)
class Tried:
    """An unpublished image. origin: where it comes from, for people."""

    path: Path
    digest: Digest
    origin: str
    needs: Needs = field(default_factory=Needs)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("what", metavar="PULL_REQUEST|FILE", help="number of a pull request, an artifact (.zip), a SIF")
    parser.add_argument("arguments", metavar="-- PROGRAM ...", nargs=argparse.REMAINDER, help="default: print its path")
    parser.add_argument("--recipe", metavar="NAME", help="which image, if the pull request changes several recipes")
    parser.add_argument("-B", "--bind", action="append", default=[], metavar="SRC[:DEST]", help="bind a path")
    parser.add_argument("--no-gpu", action="store_true", help="run it without a GPU")
    parser.add_argument(
        "--trust", action="store_true", help="run it like a published image: it sees your home, environment, processes"
    )
    common_arguments(parser, TryOptions, store=True)


def run(options: TryOptions) -> int:
    """Fetch the image, say whose it is, and replace this process by the engine; without a program, print its path."""
    context = Context(options)
    words = list(options.arguments)
    words = words[1:] if words[:1] == ["--"] else words
    if words and words[0].startswith("-"):
        raise UsageError(
            f"{words[0]} is not a program",
            why="options come before the pull request",
            fix=f"singfactory try {words[0]} … {options.what} -- PROGRAM",
        )
    found = _found(context, options)
    context.progress.note(f"not published: {found.origin} ({found.digest})")
    tried.use(context.store, found.path, found.digest, context.job)
    if not words:
        say_path(found.path)
        return 0
    return _become(context, options, found, words)


def _become(context: Context, options: TryOptions, found: Tried, words: Sequence[str]) -> int:
    """Replace this process by the engine. Returns only by raising an error."""
    if not options.trust:
        context.progress.note("it does not see your home, environment or processes; --trust shows them to it")
    start = container.start(
        context.program,
        env=context.env,
        recipe_env={},
        options=_engine_options(options, found),
        cwd=Path.cwd(),
        messages=container.message_options(context.env, quiet=options.quiet, verbose=options.verbose),
    )
    container.become(context.program, "exec", found.path, words, start=start, rights=rights())


def _engine_options(options: TryOptions, found: Tried) -> Sequence[str]:
    kind = "nvidia" if found.needs.cuda else "rocm" if found.needs.rocm else ""
    gpu = [GPU_OPTIONS[kind]] if kind and kind == gpu_present() and not options.no_gpu else []
    binds = [word for bind in options.bind for word in ("--bind", bind)]
    return [*(() if options.trust else _CONTAINED), *gpu, *binds]


def _found(context: Context, options: TryOptions) -> Tried:
    path = Path(options.what)
    if options.what.isascii() and options.what.isdigit() and len(options.what) < 10:  # noqa: PLR2004
        return _of_pull_request(context, int(options.what), options.recipe or "")
    if not path.is_file():
        raise NotFound(
            f"{options.what} is neither a pull request's number nor a file",
            fix="singfactory try 12 -- PROGRAM, or: singfactory try ARTIFACT.zip -- PROGRAM",
        )
    if zipfile.is_zipfile(path):
        return _of_archive(context, path, f"the artifact {path}")
    return _of_sif(context, path)


def _of_pull_request(context: Context, number: int, recipe: str) -> Tried:
    api, repository, token = github_access.reading(context)
    github = Artifacts(api, repository, token, Client(http_settings(context.settings), context.progress.note))
    request = github.pull_request(number)
    artifact = _chosen(github.images(request), request, recipe, context.arch)
    with files.temporary_in(tried.folder(context.store), "artifact") as archive:
        files.require_space(archive.parent, 2 * artifact.size, f"to try {artifact.name}")
        github.download(artifact, archive, context.progress)
        return _of_archive(context, archive, _whose(request, artifact), expected=artifact.name)


def _whose(request: PullRequest, artifact: Artifact) -> str:
    fork = f", from the fork {request.source or '(deleted)'}, which nobody may have reviewed" if request.is_fork else ""
    return f"{artifact.name} of pull request {request.number} by {request.author}, commit {request.head[:12]}{fork}"


def _chosen(images: Sequence[Artifact], request: PullRequest, recipe: str, arch: str) -> Artifact:
    """Return the image for this machine. Raises NotFound, UsageError for several."""
    here = [image for image in images if image.name.endswith(f"-{arch}")]
    names = [image.name.removesuffix(f"-{arch}") for image in here]
    fitting = [image for image, name in zip(here, names) if recipe in ("", name)]
    if len(fitting) > 1:
        fix = f"name one: singfactory try --recipe {names[0]} {request.number} …"
        raise UsageError(f"pull request {request.number} has several images", why=", ".join(names), fix=fix)
    if not fitting or fitting[0].expired:
        raise NotFound(
            f"pull request {request.number} has no image{f' of {recipe}' if recipe else ''} for {arch}",
            why="GitHub has deleted it: artifacts are kept for a few days" if fitting else ", ".join(names),
            fix=f"run its checks again: gh pr checks {request.number} shows them",
        )
    return fitting[0]


def _of_archive(context: Context, archive: Path, origin: str, expected: str = "") -> Tried:
    """Take the image out of a workflow's artifact, and verify it against the build record next to it."""
    with files.temporary_folder(tried.folder(context.store), "unpacked") as folder:
        try:
            with zipfile.ZipFile(archive) as packed:
                name = _unpack(packed, folder)
        except (*_DAMAGED, KeyError, RuntimeError, ValueError, NotImplementedError, UsageError) as error:
            why = str(error)[:200] or "it ends too early"
            raise IntegrityFailure(f"{origin} cannot be unpacked", why=why, fix="download it again") from error
        except OSError as error:
            if error.errno != errno.EINVAL:  # of a seek to where the archive says that a file begins
                raise
            raise IntegrityFailure(f"{origin} is damaged", fix="download it again") from error
        made = candidate.load(folder, *name.rsplit("-", 1))
        if expected not in ("", name):
            raise IntegrityFailure(f"{origin} holds another image: {name}", fix="do not run it")
        candidate.require_intact(made, context.progress)
        return Tried(tried.keep(context.store, made.image, made.sif.digest), made.sif.digest, origin, made.needs)


def _unpack(packed: zipfile.ZipFile, folder: Path) -> str:
    """Write record and image of an artifact to a candidate's folder, each with its stated size; return its name."""
    if any(packed.getinfo(name).compress_type not in _METHODS for name in ("candidate.json", "image.sif")):
        raise ValueError("its files are not packed as in GitHub's artifacts")
    content = packed.open("candidate.json").read(_RECORD_LIMIT)
    probe = folder / "record"
    files.atomic_write(probe, content)
    record = Record.read(probe, _RECORD_LIMIT)
    name, arch = recipe_name(record.text("recipe", NAME_LIMIT)), record.text("arch", 10)
    if arch not in ARCHITECTURES:
        raise ValueError("its build record names no architecture")
    size = record.size("size")
    files.require_space(folder, size, "to unpack the image")
    place = candidate.folder_of(folder, name, arch)
    files.make_folder(place)
    files.atomic_write(place / "candidate.json", content)
    with packed.open("image.sif") as source, files.create(place / "image.sif") as image:
        left = size
        while left and (block := source.read(min(left, _BLOCK))):
            image.write(block)
            left -= len(block)
    return f"{name}-{arch}"


def _of_sif(context: Context, path: Path) -> Tried:
    with path.open("rb") as file:
        if not begins_like_sif(file.read(HEADER_SIZE)):
            raise UsageError(f"{path} is not an image", why="it is neither a SIF nor a zip archive")
    with files.temporary_in(tried.folder(context.store), "image") as copy:
        files.require_space(copy.parent, path.stat().st_size, f"to try {path.name}")
        with step(context.progress, f"copy {path.name}", path.stat().st_size) as advance:
            plain.copy_file(path, copy, advance=advance)
        digest, _ = plain.digest_of(copy)
        return Tried(tried.keep(context.store, copy, digest), digest, f"the file {path}")
