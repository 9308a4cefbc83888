"""Lock files: the images of an experiment by digest, so that the same bytes can be fetched years later."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from factory import strict
from factory.errors import FactoryError, IntegrityFailure, NotFound, PlaceUnusable, UsageError
from factory.io import plain
from factory.io.files import system_error
from factory.oci.digest import Digest
from factory.oci.names import BuildTag, Reference, RegistryAddress, recipe_name, tag_name
from factory.store.refs import StoredImage

_FORMAT = 1
_LIMIT = 1024 * 1024  # bytes; about 2,500 images
_LINE_LIMIT = 4096  # bytes
# A dot before any = or quote, or a quoted key: nested keys, which take quadratic time to parse.
_NESTED = re.compile(rb"^(?:[^=\"'#\n]*\.|[ \t\[]*[\"'])", re.MULTILINE)
_FIX = "fix that line, or write a new lock file: singfactory lock REF -o FILE"


@dataclass(frozen=True)
class LockedImage:
    """One image of a lock file. digest: of the manifest; size: bytes; date: when it was locked, ISO 8601, UTC."""

    name: str
    registry: str
    tag: str
    digest: Digest
    sif_digest: Digest
    size: int
    date: str

    @classmethod
    def of(cls, image: StoredImage, date: str) -> LockedImage:
        """Return the lock entry of an image. Raises UsageError if the image is in no registry."""
        if not image.registry:
            raise UsageError(
                f"{image.recipe}:{image.tag} cannot be locked",
                why="it was adopted from a file and is in no registry",
                fix="publish it, and lock the published image",
            )
        return cls(image.recipe, image.registry, image.tag, image.digest, image.sif_digest, image.size, date)

    @property
    def reference(self) -> Reference:
        """The reference to fetch: the manifest's digest, never the tag."""
        return Reference(self.name, digest=self.digest)

    def is_same(self, other: LockedImage) -> bool:
        """Return whether both entries are for the same image of the same registry."""
        return (self.registry, self.name, self.digest) == (other.registry, other.name, other.digest)

    def matches(self, reference: Reference) -> bool:
        """Return whether a user's reference names this image."""
        return (
            reference.name == self.name
            and reference.tag in ("", self.tag)
            and reference.digest in (None, self.digest)
            and (reference.registry is None or str(reference.registry) == self.registry)
        )


@dataclass(frozen=True)
class Change:
    """An entry that a lock file got. before: the entry in its place until then, or None if it was added."""

    entry: LockedImage
    before: LockedImage | None


def merge(
    entries: Iterable[LockedImage], named: Iterable[tuple[Reference, LockedImage]]
) -> tuple[tuple[LockedImage, ...], tuple[Change, ...]]:
    """Add images to the entries of a lock file, or update their entries. All other entries stay.

    named: the images, each with the reference that the user gave. A reference updates the one entry that it covers: of
    the same registry and name and, if it has a tag, of that tag or version. If it covers several, none of them is lost:
    the image is added. An entry with the image's digest stays as it is.
    """
    result = list(entries)
    free = set(range(len(result)))  # entries that no earlier reference has updated
    changes = []
    for reference, image in named:
        same = [number for number, entry in enumerate(result) if entry.is_same(image)]
        at = same or [number for number in sorted(free) if _covers(reference, image, result[number])]
        if len(at) != 1:
            changes.append(Change(image, None))
            result.append(image)
            continue
        before = result[at[0]]
        result[at[0]] = before if replace(image, date=before.date) == before else image
        changes.append(Change(result[at[0]], before))
        free -= {at[0]}
    return tuple(result), tuple(changes)


def _covers(reference: Reference, image: LockedImage, entry: LockedImage) -> bool:
    """Return whether a reference covers an entry: no tag and ``latest`` cover all tags, ``1.0`` covers ``1.0-N``."""
    if (entry.registry, entry.name) != (image.registry, image.name) or reference.digest is not None:
        return False
    build = BuildTag.parse(entry.tag)
    return reference.tag in ("", "latest", entry.tag, build.version if build else entry.tag)


def render(images: Iterable[LockedImage]) -> str:
    """Return the file's text: TOML, one table per image, deterministic. Raises UsageError if it would be too large."""
    parts = [f"# Images by digest: singfactory pull --locked FILE fetches exactly these.\nformat = {_FORMAT}\n"]
    for image in images:
        fields = {key: str(getattr(image, key)) for key in ("name", "registry", "tag", "digest", "sif_digest")}
        lines = [f"{key} = {json.dumps(text, ensure_ascii=False)}" for key, text in fields.items()]
        parts.append("\n".join(["[[image]]", *lines, f"size = {image.size}", f'date = "{image.date}"']) + "\n")
    text = "\n".join(parts)
    if len(text.encode()) > _LIMIT:
        raise UsageError("too many images for one lock file", why=f"it has at most {_LIMIT} bytes", fix="use several")
    return text


def read(path: Path) -> tuple[LockedImage, ...]:
    """Read a lock file. Raises UsageError with the file and the key, NotFound, and the errors of system_error."""
    try:
        content = plain.read_plain(path, _LIMIT, follow=True)  # the user named it, so it may be a link
    except FileNotFoundError as error:
        raise NotFound(f"there is no lock file {path}", fix=f"singfactory lock REF -o {path}") from error
    except plain.NotPlainError as error:
        raise UsageError(f"cannot read the lock file {path}", why=f"it {error.how}", fix=error.fix) from error
    except OSError as error:
        raise system_error(error, path) from error
    return parse(content, str(path))


def read_for_update(path: Path) -> tuple[LockedImage, ...]:
    """Read the lock file that is to be updated; no entries if there is no file, or an empty one.

    Raises PlaceUnusable if the file is anything else than a lock file, NotPermitted if it cannot be read.
    """
    try:
        is_empty = path.is_file() and path.stat().st_size == 0
        return () if is_empty else read(path)
    except NotFound:
        return ()
    except UsageError as error:
        raise PlaceUnusable(
            f"{path} is in the way: it cannot be read as a lock file",
            why=f"{error.what}: {error.why}" if error.why else error.what,
            fix="name another file with -o, or move this one",
        ) from error


def parse(content: bytes, source: str) -> tuple[LockedImage, ...]:
    """Parse the content of a lock file. source: the file's name for messages. Raises UsageError."""
    document = _document(content, source)
    if type(document.get("format")) is not int or document["format"] != _FORMAT:
        raise _wrong(source, "format", f"expected {_FORMAT}", fix="update singfactory on this machine")
    _no_others(source, "", document, ("format", "image"))
    tables = document.get("image", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise _wrong(source, "image", "write [[image]] above each image")
    images = tuple(_image(table, source, f"image[{number}].") for number, table in enumerate(tables, 1))
    if len({(image.registry, image.name, image.digest) for image in images}) < len(images):
        raise _wrong(source, "image", "the same image is listed twice")
    return images


def select(images: Iterable[LockedImage], references: Iterable[Reference], source: str) -> tuple[LockedImage, ...]:
    """Return the locked images that the references name, or all of them without references. Raises NotFound."""
    images = tuple(images)
    chosen: dict[LockedImage, None] = {}
    wanted = tuple(references)
    for reference in wanted:
        found = [image for image in images if image.matches(reference)]
        if not found:
            names = ", ".join(f"{image.name}:{image.tag}" for image in images[:8])
            raise NotFound(f"{reference} is not in {source}", why=f"the file has {names or 'no images'}")
        chosen |= dict.fromkeys(found)
    return tuple(chosen) if wanted else images


def _document(content: bytes, source: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):  # imported here, as in factory.cli.settings: most commands read no TOML
        import tomllib  # noqa: PLC0415
    else:
        import tomli as tomllib  # noqa: PLC0415
    if _NESTED.search(content) or any(len(line) > _LINE_LIMIT for line in content.splitlines()):
        raise UsageError(f"{source} is not a lock file", why="it has nested keys, or very long lines", fix=_FIX)
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise UsageError(f"{source} is not a lock file", why="it is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{source} is not a lock file", why=f"not TOML: {error}", fix=_FIX) from error
    except (RecursionError, ValueError) as error:  # too deeply nested; a number with thousands of digits
        raise UsageError(f"{source} is not a lock file", why="it exceeds the parser's limits", fix=_FIX) from error


def _image(table: Mapping[str, Any], source: str, where: str) -> LockedImage:
    def text(key: str, check: Callable[[str], object]) -> str:
        value = table.get(key)
        if not isinstance(value, str):
            raise _wrong(source, where + key, "it is missing" if value is None else "expected a string")
        try:
            check(value)
        except FactoryError as error:
            raise _wrong(source, where + key, str(error)) from error
        except ValueError as error:
            raise _wrong(source, where + key, f"not a date: {value[:60]!a}") from error
        return value

    _no_others(source, where, table, tuple(LockedImage.__dataclass_fields__))
    size = table.get("size")
    if type(size) is not int or not 0 <= size <= strict.LARGEST_SIZE:
        raise _wrong(source, f"{where}size", "expected a number of bytes")
    return LockedImage(
        name=text("name", recipe_name),
        registry=text("registry", _same_address),
        tag=text("tag", tag_name),
        digest=Digest.parse(text("digest", Digest.parse)),
        sif_digest=Digest.parse(text("sif_digest", Digest.parse)),
        size=size,
        date=text("date", lambda value: datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ")),  # noqa: DTZ007 - checked only
    )


def _same_address(text: str) -> None:
    """Raise IntegrityFailure unless the registry's address is in its normal form."""
    if str(RegistryAddress.parse(text)) != text:
        raise IntegrityFailure("not in the normal form", why=f"expected {RegistryAddress.parse(text)}")


def _no_others(source: str, where: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            raise _wrong(source, where + ascii(key[:60]), f"unknown key; the known ones are {', '.join(known)}")


def _wrong(source: str, key: str, why: str, fix: str = _FIX) -> UsageError:
    return UsageError(f"{source}: {key} is wrong", why=why, fix=fix)
