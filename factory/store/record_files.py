"""The files below `refs/`, one a recipe.

Format 2. `tags` holds what the links in `images/` follow, and all that a version before this one understands; such a
version, writing into the same store, forgets the rest, which can be resolved again. `others` holds, by registry and
tag, all further images. Format 1 had `tags` alone, whatever registry they came from.
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
_LIMIT = 16 * 1024 * 1024  # bytes of a record; a tag takes some 500
_LIMIT_OF_OTHERS = _LIMIT // 2  # bytes for what the links do not follow: it must not crowd out the rest


def refs_file(root: Path, recipe: str) -> Path:
    """Where a store remembers the images of a recipe."""
    return root / "refs" / f"{recipe}.json"


def read_refs(root: Path, recipe: str) -> Records:
    """What a store remembers of a recipe; nothing when nothing was pulled.

    What cannot be read counts as nothing, a file as well as a single tag in it: it is a record of what can be resolved
    again, never the image.
    """
    try:
        content = plain.read_plain(refs_file(root, recipe), _LIMIT)
        value = strict.json_object(content, _LIMIT)
        found = list(_images(recipe, value))
    except (OSError, FactoryError):
        return Records()
    by_registry: dict[str, dict[str, StoredImage]] = {}
    for tag, image in reversed(found):  # what stands first wins: the links follow it
        by_registry.setdefault(image.registry, {})[tag] = image
    home = value.get("home")
    if not isinstance(home, str) or home not in by_registry:
        pulled = [image for _, image in found if image.registry != ADOPTED]
        home = min(pulled, key=lambda image: image.pulled).registry if pulled and "home" not in value else ""
    unasked = value.get("unasked")
    known = (one for one in (unasked if isinstance(unasked, list) else ()) if isinstance(one, str))
    return Records(by_registry, home, frozenset(known) & by_registry.keys())


def write_refs(refs: Folder, recipe: str, records: Records, registry: str) -> None:
    """Replace the record of a recipe in one step. refs: the folder of records; registry: as ``Records.links`` takes it.

    Raises NoRoom.
    """
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
            why=f"it would have {len(content)} bytes, for {len(records.images)} tags",
            fix="singfactory store gc --keep 10 forgets what was not used for long",
        )
    refs.write(f"{recipe}.json", content)


def _images(recipe: str, value: dict[str, Any]) -> Iterator[tuple[str, StoredImage]]:
    """Every tag that can be read. Raises Malformed where the whole document is none."""
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
