"""Find out whether an image has a %test, by reading the SIF without an engine.

Engines store %test as ``/.singularity.d/test``, and since Singularity 3.6 also in a JSON object of the SIF
(sylabs/singularity, pkg/inspect). For a SIF without this object, ``inspect`` would run the image's own shell.
"""

from __future__ import annotations

from os import SEEK_END
from pathlib import Path
from typing import Any, BinaryIO

from factory import strict
from factory.io import plain
from factory.sif.header import SifObject, read_sif_header
from factory.sif.tree import open_tree

_IN_IMAGE = "/.singularity.d/test"
_JSON = 0x4006  # the data type of a JSON object
_METADATA = "inspect-metadata.json"
_LARGEST_SCRIPT = 1 << 20  # bytes


def has_own_test(image: Path) -> bool:
    """Return whether a SIF file has a %test with any command.

    Raises IntegrityFailure if it is not a valid SIF or its metadata is broken, FilesUnknown if it has no metadata
    and its files cannot be read either, OSError.
    """
    with plain.reading(image) as file:
        objects = read_sif_header(file, file.seek(0, SEEK_END), image.name).objects
        metadata = next((one for one in objects if (one.kind, one.name) == (_JSON, _METADATA)), None)
        if metadata is not None:
            return _has_commands(_script(_attributes(file, metadata)))
    with open_tree(image) as tree:
        entry = tree.get(_IN_IMAGE)
        if entry is None:
            return False
        if entry.inode.kind != "file":
            return True  # a link made by the recipe: running the test will tell
        return _has_commands(tree.head(entry, _LARGEST_SCRIPT).decode(errors="replace"))


def _attributes(file: BinaryIO, metadata: SifObject) -> dict[str, Any]:
    file.seek(metadata.offset)
    content = file.read(min(metadata.size, strict.DOCUMENT_LIMIT + 1))
    return strict.mapping(strict.mapping(strict.json_object(content).get("data", {})).get("attributes", {}))


def _script(attributes: dict[str, Any]) -> str:
    script = attributes.get("test", "")
    if not isinstance(script, str):
        raise strict.Malformed("its %test is not text")
    return script


def _has_commands(script: str) -> bool:
    return any(line.strip() and not line.startswith("#!") for line in script.splitlines())
