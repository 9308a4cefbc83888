"""A store's records of one recipe: its images by registry, then by tag.

A tag only means something together with its registry: another registry, or a lock file, can use the same name for any
image. So a tag of one registry never replaces the same tag of another. This module decides which image a name without
a registry refers to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from factory.errors import FactoryError, NotFound, UsageError
from factory.oci.digest import Digest
from factory.oci.names import Reference, RegistryAddress
from factory.store.refs import StoredImage

ADOPTED = ""  # the registry of images adopted from a local file (factory.store.adopt)
Tags = Mapping[str, StoredImage]


@dataclass(frozen=True)
class Records:
    """The images of a recipe.

    by_registry: images by registry address, then by tag. home: the registry whose tags the links in `images/` follow;
    '' if there is none yet. unasked: registries that only a lock file has named.
    """

    by_registry: Mapping[str, Tags] = field(default_factory=dict)
    home: str = ""
    unasked: frozenset[str] = frozenset()

    def __iter__(self) -> Iterator[tuple[str, StoredImage]]:
        """Yield every tag and its image, sorted."""
        for _, tags in sorted(self.by_registry.items()):
            yield from sorted(tags.items())

    @property
    def images(self) -> tuple[StoredImage, ...]:
        """Every image, once for each of its tags."""
        return tuple(image for _, image in self)

    def of(self, registry: str) -> Tags:
        """Return the images from a registry, by tag."""
        return self.by_registry.get(registry, {})

    def unqualified(self, registry: str) -> Tags:
        """Return the images that NAME:TAG without a registry refers to, by tag. registry: the configured one, or ''.

        Adopted images have no registry: they are included unless the registry has the same tag. With no registry
        configured, the only registry that the recipe came from is used, and none if there are several.
        """
        if registry:
            return {**self.of(ADOPTED), **self.of(registry)}
        (only, *others) = self.candidates() or ("",)
        return {**({} if others else self.of(only)), **self.of(ADOPTED)}

    def candidates(self) -> tuple[str, ...]:
        """Return the registries that the recipe was pulled from by name, not only through a lock file."""
        return tuple(sorted(set(self.by_registry) - self.unasked - {ADOPTED}))

    def links(self, registry: str) -> Tags:
        """Return the images that the links in `images/<recipe>/` should lead to.

        registry: the one that the user or the site has configured.
        """
        first, last = (ADOPTED, self.home) if self.home == registry else (self.home, ADOPTED)
        return {**self.of(first), **self.of(last)}

    def with_image(self, image: StoredImage, tags: Iterable[str], registry: str, *, asked: bool) -> Records:
        """Return these records with an image added under its tags.

        registry: as for ``links``. asked: False if only a lock file named the image's registry. The links follow the
        configured registry or, without one, the first registry that was named.
        """
        source = image.registry
        unasked = self.unasked
        if asked:
            unasked -= {source}
        elif source not in self.by_registry:
            unasked |= {source}
        home = self.home if self.of(self.home) else ""
        if source and (source == registry or (not registry and not home and source not in unasked)):
            home = source
        added = {**self.of(source), **dict.fromkeys(tags, image)}
        return Records({**self.by_registry, source: added}, home, unasked)

    def without(self, digest: Digest) -> Records:
        """Return these records without an image's tags. digest: the SIF's."""
        rest = {
            registry: {tag: image for tag, image in tags.items() if image.sif_digest != digest}
            for registry, tags in self.by_registry.items()
        }
        return replace(self, by_registry={registry: tags for registry, tags in rest.items() if tags})

    def over(self, lower: Records) -> Records:
        """Return these records merged with those of a lower store; these win."""
        registries = {*lower.by_registry, *self.by_registry}
        asked = {*self.candidates(), *lower.candidates()}
        merged = {registry: {**lower.of(registry), **self.of(registry)} for registry in registries}
        return Records(merged, self.home or lower.home, frozenset(registries - asked - {ADOPTED}))


def absent(reference: Reference, known: Records, registry: str, root: Path) -> FactoryError:
    """Return the error for a reference that matches no image; UsageError if it is ambiguous."""
    sources = [RegistryAddress.parse(one) for one in known.by_registry if one != ADOPTED]
    several = known.candidates()
    if sources and len(several) != 1 and not (reference.registry or reference.digest or registry):
        return UsageError(
            f"{reference} is ambiguous: no registry is set",
            why=f"the store has {reference.name} from {'' if several else 'a lock file only: '}"
            + ", ".join(map(str, sources)),
            fix="name one: " + " or ".join(str(replace(reference, registry=source)) for source in sources),
        )
    shown = (
        (f"{image.registry}/" if image.registry not in (ADOPTED, registry) else "") + f"{reference.name}:{tag}"
        for tag, image in known
    )
    there = ", ".join(shown)
    return NotFound(
        f"{reference} is not in the store {root}",
        why=f"the store has {there}" if there else "",
        fix=f"singfactory pull {reference}",
    )
