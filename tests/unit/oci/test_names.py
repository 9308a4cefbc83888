from __future__ import annotations

import itertools
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.errors import UsageError
from factory.oci.digest import Digest
from factory.oci.names import (
    BuildTag,
    Reference,
    RegistryAddress,
    docker_reference,
    recipe_name,
    tag_name,
    version_name,
)

DIGEST = "sha256:" + "0123456789abcdef" * 4
RECIPE_LETTERS = set(string.ascii_lowercase + string.digits + "._-")
TAG_LETTERS = RECIPE_LETTERS | set(string.ascii_uppercase)
HOSTILE = [
    "",
    ".",
    "..",
    "../x",
    "a/../b",
    "/etc/passwd",
    "-rf",
    "--help",
    "$(id)",
    "`id`",
    "a;b",
    "a b",
    "a\tb",
    "a\n",
    "\na",
    "a\nb",
    "a\r\n",
    "a\0b",
    "a'b",
    'a"b',
    "a\\b",
    "a|b",
    "a&b",
    "a*",
    "a?",
    "a%2e%2e",
    "a@b",
    "a:b:c",
    "#a",
    "~",
    "\N{CYRILLIC SMALL LETTER A}bc",
    "p\N{LATIN SMALL LETTER DOTLESS I}p",
    "\N{KELVIN SIGN}",
    "\N{FULLWIDTH LATIN SMALL LETTER A}",
    "\N{LATIN SMALL LETTER LONG S}",
    "a\N{ZERO WIDTH SPACE}b",
    "a\N{RIGHT-TO-LEFT OVERRIDE}b",
    "\N{ARABIC-INDIC DIGIT ONE}",
    "a" * 300,
    "a" * 1_000_000,
    "\udc80",
]
# Around the allowed letters, so that hypothesis finds what is almost right.
almost = st.text(alphabet=st.sampled_from("aZ09._-:/@\n +") | st.characters(), max_size=12)


@pytest.mark.parametrize("name", ["a", "0", "pytorch-2.1", "r_4.3", "a--b", "a__b", "python3.11", "a" * 100, "x-y.z_0"])
def test_ordinary_recipe_names_are_accepted_unchanged(name: str) -> None:
    assert recipe_name(name) == name


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_recipe_names_are_refused_with_a_message_that_is_safe_to_show(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        recipe_name(name)
    shown = caught.value.what
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) < 500


@pytest.mark.parametrize(
    "name", ["A", "PyTorch", "pytorcH", "a.", ".a", "a-", "_a", "a_", "a..b", "a___b", "a._b", "a" * 101, "a/b"]
)
def test_recipe_names_are_lower_case_and_begin_and_end_with_a_letter_or_digit(name: str) -> None:
    with pytest.raises(UsageError):
        recipe_name(name)


def test_the_catalog_s_name_is_reserved() -> None:
    with pytest.raises(UsageError, match="is reserved"):
        recipe_name("catalog")


@given(almost)
def test_accepted_recipe_names_are_safe_as_folder_argument_and_url(text: str) -> None:
    try:
        name = recipe_name(text)
    except UsageError:
        return
    assert name == text
    assert set(name) <= RECIPE_LETTERS
    assert name[0] not in "._-"
    assert ".." not in name
    assert len(name) <= 100


@pytest.mark.parametrize("tag", ["latest", "2.1.2-3", "V1", "_x", "sha256-" + "a" * 64, "a" * 128, "1.0_rc1"])
def test_ordinary_tags_are_accepted_unchanged(tag: str) -> None:
    assert tag_name(tag) == tag


@pytest.mark.parametrize("tag", [*HOSTILE, ".a", "-a", "a" * 129, "a/b", "1.0+cu121"])
def test_hostile_tags_are_refused(tag: str) -> None:
    with pytest.raises(UsageError):
        tag_name(tag)


@given(almost)
def test_accepted_tags_and_versions_use_only_allowed_characters(text: str) -> None:
    for check, letters in ((tag_name, TAG_LETTERS), (version_name, TAG_LETTERS - {"-"})):
        try:
            assert set(check(text)) <= letters
        except UsageError:
            continue
        assert text
        assert text[0] not in ".-"
        assert len(text) <= 128


@pytest.mark.parametrize("version", [*HOSTILE, "1-2", "2.1.2-rc1", ".1", "1" * 101])
def test_hostile_versions_and_those_with_a_dash_are_refused(version: str) -> None:
    with pytest.raises(UsageError):
        version_name(version)


@pytest.mark.parametrize("version", ["2.1.2", "2.1.2_rc1", "2023a", "v1"])
def test_any_version_makes_a_build_tag_that_reads_back(version: str) -> None:
    tag = BuildTag(version_name(version), 12)
    assert tag_name(str(tag)) == f"{version}-12"
    assert BuildTag.parse(str(tag)) == tag


@pytest.mark.parametrize(
    "text", ["latest", "2.1.2", "2.1.2-0", "2.1.2-01", "2.1.2-", "-1", "1-2-3", "1-9999999999", "1-2\n", "1--2", ""]
)
def test_other_tags_are_no_build_tags(text: str) -> None:
    assert BuildTag.parse(text) is None


def test_the_tag_of_a_digest_is_never_taken_for_a_release() -> None:
    assert BuildTag.parse("sha256-" + "1" * 64) is None


@pytest.mark.parametrize(
    ("text", "host", "path", "plain", "shown"),
    [
        ("ghcr.io/org/images", "ghcr.io", "org/images", False, "ghcr.io/org/images"),
        ("https://ghcr.io/org/images/", "ghcr.io", "org/images", False, "ghcr.io/org/images"),
        ("oras://ghcr.io/org", "ghcr.io", "org", False, "ghcr.io/org"),
        ("http://localhost:5000/images", "localhost:5000", "images", True, "http://localhost:5000/images"),
        ("GHCR.io/org", "ghcr.io", "org", False, "ghcr.io/org"),
        ("ghcr.io", "ghcr.io", "", False, "ghcr.io"),
        ("ghcr.io/", "ghcr.io", "", False, "ghcr.io"),
        ("localhost", "localhost", "", False, "localhost"),
        ("box:5000", "box:5000", "", False, "box:5000"),
        ("[::1]:5000/x", "[::1]:5000", "x", False, "[::1]:5000/x"),
        ("http://127.0.0.1:5000", "127.0.0.1:5000", "", True, "http://127.0.0.1:5000"),
        ("oci:/srv/images", "", "/srv/images", False, "oci:/srv/images"),
        ("oci:images", "", "images", False, "oci:images"),
        ("oci:/srv/with space", "", "/srv/with space", False, "oci:/srv/with space"),
    ],
)
def test_a_registry_address_is_read_and_printed(text: str, host: str, path: str, plain: bool, shown: str) -> None:  # noqa: FBT001
    address = RegistryAddress.parse(text)
    assert (address.host, address.path, address.plain_http, str(address)) == (host, path, plain, shown)
    assert address.is_folder == text.startswith("oci:")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "oci:",
        "oci:/a\nb",
        "oci:/a\0b",
        "oci:/a\x1b[2Jb",
        "org/images",
        "ghcr.io/Org",
        "ghcr.io//org",
        "ghcr.io/../x",
        "ghcr.io/a b",
        "ghcr.io:123456/x",
        "ghcr.io:/x",
        "-ghcr.io/x",
        "ghcr.io\n/x",
        "ghcr.io/x\n",
        "gh$cr.io/x",
        "ghcr.io/x?y=z",
        "ghcr.io/x#y",
        "ftp://ghcr.io/x",
        "file:///etc",
        "docker://ghcr.io/x",
        "http://https://ghcr.io/x",
        "http://oras://ghcr.io/x",
        "https://http://ghcr.io/x",
        "HTTP://ghcr.io/x",
        "\N{CYRILLIC SMALL LETTER ER}.io/x",
        "\N{KELVIN SIGN}.io/x",
        "http://",
    ],
)
def test_invalid_registry_addresses_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        RegistryAddress.parse(text)
    assert caught.value.what.isprintable()


@pytest.mark.parametrize("text", ["https://me:s3cret@ghcr.io/x", "me:s3cret@ghcr.io", "http://s3cret@ghcr.io:80/x"])
def test_a_login_in_an_address_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError, match="singfactory login") as caught:
        RegistryAddress.parse(text)
    assert "s3cret" not in str(caught.value.lines())


def test_a_repository_is_below_the_namespace_and_a_folder_has_none() -> None:
    assert RegistryAddress.parse("ghcr.io/org/images").repository("x") == "org/images/x"
    assert RegistryAddress.parse("ghcr.io").repository("x") == "x"
    assert RegistryAddress.parse("oci:/srv/images").repository("x") == "x"


REGISTRIES = [
    "",
    "ghcr.io/",
    "ghcr.io/org/images/",
    "http://localhost:5000/images/",
    "[::1]:5000/x/",
    "oci:/srv/images/",
]


@pytest.mark.parametrize(
    ("registry", "tag", "digest"), list(itertools.product(REGISTRIES, ["", ":2.1.2-3"], ["", f"@{DIGEST}"]))
)
def test_references_are_read_in_all_their_combinations(registry: str, tag: str, digest: str) -> None:
    text = f"{registry}pytorch-2.1{tag}{digest}"
    reference = Reference.parse(text)
    assert reference.name == "pytorch-2.1"
    assert reference.tag == tag[1:]
    assert reference.digest == (Digest.parse(DIGEST) if digest else None)
    assert reference.registry == (RegistryAddress.parse(registry[:-1]) if registry else None)
    assert str(reference) == text
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        *HOSTILE,
        "x:",
        ":1",
        "x@",
        "x@sha256:abc",
        "x@md5:" + "a" * 32,
        f"@{DIGEST}",
        f"x@{DIGEST}@{DIGEST}",
        f"x@{DIGEST}\n",
        "org/x",
        "X",
        "docker://debian",
        "catalog",
        "ghcr.io/org/",
        "ghcr.io/org/..",
        "me@ghcr.io/x",
    ],
)
def test_hostile_references_are_refused_as_usage_errors(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Reference.parse(text)
    assert "\n" not in caught.value.what
    assert len(caught.value.what) < 500


def test_a_reference_keeps_the_registry_that_it_names_itself() -> None:
    site = RegistryAddress.parse("ghcr.io/org")
    assert Reference.parse("x").at(site).registry == site
    named = Reference.parse("quay.io/other/x")
    assert named.at(site) == named


@given(
    st.sampled_from(["", "ghcr.io/", "http://LOCALHOST:5000/a/", "oci:/x y/", "oci:", "oci:/"]),
    almost,
    st.sampled_from(["", f"@{DIGEST}"]),
)
def test_a_reference_that_parses_prints_back_to_the_same(head: str, middle: str, tail: str) -> None:
    try:
        reference = Reference.parse(head + middle + tail)
    except UsageError:
        return
    assert Reference.parse(str(reference)) == reference
    assert set(reference.name) <= RECIPE_LETTERS
    assert set(reference.tag) <= TAG_LETTERS
    assert str(reference).isprintable()


@given(st.sampled_from(["", "http://", "https://", "oras://", "oci:"]), almost, almost)
def test_an_address_that_parses_prints_back_to_the_same(scheme: str, host: str, path: str) -> None:
    try:
        address = RegistryAddress.parse(f"{scheme}{host}/{path}")
    except UsageError:
        return
    assert RegistryAddress.parse(str(address)) == address
    assert str(address).isprintable()
    assert set(address.host) <= RECIPE_LETTERS | set("[]:")
    assert address.is_folder or set(address.path) <= RECIPE_LETTERS | {"/"}


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("debian", ("docker.io", "library/debian", "latest")),
        ("debian:12", ("docker.io", "library/debian", "12")),
        ("pytorch/pytorch:2.1", ("docker.io", "pytorch/pytorch", "2.1")),
        ("docker.io/debian", ("docker.io", "library/debian", "latest")),
        ("docker.io/debian:12", ("docker.io", "library/debian", "12")),
        ("docker.io/library/debian", ("docker.io", "library/debian", "latest")),
        ("index.docker.io/debian", ("docker.io", "library/debian", "latest")),
        ("docker.io/pytorch/pytorch", ("docker.io", "pytorch/pytorch", "latest")),
        ("nvcr.io/nvidia/cuda:12.1.0-base", ("nvcr.io", "nvidia/cuda", "12.1.0-base")),
        ("localhost/x", ("localhost", "x", "latest")),
        ("localhost:5000/x:1", ("localhost:5000", "x", "1")),
        ("box:5000/x", ("box:5000", "x", "latest")),
        ("Quay.IO/a/b", ("quay.io", "a/b", "latest")),
        (f"debian@{DIGEST}", ("docker.io", "library/debian", DIGEST)),
        (f"debian:12@{DIGEST}", ("docker.io", "library/debian", DIGEST)),
        ("a/b/c/d", ("docker.io", "a/b/c/d", "latest")),
        ("docker.io", ("docker.io", "library/docker.io", "latest")),
    ],
)
def test_an_image_name_is_split_as_docker_splits_it(text: str, split: tuple[str, str, str]) -> None:
    assert docker_reference(text) == split


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "debian:",
        "debian@",
        "debian@sha256:12",
        "Debian",
        "a//b",
        "/a",
        "a/",
        "../x",
        "-rf",
        "a b",
        "a\n",
        "a:b:c",
    ],
)
def test_invalid_image_names_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        docker_reference(text)


@given(almost)
def test_an_image_name_that_splits_is_split_the_same_when_written_out(text: str) -> None:
    try:
        host, repository, tag = docker_reference(text)
    except UsageError:
        return
    assert docker_reference(f"{host}/{repository}:{tag}") == (host, repository, tag)
    assert set(host + repository + tag) <= TAG_LETTERS | set("/:")


@given(st.lists(st.one_of(st.sampled_from("%25E9aF/7 "), st.characters(), st.sampled_from("\udc80\udce9\udcff"))))
def test_a_folder_of_any_name_has_a_printable_address_that_means_it(letters: list[str]) -> None:
    folder = "/" + "".join(letter for letter in letters if letter >= " " and letter != "\x7f")
    folder = folder.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")  # as the system gives it
    written = str(RegistryAddress("", folder))
    assert written.isprintable()
    assert RegistryAddress.parse(written).path == folder
    if folder.isprintable() and "%" not in folder:
        assert written == f"oci:{folder}"
