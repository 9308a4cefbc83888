from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.errors import FactoryError, NotFound, UsageError
from factory.oci.digest import Digest
from factory.oci.names import Reference
from factory.records.lockfile import LockedImage, parse, read, render, select
from factory.store.refs import StoredImage

IMAGE = LockedImage(
    name="pytorch-2.1",
    registry="ghcr.io/org/images",
    tag="2.1.2-3",
    digest=Digest.of(b"manifest"),
    sif_digest=Digest.of(b"sif"),
    size=433_000_000,
    date="2024-05-01T10:00:00Z",
)
TEXT = render([IMAGE])

hexes = st.text("0123456789abcdef", min_size=64, max_size=64)
digests = hexes.map(lambda text: Digest("sha256", text))
images = st.builds(
    LockedImage,
    name=st.from_regex(r"[a-z0-9]{1,9}(-[a-z0-9]{1,9})?", fullmatch=True).filter(lambda name: name != "catalog"),
    registry=st.one_of(
        st.sampled_from(["ghcr.io/org/images", "http://localhost:5000/images", "[::1]:5000/x"]),
        st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1).map(lambda folder: f"oci:{folder}"),
    ),
    tag=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True),
    digest=digests,
    sif_digest=digests,
    size=st.integers(0, 2**44),
    date=st.datetimes().map(lambda when: f"{when.year:04}" + when.strftime("-%m-%dT%H:%M:%SZ")),
)


@given(st.lists(images, max_size=4, unique_by=lambda image: image.digest))
def test_what_is_written_is_read_back(locked: list[LockedImage]) -> None:
    assert list(parse(render(locked).encode(), "x")) == locked


@given(
    st.sampled_from(["name", "registry", "tag", "digest", "sif_digest", "size", "date"]),
    st.one_of(st.text(), st.integers(), st.booleans(), st.just("../x"), st.just("sha256:" + "0" * 63), st.just("-rf")),
)
def test_a_hostile_value_is_refused_with_file_and_key_or_is_a_good_one(key: str, value: object) -> None:
    lines = [line for line in TEXT.splitlines() if not line.startswith(f"{key} =")]
    if isinstance(value, str):
        written = '"' + "".join(f"\\U{ord(letter):08X}" for letter in value) + '"'
    else:
        written = str(value).lower()
    text = "\n".join([*lines, f"{key} = {written}"])
    try:
        (image,) = parse(text.encode(), "paper.lock")
    except UsageError as error:
        assert error.what == f"paper.lock: image[1].{key} is wrong"  # noqa: PT017 - either outcome is right
    else:
        assert parse(render([image]).encode(), "x") == (image,)


@given(st.binary())
def test_any_bytes_are_a_lock_file_or_a_usage_error(content: bytes) -> None:
    try:
        assert parse(content, "x") == ()
    except FactoryError as error:
        assert error.exit_code == 2  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "x: format is wrong"),
        ("format = 2", "x: format is wrong"),
        ("format = true", "x: format is wrong"),
        ("format = 1\nimages = []", "x: 'images' is wrong"),
        ("format = 1\nimage = 3", "x: image is wrong"),
        ("format = 1\nimage = [3]", "x: image is wrong"),
        (TEXT + "command = 'rm'", "x: image[1].'command' is wrong"),
        (TEXT + TEXT.partition("\n\n")[2], "x: image is wrong"),
        (TEXT.replace("size = 433000000", "size = -1"), "x: image[1].size is wrong"),
        (TEXT.replace("size = 433000000", "size = true"), "x: image[1].size is wrong"),
        (TEXT.replace("size = 433000000\n", ""), "x: image[1].size is wrong"),
        (TEXT.replace("pytorch-2.1", "../../etc"), "x: image[1].name is wrong"),
        (TEXT.replace("ghcr.io/org", "user:password@ghcr.io/org"), "x: image[1].registry is wrong"),
        (TEXT.replace("2024-05-01T10:00:00Z", "yesterday"), "x: image[1].date is wrong"),
        ("format = [", "x is not a lock file"),
        ("a = " + "[" * 5000, "x is not a lock file"),
        ("format = " + "1" * 5000, "x is not a lock file"),
        (".".join(["a"] * 500_000) + " = 1", "x is not a lock file"),
        ("[a" + ".a" * 500 + "]\n", "x is not a lock file"),
        ("'a'.a = 1", "x is not a lock file"),
        ("# " + "a" * 5000, "x is not a lock file"),
    ],
)
def test_errors_name_the_file_and_the_key(text: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text.encode(), "x")
    assert caught.value.what == what


def test_a_missing_or_too_large_lock_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no lock file"):
        read(tmp_path / "x")
    with pytest.raises(UsageError, match="cannot read"):
        read(tmp_path)
    (tmp_path / "x").write_bytes(b"#" * (4 * 1024 * 1024 + 1))
    with pytest.raises(UsageError, match=r"cannot read the lock file .*/x: it is larger than 1.0 MB"):
        read(tmp_path / "x")
    (tmp_path / "x").write_text(TEXT)
    (tmp_path / "link").symlink_to("x")
    assert read(tmp_path / "x") == read(tmp_path / "link") == (IMAGE,)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match=r"cannot read the lock file .*/pipe: it is a pipe"):
        read(tmp_path / "pipe")


def test_references_choose_among_what_is_locked_and_nothing_else() -> None:
    for text in ("pytorch-2.1", "pytorch-2.1:2.1.2-3", f"pytorch-2.1@{IMAGE.digest}", "ghcr.io/org/images/pytorch-2.1"):
        assert select([IMAGE], [Reference.parse(text)], "x") == (IMAGE,)
    assert select([IMAGE], [], "x") == (IMAGE,)
    for text in ("other", "pytorch-2.1:latest", f"pytorch-2.1@{IMAGE.sif_digest}", "quay.io/x/pytorch-2.1"):
        with pytest.raises(NotFound, match=r"is not in x: the file has pytorch-2\.1:2\.1\.2-3"):
            select([IMAGE], [Reference.parse(text)], "x")


def test_an_adopted_image_cannot_be_locked() -> None:
    adopted = StoredImage("tool", "adopted", "", Digest.of(b""), Digest.of(b""), 0, "2024-01-01T00:00:00Z")
    with pytest.raises(UsageError, match="adopted from a file"):
        LockedImage.of(adopted, "2024-01-01T00:00:00Z")
