from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from factory.errors import NoRoom
from factory.io.below import Folder
from factory.oci.digest import Digest
from factory.store import record_files
from factory.store.record_files import read_refs, refs_file, write_refs
from factory.store.records import Records
from factory.store.refs import StoredImage

A, B = "a.example/x", "b.example/x"


def image(content: bytes, registry: str = A, **changed: Any) -> StoredImage:
    digest = Digest.of(content)
    usual: dict[str, Any] = {"recipe": "tool", "tag": "1.0-1", "pulled": "2024-01-01T00:00:00Z", **changed}
    return StoredImage(registry=registry, digest=digest, sif_digest=digest, size=1, **usual)


def records(*images: StoredImage, registry: str = "", asked: bool = True) -> Records:
    found = Records()
    for one in images:
        found = found.with_image(one, [one.tag], registry, asked=asked)
    return found


def write(root: Path, recipe: str, found: Records, registry: str) -> None:
    with Folder.at(root / "refs") as refs:
        write_refs(refs, recipe, found, registry)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "refs").mkdir()
    return tmp_path


def test_an_unqualified_name_uses_the_configured_registry_then_adopted_images() -> None:
    adopted, other = image(b"file", "", tag="2"), image(b"file", "")
    found = records(image(b"a"), image(b"b", B), adopted, other)
    assert found.unqualified(A) == {"1.0-1": image(b"a"), "2": adopted}
    assert found.unqualified(B) == {"1.0-1": image(b"b", B), "2": adopted}
    assert found.unqualified("c.example/x") == {"1.0-1": other, "2": adopted}


def test_without_a_configured_registry_the_only_named_registry_is_used() -> None:
    assert records(image(b"a")).unqualified("") == {"1.0-1": image(b"a")}
    assert records(image(b"a"), image(b"b", B)).unqualified("") == {}
    assert records(image(b"a"), asked=False).unqualified("") == {}
    locked = records(image(b"a")).with_image(image(b"b", B), ["1.0-1"], "", asked=False)
    assert locked.unqualified("") == {"1.0-1": image(b"a")}
    assert locked.with_image(image(b"b", B), ["1.0-1"], "", asked=True).unqualified("") == {}


def test_links_stay_with_the_first_registry_until_the_one_that_is_set_takes_them() -> None:
    found = records(image(b"a"), image(b"b", B))
    assert found.links("") == {"1.0-1": image(b"a")}
    assert records(image(b"a"), image(b"b", B), registry=B).links(B) == {"1.0-1": image(b"b", B)}
    assert records(image(b"a"), registry=B).links(B) == {}
    gone = found.without(image(b"a").sif_digest)
    assert gone.with_image(image(b"b", B), ["1.0-1"], "", asked=True).home == B


def test_a_lower_store_adds_images_that_this_one_does_not_have() -> None:
    below = records(image(b"old"), image(b"two", tag="2"), image(b"b", B))
    own = records(image(b"new"), image(b"b", B), asked=False)
    merged = own.over(below)
    assert merged.of(A) == {"1.0-1": image(b"new"), "2": image(b"two", tag="2")}
    assert merged.unasked == frozenset()


def test_a_record_of_an_older_version_is_read_by_registry(root: Path) -> None:
    older = {"1.0-1": image(b"b", B, pulled="2024-05-05T00:00:00Z"), "latest": image(b"a")}
    value = {"format": 1, "tags": {tag: one.to_json() for tag, one in older.items()}}
    refs_file(root, "tool").write_text(json.dumps(value))
    assert read_refs(root, "tool") == Records({A: {"latest": older["latest"]}, B: {"1.0-1": older["1.0-1"]}}, A)


def test_an_older_version_finds_in_a_record_what_the_links_follow(root: Path) -> None:
    found = records(image(b"a"), image(b"b", B), image(b"file", "", tag="mine"))
    write(root, "tool", found, "")
    tags = json.loads(refs_file(root, "tool").read_text())["tags"]
    assert {tag: one["registry"] for tag, one in tags.items()} == {"1.0-1": A, "mine": ""}
    assert read_refs(root, "tool") == found


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": True},
        {"size": -1},
        {"size": 1e3},
        {"size": 2**50},
        {"pulled": "yesterday\n"},
        {"registry": "not an address"},
        {"tag": "../x"},
        {"run": {"gpu": "all", "env": {}, "binds": []}},
        {"run": {"gpu": "none", "env": {"A": "a\nb"}, "binds": []}},
        {"run": {"gpu": "none", "env": {"A B": "a"}, "binds": []}},
        {"run": {"gpu": "none", "env": {str(number): "" for number in range(200)}, "binds": []}},
        {"run": {"gpu": "none", "env": {}, "binds": ["/a\u202e"]}},
        None,
    ],
)
def test_a_tag_that_cannot_be_read_takes_no_other_with_it(root: Path, wrong: dict[str, object] | None) -> None:
    write(root, "tool", records(image(b"a"), image(b"c", tag="2")), "")
    value = json.loads(refs_file(root, "tool").read_text())
    value["tags"]["2"] = wrong if wrong is None else {**value["tags"]["2"], **wrong}
    refs_file(root, "tool").write_text(json.dumps(value))
    assert read_refs(root, "tool").of(A) == {"1.0-1": image(b"a")}


def test_what_other_registries_add_never_crowds_out_the_rest(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_files, "_LIMIT_OF_OTHERS", 2000)
    found = records(image(b"a"))
    write(root, "tool", found, "")
    full = found.with_image(image(b"b", B), [f"1.0-{number}" for number in range(10)], "", asked=True)
    with pytest.raises(NoRoom, match="record of tool is full"):
        write(root, "tool", full, "")
    assert read_refs(root, "tool").of(A) == {"1.0-1": image(b"a")}
