"""Which image of a store a path means: other tools know images by the paths that `singfactory path` printed."""

from __future__ import annotations

import os
import re
from itertools import chain
from pathlib import Path

from factory.errors import NotFound
from factory.oci.names import Reference
from factory.store.store import Store

_BLOB = re.compile(r"([0-9a-f]{64}|[0-9a-f]{128})\.sif", re.ASCII)


def reference_of(store: Store, path: Path) -> Reference:
    """Return the digest reference of the image whose blob a path or a link leads to. The file need not exist.

    Copies on a node's disk have the same name as the blob. Raises NotFound for other files.
    """
    blob = _BLOB.fullmatch(Path(os.path.realpath(path)).name)
    for image in chain((image for _, image in store.images()), store.missing()) if blob else ():
        if blob is not None and image.sif_digest.hex == blob[1]:
            return image.pinned
    raise NotFound(
        f"{path} is not an image of the store {store.root}",
        why="only files that singfactory pull, path or stage have named are known by their path",
        fix=f"add it: singfactory store adopt {path} --as NAME:TAG",
    )
