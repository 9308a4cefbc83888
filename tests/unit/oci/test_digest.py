from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.errors import IntegrityFailure
from factory.oci.digest import Descriptor, Digest, Verifier, verified

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
CONTENT = b"singularity image format" * 100
WANTED = Descriptor.of("application/octet-stream", CONTENT)
GOOD = {"mediaType": "a/b", "digest": EMPTY, "size": 0}


def test_a_digest_reads_and_prints_as_the_specification_writes_it() -> None:
    digest = Digest.parse(EMPTY)
    assert (digest.algorithm, digest.short, str(digest)) == ("sha256", "e3b0c44298fc", EMPTY)
    assert Digest.of(b"") == digest


def test_sha512_is_a_registered_algorithm_too() -> None:
    text = "sha512:" + hashlib.sha512(b"x").hexdigest()
    assert str(Digest.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256",
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "sha256:" + "a" * 64 + "\n",
        " sha256:" + "a" * 64,
        "SHA256:" + "a" * 64,
        "sha256:" + "\N{FULLWIDTH DIGIT ONE}" * 64,
        "sha512:" + "a" * 64,
        "md5:" + "a" * 32,
        "sha1:" + "a" * 40,
        "unknown:" + "a" * 64,
        "sha256:../../../../etc/passwd",
        "sha256:" + "a" * 10_000_000,
        None,
        7,
        ["sha256:" + "a" * 64],
    ],
)
def test_anything_but_a_strong_digest_is_refused_with_a_short_message(text: Any) -> None:
    with pytest.raises(IntegrityFailure) as caught:
        Digest.parse(text)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_a_descriptor_survives_json() -> None:
    descriptor = Descriptor("a/b", Digest.of(b"x"), 1, {"key": "text"}, "kind/x")
    assert Descriptor.from_json(json.loads(json.dumps(descriptor.to_json()))) == descriptor
    assert set(Descriptor("a/b", Digest.of(b"x"), 1).to_json()) == {"mediaType", "digest", "size"}


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "sha256",
        {},
        GOOD | {"size": -1},
        GOOD | {"size": 2**63},
        GOOD | {"size": 1.0},
        GOOD | {"size": "1"},
        GOOD | {"size": True},
        GOOD | {"size": None},
        GOOD | {"size": float("nan")},
        GOOD | {"size": "9" * 5_000_000},
        GOOD | {"mediaType": None},
        GOOD | {"mediaType": ["x" * 5_000_000]},
        GOOD | {"digest": None},
        GOOD | {"digest": "sha256:" + "0" * 63},
        GOOD | {"digest": "md5:" + "0" * 32},
        GOOD | {"annotations": ["a"]},
        GOOD | {"annotations": {"a": 1}},
        GOOD | {"annotations": "text"},
    ],
)
def test_a_hostile_descriptor_is_refused_with_a_short_message(value: object) -> None:
    with pytest.raises(IntegrityFailure) as caught:
        Descriptor.from_json(value)
    assert len(str(caught.value)) < 400


def test_a_descriptor_may_leave_out_or_null_what_is_optional() -> None:
    for extra in ({}, {"annotations": None, "artifactType": None}, {"annotations": {}, "artifactType": 7}):
        descriptor = Descriptor.from_json(GOOD | extra)
        assert (descriptor.annotations, descriptor.artifact_type) == ({}, "")


@pytest.mark.slow
@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_any_other_json_is_refused_and_never_a_surprise(value: object) -> None:
    with pytest.raises(IntegrityFailure):
        Descriptor.from_json(value)


def test_the_right_bytes_pass_unchanged_in_any_blocks() -> None:
    for step in (1, 7, 64, len(CONTENT)):
        blocks = [CONTENT[at : at + step] for at in range(0, len(CONTENT), step)]
        assert b"".join(verified(blocks, WANTED)) == CONTENT
    assert b"".join(verified([b"", CONTENT, b""], WANTED)) == CONTENT
    assert list(verified([], Descriptor.of("a/b", b""))) == []


def test_one_byte_too_many_is_refused_before_it_is_yielded() -> None:
    passed: list[bytes] = []
    with pytest.raises(IntegrityFailure, match="longer than it should be"):
        passed.extend(verified([CONTENT, b"x"], WANTED))
    stream = verified(iter([CONTENT, b"x"]), WANTED)
    assert next(stream) == CONTENT
    with pytest.raises(IntegrityFailure):
        next(stream)


def test_an_endless_stream_is_cut_at_its_size() -> None:
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 100
            yield b"x" * 100

    with pytest.raises(IntegrityFailure):
        for _ in verified(endless(), WANTED):
            pass
    assert taken <= WANTED.size + 200


def test_too_few_bytes_name_both_numbers() -> None:
    with pytest.raises(IntegrityFailure, match=r"expected 2400 bytes, got 2399"):
        list(verified([CONTENT[:-1]], WANTED))


def test_a_flipped_bit_is_reported_with_both_digests() -> None:
    wrong = bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
    with pytest.raises(IntegrityFailure) as caught:
        list(verified([wrong], WANTED))
    assert str(WANTED.digest) in caught.value.why
    assert str(Digest.of(wrong)) in caught.value.why


def test_a_verifier_counts_what_it_has_seen() -> None:
    verifier = Verifier(WANTED)
    verifier.update(CONTENT[:10])
    verifier.update(CONTENT[10:])
    verifier.finish()
    assert verifier.seen == WANTED.size


def test_the_algorithm_of_the_descriptor_is_the_one_that_is_checked() -> None:
    digest = Digest("sha512", hashlib.sha512(CONTENT).hexdigest())
    assert b"".join(verified([CONTENT], Descriptor("a/b", digest, len(CONTENT)))) == CONTENT
    wrong = Digest("sha512", hashlib.sha512(b"").hexdigest())
    with pytest.raises(IntegrityFailure):
        list(verified([CONTENT], Descriptor("a/b", wrong, len(CONTENT))))
