"""The files in `refs/`, one per recipe.

Format 2: `tags` holds the images that the links in `images/` follow, and is all that older versions read. An older
version that writes to the same store drops the rest, which can be resolved again. `others` holds all other images by
registry and tag. Format 1 had only `tags`, for all registries.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from factory import strict
from factory.errors import FactoryError, NoRoom
from factory.io import plain
from factory.io.below import Folder
from factory.oci.names import tag_name
from factory.store.records import ADOPTED, Records
from factory.store.refs import StoredImage

_FORMAT = 2
_LIMIT = 16 * 1024 * 1024  # bytes of a record; a tag takes about 500
_LIMIT_OF_OTHERS = _LIMIT // 2  # bytes of `others`, so that they cannot crowd out `tags`


def refs_file(root: Path, recipe: str) -> Path:
    """Return the path of a recipe's record in a store."""
    return root / "refs" / f"{recipe}.json"


def read_refs(root: Path, recipe: str) -> Records:
    """Read a store's records of a recipe; empty if nothing was pulled.

    An unreadable file, or a single unreadable tag, counts as missing: the record can be resolved again.
    """
    try:
        content = plain.read_plain(refs_file(root, recipe), _LIMIT)
        value = strict.json_object(content, _LIMIT)
        found = list(_images(recipe, value))
    except (OSError, FactoryError):
        return Records()
    by_registry: dict[str, dict[str, StoredImage]] = {}
    for tag, image in reversed(found):  # the first entry wins, because the links follow `tags`
        by_registry.setdefault(image.registry, {})[tag] = image
    home = value.get("home")
    if not isinstance(home, str) or home not in by_registry:
        pulled = [image for _, image in found if image.registry != ADOPTED]
        home = min(pulled, key=lambda image: image.pulled).registry if pulled and "home" not in value else ""
    unasked = value.get("unasked")
    known = (one for one in (unasked if isinstance(unasked, list) else ()) if isinstance(one, str))
    return Records(by_registry, home, frozenset(known) & by_registry.keys())


def write_refs(refs: Folder, recipe: str, records: Records, registry: str) -> None:
    """Replace a recipe's record atomically. refs: the open folder; registry: see ``Records.links``. Raises NoRoom."""
    links = records.links(registry)
    others: dict[str, dict[str, Any]] = {}
    for tag, image in records:
        if links.get(tag) != image:
            others.setdefault(image.registry, {})[tag] = image.to_json()
    value = {
        "format": _FORMAT,
        "home": records.home,
        "tags": {tag: image.to_json() for tag, image in sorted(links.items())},
        "others": others,
        "unasked": sorted(records.unasked),
    }
    content = json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"
    if len(content) > _LIMIT or len(json.dumps(others)) > _LIMIT_OF_OTHERS:
        raise NoRoom(
            f"the store's record of {recipe} is full",
            why=f"{len(records.images)} tags would take {len(content)} bytes",
            fix="remove images that you no longer use: singfactory store gc --keep 10",
        )
    refs.write(f"{recipe}.json", content)


def _images(recipe: str, value: dict[str, Any]) -> Iterator[tuple[str, StoredImage]]:
    """Yield every readable tag. Raises Malformed if the document as a whole is wrong."""
    others = strict.mapping(value.get("others", {}))
    for tags in (strict.member(value, "tags"), *others.values()):
        for tag, one in (tags if isinstance(tags, dict) else {}).items():
            image = _image(tag, one)
            if image is not None and image.recipe == recipe:
                yield tag, image


def _image(tag: str, value: object) -> StoredImage | None:
    try:
        tag_name(tag)
        return StoredImage.from_json(value)
    except FactoryError:
        return None
