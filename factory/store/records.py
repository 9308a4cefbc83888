"""What a store remembers of one recipe: images by the registry that they came from, then by tag.

A name is worth nothing without the registry that gave it: whoever runs another registry, or writes a lock file, can
call anything by any name. So a tag of one registry never replaces the same tag of another, and what a name means
when no registry is named is decided here, in one place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from factory.errors import FactoryError, NotFound, UsageError
from factory.oci.digest import Digest
from factory.oci.names import Reference, RegistryAddress
from factory.store.refs import StoredImage

ADOPTED = ""  # in the place of a registry: the image was a file here (factory.store.adopt)
Tags = Mapping[str, StoredImage]


@dataclass(frozen=True)
class Records:
    """The images of a recipe.

    by_registry: by the registry's address, then by tag. home: the registry whose tags the links in `images/` follow;
    '' when there is none yet. unasked: registries that nobody has named but a lock file.
    """

    by_registry: Mapping[str, Tags] = field(default_factory=dict)
    home: str = ""
    unasked: frozenset[str] = frozenset()

    def __iter__(self) -> Iterator[tuple[str, StoredImage]]:
        """Every tag and its image, sorted."""
        for _, tags in sorted(self.by_registry.items()):
            yield from sorted(tags.items())

    @property
    def images(self) -> tuple[StoredImage, ...]:
        """Every image, once for each of its tags."""
        return tuple(image for _, image in self)

    def of(self, registry: str) -> Tags:
        """What came from a registry, by tag."""
        return self.by_registry.get(registry, {})

    def meant(self, registry: str) -> Tags:
        """What the recipe's name means by itself, by tag, where this registry is the one that is set; '': none is.

        Adopted images have no other name: they count where that registry has no image of the same tag. Without a
        registry, the only one that the recipe came from is meant, and none where there are several.
        """
        if registry:
            return {**self.of(ADOPTED), **self.of(registry)}
        (only, *others) = self.candidates() or ("",)
        return {**({} if others else self.of(only)), **self.of(ADOPTED)}

    def candidates(self) -> tuple[str, ...]:
        """The registries that the recipe came from because somebody named them."""
        return tuple(sorted(set(self.by_registry) - self.unasked - {ADOPTED}))

    def links(self, registry: str) -> Tags:
        """Where the links of `images/<recipe>/` belong; registry: the one that this user or this site has set."""
        first, last = (ADOPTED, self.home) if self.home == registry else (self.home, ADOPTED)
        return {**self.of(first), **self.of(last)}

    def with_image(self, image: StoredImage, tags: Iterable[str], registry: str, *, asked: bool) -> Records:
        """With an image of these tags. registry: as in ``links``; asked: False where only a lock file named it.

        The links go to the registry that is set; where none is, they stay with the first one that was asked for.
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
        """Without the tags of an image; digest: its file's."""
        rest = {
            registry: {tag: image for tag, image in tags.items() if image.sif_digest != digest}
            for registry, tags in self.by_registry.items()
        }
        return replace(self, by_registry={registry: tags for registry, tags in rest.items() if tags})

    def over(self, lower: Records) -> Records:
        """With what another store remembers, where this one remembers nothing."""
        registries = {*lower.by_registry, *self.by_registry}
        asked = {*self.candidates(), *lower.candidates()}
        merged = {registry: {**lower.of(registry), **self.of(registry)} for registry in registries}
        return Records(merged, self.home or lower.home, frozenset(registries - asked - {ADOPTED}))


def absent(reference: Reference, known: Records, registry: str, root: Path) -> FactoryError:
    """The error for a reference that names nothing of a store: UsageError where the user has to say which is meant."""
    sources = [RegistryAddress.parse(one) for one in known.by_registry if one != ADOPTED]
    several = known.candidates()
    if sources and len(several) != 1 and not (reference.registry or reference.digest or registry):
        return UsageError(
            f"{reference} may be several images" if several else f"nobody has said which {reference.name} is meant",
            why=f"no registry is set, and the store has the name from {'these' if several else 'a lock file only'}: "
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
        why=f"it has {there}" if there else "",
        fix=f"singfactory pull {reference}",
    )
