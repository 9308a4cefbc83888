from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.errors import IntegrityFailure, UsageError
from factory.oci.digest import Descriptor, Digest
from factory.registry.documents import (
    as_referrer,
    checked_repository,
    fallback_tag,
    media_type,
    named,
    read_manifest,
    referrer_index,
    referrer_list,
    subject_of,
)
from factory.registry.paging import next_link
from factory.registry.protocol import INDEX, MANIFEST, Manifest

CONFIG = Descriptor.of("application/vnd.example.config+json", b"{}")


def test_the_document_s_own_media_type_wins() -> None:
    raw = Manifest(CONFIG, ()).raw()
    assert read_manifest(raw.content, f"{INDEX}; charset=utf-8").descriptor == raw.descriptor


def test_a_document_without_a_media_type_is_what_it_came_as() -> None:
    assert read_manifest(b'{"manifests": []}', f"{INDEX}; charset=utf-8").descriptor.media_type == INDEX
    assert read_manifest(b'{"manifests": []}', "text/plain").descriptor.media_type == INDEX
    assert read_manifest(b'{"layers": []}', "").descriptor.media_type == MANIFEST


@pytest.mark.parametrize("text", ["", "a", "a/b/c", "a/b\nc", "x" * 300 + "/y", None, 5, "a b/c"])
def test_an_invalid_media_type_is_none(text: object) -> None:
    assert media_type(text) == ""


def test_another_algorithm_is_computed_when_it_was_asked() -> None:
    assert read_manifest(b"{}", "", "sha512").descriptor.digest.algorithm == "sha512"


def test_what_a_manifest_names_is_listed() -> None:
    layer = Descriptor.of("a/b", b"layer")
    assert named(Manifest(CONFIG, (layer,)).raw()) == ([CONFIG, layer], [])
    assert named(referrer_index([layer])) == ([], [layer])
    with pytest.raises(IntegrityFailure):
        named(read_manifest(b'{"layers": {}, "manifests": 5}', ""))


def test_a_referrer_is_shown_with_type_and_annotations() -> None:
    subject = Descriptor.of(MANIFEST, b"subject")
    raw = Manifest(CONFIG, (), {"a": "b"}, "application/x.y", subject).raw()
    found = as_referrer(raw)
    assert (found.artifact_type, found.annotations) == ("application/x.y", {"a": "b"})
    assert subject_of(raw.json()) == subject.digest
    assert as_referrer(Manifest(CONFIG, ()).raw()).artifact_type == CONFIG.media_type


@pytest.mark.parametrize("subject", [None, 5, {}, {"digest": "md5:0"}, {"digest": 5}])
def test_a_broken_subject_is_none(subject: object) -> None:
    assert subject_of({"subject": subject}) is None


def test_a_list_of_referrers_is_read_without_its_broken_entries() -> None:
    good = Descriptor.of("a/b", b"1")
    entries = [good.to_json(), {"digest": "x"}, 5, good.to_json(), {**good.to_json(), "size": -1}]
    assert referrer_list(json.dumps({"manifests": entries}).encode()) == [good]
    for broken in (b"[]", b"{}", b'{"manifests": 5}', b"{"):
        with pytest.raises(IntegrityFailure):
            referrer_list(broken)


def test_the_fallback_tag_is_the_specification_s() -> None:
    assert fallback_tag(Digest("sha256", "a" * 64)) == "sha256-" + "a" * 64
    assert len(fallback_tag(Digest("sha512", "a" * 128))) == 128


@given(st.text(max_size=40))
def test_a_repository_s_name_never_leaves_its_place(text: str) -> None:
    try:
        name = checked_repository(text)
    except UsageError:
        return
    assert name == text
    assert ".." not in name.split("/")
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-/")
    assert name[0] not in "/-."


@pytest.mark.parametrize(
    ("header", "link"),
    [
        ('</v2/a/tags/list?n=2&last=x>; rel="next"', "/v2/a/tags/list?n=2&last=x"),
        ('<https://h/1>; rel="prev", <https://h/2>; rel=next', "https://h/2"),
        ('<https://h/1>; rel="prev"', ""),
        ("", ""),
        ("<" * 10_000, ""),
    ],
)
def test_the_next_page_is_found(header: str, link: str) -> None:
    assert next_link(header) == link
