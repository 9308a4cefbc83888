"""Whether an image has a %test of its own, read from the SIF: nothing is mounted, and no engine is asked.

Engines keep %test as ``/.singularity.d/test``, and since Singularity 3.6 its text as well in a JSON object of the SIF
(sylabs/singularity, pkg/inspect). Of a file without that object, ``inspect`` runs the image's own shell to learn it.
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
_JSON = 0x4006  # the data type of an object of JSON
_METADATA = "inspect-metadata.json"
_LARGEST_SCRIPT = 1 << 20  # bytes


def has_own_test(image: Path) -> bool:
    """Whether a SIF file has a %test that says anything.

    Raises IntegrityFailure when it is not a sound SIF or its metadata are broken, FilesUnknown when it has no metadata
    and its files cannot be read either, OSError.
    """
    with plain.reading(image) as file:
        objects = read_sif_header(file, file.seek(0, SEEK_END), image.name).objects
        metadata = next((one for one in objects if (one.kind, one.name) == (_JSON, _METADATA)), None)
        if metadata is not None:
            return _says_anything(_script(_attributes(file, metadata)))
    with open_tree(image) as tree:
        entry = tree.get(_IN_IMAGE)
        if entry is None:
            return False
        if entry.inode.kind != "file":
            return True  # a link that the recipe made: running it will show
        return _says_anything(tree.head(entry, _LARGEST_SCRIPT).decode(errors="replace"))


def _attributes(file: BinaryIO, metadata: SifObject) -> dict[str, Any]:
    file.seek(metadata.offset)
    content = file.read(min(metadata.size, strict.DOCUMENT_LIMIT + 1))
    return strict.mapping(strict.mapping(strict.json_object(content).get("data", {})).get("attributes", {}))


def _script(attributes: dict[str, Any]) -> str:
    script = attributes.get("test", "")
    if not isinstance(script, str):
        raise strict.Malformed("its %test is not text")
    return script


def _says_anything(script: str) -> bool:
    return any(line.strip() and not line.startswith("#!") for line in script.splitlines())
