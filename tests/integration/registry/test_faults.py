"""A real registry behind a misbehaving proxy: the caller gets correct data or a helpful error."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from factory.errors import AccessDenied, FactoryError, IntegrityFailure, OnlyWhole, RegistryFailure
from factory.io.http.client import HttpFailure, HttpSettings
from factory.io.progress import Silent
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import RegistryAddress
from factory.registry import limits
from factory.registry.credentials import Credential, Keychain
from factory.registry.distribution import DistributionRegistry
from factory.registry.documents import referrer_index
from factory.registry.protocol import EMPTY_JSON, SIF_CONFIG, SIF_LAYER, Manifest, RawManifest
from tests.servers import PASSWORD, USER, Faulty, Server, docker_registry, faulty_registry

CONTENT = hashlib.shake_128(b"content").digest(3_000_000)
LAYER = Descriptor.of(SIF_LAYER, CONTENT)
QUICK = HttpSettings(connect_timeout=5, idle_timeout=1, budget=8, attempts=4, backoff=0.05)
BLOBS = f"/blobs/{LAYER.digest}"
NAME = "tool"

Start = Callable[..., Faulty]


class Counting(Silent):
    """Adds up the reported progress."""

    def __init__(self) -> None:
        self.done = 0

    def advance(self, count: int) -> None:
        self.done += count


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A registry that holds one image."""
    with docker_registry(tmp_path_factory.mktemp("upstream")) as server:
        registry = DistributionRegistry(server.address)
        registry.push_blob(NAME, CONTENT, LAYER, Silent())
        registry.push_blob(NAME, EMPTY_JSON, Descriptor.of(SIF_CONFIG, EMPTY_JSON), Silent())
        registry.push_manifest(NAME, image(), "1.0-1")
        yield server


@pytest.fixture
def start(upstream: Server, tmp_path: Path) -> Iterator[Start]:
    """Starts the proxy with the rules it is called with."""
    with ExitStack() as stack:

        def begin(*rules: Mapping[str, Any]) -> Faulty:
            return stack.enter_context(faulty_registry(tmp_path, upstream.host, rules))

        yield begin


def image() -> RawManifest:
    return Manifest(Descriptor.of(SIF_CONFIG, EMPTY_JSON), (LAYER,)).raw()


def opened(
    faulty: Faulty,
    settings: HttpSettings = QUICK,
    login: Credential | None = None,
    notices: list[str] | None = None,
) -> DistributionRegistry:
    keychain = Keychain(given={faulty.server.host: login} if login else {})
    found = notices if notices is not None else []
    return DistributionRegistry(faulty.address, settings=settings, keychain=keychain, notice=found.append)


def fetched(registry: DistributionRegistry, offset: int = 0) -> bytes:
    return b"".join(registry.blob(NAME, LAYER, offset))


def shown(error: FactoryError) -> str:
    """All text that a user could see of an error, including its causes."""
    text = ""
    current: BaseException | None = error
    while current is not None:
        text += f"{current} {getattr(current, 'fix', '')}\n"
        current = current.__cause__ or current.__context__
    return text


# Row 4: 5xx and resets


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 503}, {"reset": 0}, {"reset": 1_000_000}])
def test_a_passing_failure_is_not_seen_by_the_caller(start: Start, fault: Mapping[str, Any]) -> None:
    faulty = start({"path": BLOBS, "times": 2, **fault})
    assert fetched(opened(faulty)) == CONTENT


def test_a_lasting_failure_names_host_status_and_attempts(start: Start) -> None:
    faulty = start({"path": "/manifests/", "status": 503})
    with pytest.raises(HttpFailure) as caught:
        opened(faulty).manifest(NAME, "1.0-1")
    assert caught.value.lines() == (
        f"{faulty.server.host} answered 503 (attempt 4)",
        f"try again later; if it lasts, ask who runs {faulty.server.host}",
    )
    assert (caught.value.host, caught.value.status, caught.value.attempts) == (faulty.server.host, 503, 4)
    assert caught.value.retryable
    assert len(faulty.requests("GET", "/manifests/")) == 4


def test_resets_without_end_are_given_up(start: Start) -> None:
    faulty = start({"path": BLOBS, "reset": 0})
    with pytest.raises(HttpFailure, match="broke"):
        fetched(opened(faulty))
    assert len(faulty.requests("GET", BLOBS)) == 4


def test_progress_buys_new_attempts(start: Start) -> None:
    faulty = start({"path": BLOBS, "reset": 200_000})
    assert fetched(opened(faulty)) == CONTENT
    assert len(faulty.requests("GET", BLOBS)) > 10


def test_the_budget_ends_retries_whatever_the_attempts(start: Start) -> None:
    faulty = start({"path": "/manifests/", "status": 500})
    with pytest.raises(HttpFailure):
        opened(faulty, HttpSettings(budget=2, attempts=1000, backoff=0.5)).manifest(NAME, "1.0-1")
    assert len(faulty.requests("GET", "/manifests/")) < 100


# Row 5: 429


def test_retry_after_is_obeyed(start: Start) -> None:
    faulty = start({"path": "/manifests/", "status": 429, "headers": {"Retry-After": "2"}, "times": 1})
    began = time.monotonic()
    assert opened(faulty).manifest(NAME, "1.0-1") == image()
    assert time.monotonic() - began >= 2
    assert len(faulty.requests("GET", "/manifests/")) == 2


def test_retry_after_beyond_the_budget_fails_at_once_and_says_when_to_retry(start: Start) -> None:
    headers = {"Retry-After": "Wed, 21 Oct 2015 08:28:00 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}
    faulty = start({"path": BLOBS, "status": 429, "headers": headers})
    with pytest.raises(HttpFailure, match="too many requests") as caught:
        fetched(opened(faulty))
    assert "3600 s" in caught.value.why
    assert caught.value.fix.startswith("try again after ")
    assert len(faulty.requests("GET", BLOBS)) == 1


# Rows 6 to 9: what goes wrong within a body


def test_a_stalled_stream_is_resumed_where_it_stopped(start: Start) -> None:
    faulty = start({"path": BLOBS, "stall": 2_200_000, "times": 1})
    assert fetched(opened(faulty)) == CONTENT
    resumed = faulty.requests("GET", BLOBS)[1]["headers"]["Range"]
    assert resumed == f"bytes=2097152-{LAYER.size - 1}"


def test_a_slow_stream_is_not_cut_by_the_idle_limit(start: Start) -> None:
    faulty = start({"path": BLOBS, "delay": 0.7})
    assert fetched(opened(faulty)) == CONTENT
    assert len(faulty.requests("GET", BLOBS)) == 1


@pytest.mark.parametrize("fault", [{"cut": 1_234_567}, {"cut": 10}, {"length": 1_500_000, "cut": 1_500_000}])
def test_a_truncated_body_is_continued(start: Start, fault: Mapping[str, Any]) -> None:
    faulty = start({"path": BLOBS, "times": 1, **fault})
    assert fetched(opened(faulty)) == CONTENT
    assert "Range" in faulty.requests("GET", BLOBS)[1]["headers"]


def test_more_bytes_than_the_size_are_refused(start: Start) -> None:
    faulty = start({"path": BLOBS, "add": "and more"})
    with pytest.raises(IntegrityFailure, match="the wrong size"):
        fetched(opened(faulty))


def test_a_flipped_bit_is_found_and_both_digests_are_reported(start: Start) -> None:
    faulty = start({"path": BLOBS, "flip": 1_000_000})
    with pytest.raises(IntegrityFailure) as caught:
        fetched(opened(faulty))
    assert str(LAYER.digest) in caught.value.why
    assert caught.value.why.count("sha256:") == 2
    assert caught.value.exit_code == 5


def test_a_server_that_ignores_range_is_read_from_the_start(start: Start) -> None:
    faulty = start({"path": BLOBS, "cut": 2_000_000, "times": 1}, {"path": BLOBS, "no_range": True})
    assert fetched(opened(faulty)) == CONTENT
    assert b"".join(opened(faulty).blob(NAME, LAYER, 2_999_000)) == CONTENT[2_999_000:]


@pytest.mark.parametrize(
    "fault",
    [
        {"headers": {"Content-Range": "bytes 0-9/3000000"}},
        {"headers": {"Content-Range": "bytes 2000000-2999999/4000000"}},
        {"headers": {"Content-Range": "nonsense"}},
        {"status": 416},
    ],
)
def test_a_wrong_range_means_from_the_start(start: Start, fault: Mapping[str, Any]) -> None:
    faulty = start({"path": BLOBS, "only": ["Range", "bytes.*"], "times": 1, **fault})
    assert b"".join(opened(faulty).blob(NAME, LAYER, 2_000_000)) == CONTENT[2_000_000:]
    assert "Range" not in faulty.requests("GET", BLOBS)[1]["headers"]


def test_a_request_for_a_part_never_downloads_the_whole(start: Start) -> None:
    faulty = start({"path": BLOBS, "no_range": True})
    with pytest.raises(OnlyWhole, match="does not serve parts") as caught:
        b"".join(opened(faulty).blob(NAME, LAYER, 2_000_000, 1000))
    assert not caught.value.retryable


# Row 11: hostile documents


def test_a_manifest_without_end_is_refused(start: Start) -> None:
    faulty = start({"path": "/manifests/", "add": "x" * 5_000_000, "headers": {"Docker-Content-Digest": ""}})
    with pytest.raises(IntegrityFailure, match="too large"):
        opened(faulty).manifest(NAME, "1.0-1")


def test_a_manifest_that_is_not_its_digest_is_refused(start: Start) -> None:
    faulty = start({"path": "/manifests/", "method": "GET", "flip": 30})
    for reference in ("1.0-1", str(image().descriptor.digest)):
        with pytest.raises(IntegrityFailure):
            opened(faulty).manifest(NAME, reference)


def test_a_head_that_names_another_digest_is_refused(start: Start) -> None:
    other = str(Digest.of(b"other"))
    faulty = start({"method": "HEAD", "headers": {"Docker-Content-Digest": other}})
    with pytest.raises(IntegrityFailure, match="wrong manifest"):
        opened(faulty).head(NAME, str(image().descriptor.digest))


def test_head_works_where_the_registry_does_not_tell_the_digest(start: Start) -> None:
    faulty = start({"method": "HEAD", "headers": {"Docker-Content-Digest": ""}})
    found = opened(faulty).head(NAME, "1.0-1")
    assert found is not None
    assert found.digest == image().descriptor.digest


@pytest.mark.parametrize("body", ["[]", "{", '{"tags": 5}', '{"tags": [5, "-rf", "ok", "a/b"]}', "[" * 100_000])
def test_a_broken_list_of_tags_is_an_error_or_cleaned(start: Start, body: str) -> None:
    faulty = start({"path": "/tags/list", "status": 200, "body": body})
    try:
        assert list(opened(faulty).tags(NAME)) == ["ok"]
    except IntegrityFailure as error:
        assert "tags" in str(error)  # noqa: PT017


def test_a_list_of_tags_that_never_ends_is_refused(start: Start) -> None:
    link = {"Link": f'</v2/images/{NAME}/tags/list?n=1000>; rel="next"'}
    faulty = start({"path": "/tags/list", "status": 200, "body": '{"tags": ["a"]}', "headers": link})
    with pytest.raises(IntegrityFailure, match="does not end"):
        opened(faulty).tags(NAME)
    elsewhere = {"Link": '<http://OTHER/v2/x/tags/list?n=2>; rel="next"'}
    faulty = start({"path": "/tags/list", "status": 200, "body": '{"tags": ["a"]}', "headers": elsewhere})
    with pytest.raises(IntegrityFailure, match="another host"):
        opened(faulty, login=Credential(USER, PASSWORD)).tags(NAME)
    assert faulty.requests(host="other") == []


def test_pages_of_tags_are_followed(start: Start) -> None:
    faulty = start(
        {
            "path": r"list\?n=1000$",
            "status": 200,
            "body": '{"tags": ["b"]}',
            "headers": {"Link": f'</v2/images/{NAME}/tags/list?last=b&n=1000>; rel="next"'},
        },
        {"path": "last=b", "status": 200, "body": '{"tags": ["a"]}'},
    )
    assert list(opened(faulty).tags(NAME)) == ["a", "b"]


# Row 12: redirects


def test_a_redirect_carries_no_credential_and_its_signature_is_never_shown(start: Start) -> None:
    faulty = start(
        {"path": "", "unless": ["Authorization", "Basic .*"], "status": 401}
        | {"headers": {"WWW-Authenticate": 'Basic realm="x"'}},
        {"path": BLOBS, "status": 307, "headers": {"Location": f"http://OTHER/v2/images/{NAME}{BLOBS}?sig=SECRET"}},
        {"path": "SECRET", "port": "other", "status": 403, "after": 1},
    )
    registry = opened(faulty, login=Credential(USER, PASSWORD))
    assert fetched(registry) == CONTENT
    with pytest.raises(FactoryError) as caught:
        fetched(registry)
    assert "SECRET" not in shown(caught.value)
    assert PASSWORD not in shown(caught.value)
    arrived = faulty.requests(host="other")
    assert len(arrived) > 1
    assert all("Authorization" not in request["headers"] for request in arrived)
    assert any("Authorization" in request["headers"] for request in faulty.requests("GET", BLOBS, host="main"))


def test_an_expired_signature_leads_back_to_the_registry(start: Start) -> None:
    faulty = start(
        {"path": BLOBS, "status": 307, "headers": {"Location": f"http://OTHER/v2/images/{NAME}{BLOBS}?sig=1"}},
        {"path": "sig=1", "port": "other", "cut": 1_100_000, "times": 1},
        {"path": "sig=1", "port": "other", "status": 403, "times": 1},
    )
    assert fetched(opened(faulty)) == CONTENT
    assert len(faulty.requests("GET", BLOBS, host="main")) == 3


def test_parts_go_straight_to_where_the_first_was_sent(start: Start) -> None:
    faulty = start(
        {"path": BLOBS, "status": 307, "headers": {"Location": f"http://OTHER/v2/images/{NAME}{BLOBS}?sig=1"}},
        {"path": "sig=1", "port": "other", "status": 403, "after": 5, "times": 1},
    )
    registry = opened(faulty)
    for at in range(0, 1_000_000, 100_000):
        assert b"".join(registry.blob(NAME, LAYER, at, 1000)) == CONTENT[at : at + 1000]
    assert len(faulty.requests("GET", BLOBS, host="main")) == 2


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/", "http://user:pw@OTHER/x", "//", "http://["]
)
def test_a_redirect_to_no_web_address_is_refused(start: Start, target: str) -> None:
    faulty = start({"path": BLOBS, "status": 302, "headers": {"Location": target}})
    with pytest.raises(RegistryFailure) as caught:
        fetched(opened(faulty))
    assert "root:" not in shown(caught.value)


def test_redirects_in_a_circle_are_refused(start: Start) -> None:
    faulty = start({"path": "/manifests/", "status": 307, "headers": {"Location": "http://SELF/v2/manifests/"}})
    with pytest.raises(HttpFailure, match="refused to follow"):
        opened(faulty).manifest(NAME, "1.0-1")
    assert len(faulty.requests()) == 6


# Pushing; rows 22 and 23


def new_blob(tmp_path: Path, size: int = 9_000_000) -> tuple[Path, Descriptor]:
    content = hashlib.shake_128(str(tmp_path).encode()).digest(size)
    (tmp_path / "new.sif").write_bytes(content)
    return tmp_path / "new.sif", Descriptor.of(SIF_LAYER, content)


@pytest.mark.parametrize(
    "fault",
    [
        {"method": "PUT", "status": 503, "times": 2},
        {"method": "PUT", "hang_up_after": 3_000_000, "times": 1},
        {"method": "PUT", "status": 404, "body": '{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}', "times": 1},
        {"method": "POST", "status": 500, "times": 2},
        {"method": "POST", "reset": 0, "times": 1},
        {"method": "PUT", "status": 429, "headers": {"Retry-After": "1"}, "times": 1},
    ],
)
def test_an_upload_survives_a_passing_failure(start: Start, tmp_path: Path, fault: Mapping[str, Any]) -> None:
    faulty = start({"path": "/blobs/uploads/", **fault})
    source, wanted = new_blob(tmp_path)
    progress = Counting()
    opened(faulty).push_blob(NAME, source, wanted, progress)
    assert opened(faulty).has_blob(NAME, wanted)
    assert progress.done == wanted.size


def test_an_upload_whose_answer_is_lost_is_not_sent_again(start: Start, tmp_path: Path) -> None:
    faulty = start({"path": "/blobs/uploads/", "method": "PUT", "lost": True})
    source, wanted = new_blob(tmp_path)
    opened(faulty).push_blob(NAME, source, wanted, Silent())
    assert len(faulty.requests("PUT")) == 1


def test_an_upload_that_always_fails_ends(start: Start, tmp_path: Path) -> None:
    faulty = start({"path": "/blobs/uploads/", "method": "PUT", "hang_up_after": 1_000_000})
    source, wanted = new_blob(tmp_path)
    progress = Counting()
    with pytest.raises(HttpFailure):
        opened(faulty).push_blob(NAME, source, wanted, progress)
    assert progress.done == 0
    assert len(faulty.requests("PUT", "/blobs/uploads/")) == 4


@pytest.mark.parametrize("status", [404, 405])
def test_chunks_are_sent_where_a_single_body_is_refused(start: Start, tmp_path: Path, status: int) -> None:
    faulty = start(
        {"path": "/blobs/uploads/", "method": "PUT", "when_body": True, "status": status},
        {"path": "/blobs/uploads/", "method": "PATCH", "status": 502, "after": 1, "times": 1},
    )
    source, wanted = new_blob(tmp_path)
    progress = Counting()
    opened(faulty).push_blob(NAME, source, wanted, progress)
    pieces = [request["headers"]["Content-Range"] for request in faulty.requests("PATCH")]
    assert pieces == ["0-4194303", "4194304-8388607", "4194304-8388607", "8388608-8999999"]
    assert progress.done == wanted.size


def test_too_large_is_explained(start: Start, tmp_path: Path) -> None:
    faulty = start({"path": "/blobs/uploads/", "method": "PUT", "status": 413})
    source, wanted = new_blob(tmp_path, 1000)
    with pytest.raises(HttpFailure, match="does not accept uploads of this size") as caught:
        opened(faulty).push_blob(NAME, source, wanted, Silent())
    assert "413" in caught.value.why
    assert not caught.value.retryable


def test_an_upload_beyond_a_known_limit_is_not_started(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty = start()
    monkeypatch.setitem(limits.KNOWN, faulty.server.host, limits.Limits(999, 600.0))
    source, wanted = new_blob(tmp_path, 1000)
    with pytest.raises(limits.BeyondLimits, match="does not accept images of") as caught:
        opened(faulty).push_blob(NAME, source, wanted, Silent())
    assert caught.value.exit_code == 4
    assert not caught.value.retryable
    assert faulty.requests("POST") == []


def test_an_upload_that_a_registry_ends_for_its_length_is_not_sent_again(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty = start({"path": "/blobs/uploads/", "method": "PUT", "delay": 0.5, "lost": True})
    monkeypatch.setitem(limits.KNOWN, faulty.server.host, limits.Limits(10**6, 0.3))
    source, wanted = new_blob(tmp_path, 1000)
    with pytest.raises(limits.BeyondLimits, match="ended the upload"):
        opened(faulty).push_blob(NAME, source, wanted, Silent())
    assert len(faulty.requests("PUT")) == 1


TOKENS = [
    {"path": "/token", "status": 200, "body": '{"token": "T1", "expires_in": 3600}', "times": 1},
    {"path": "/token", "status": 200, "body": '{"token": "T2", "expires_in": 3600}'},
]


def wants(token: str, **more: object) -> dict[str, object]:
    challenge = 'Bearer realm="http://SELF/token",service="test",scope="repository:images/tool:pull,push"'
    return {
        "unless": ["Authorization", f"Bearer {token}"],
        "status": 401,
        "headers": {"WWW-Authenticate": challenge},
    } | more


def test_a_token_that_expires_in_an_upload_is_renewed_once(start: Start, tmp_path: Path) -> None:
    faulty = start(*TOKENS, wants("T2", method="PUT", path="/uploads/"), wants("T[12]"))
    source, wanted = new_blob(tmp_path)
    progress = Counting()
    opened(faulty).push_blob(NAME, source, wanted, progress)
    assert len(faulty.requests("GET", "/token")) == 2
    assert len(faulty.requests("PUT")) == 2
    assert progress.done == wanted.size


def test_an_upload_that_is_never_authorized_does_not_restart_forever(start: Start, tmp_path: Path) -> None:
    faulty = start(*TOKENS, wants("T3", method="PUT", path="/uploads/"), wants("T[12]"))
    source, wanted = new_blob(tmp_path)
    with pytest.raises(AccessDenied) as caught:
        opened(faulty).push_blob(NAME, source, wanted, Silent())
    assert len(faulty.requests("PUT")) == 2
    assert f"singfactory login http://{faulty.server.host}" in caught.value.fix


def test_a_cached_token_that_expired_is_renewed_in_a_download(start: Start) -> None:
    faulty = start(
        *TOKENS, wants("T2", path=BLOBS, after=1), {"path": BLOBS, "cut": 1_100_000, "times": 1}, wants("T[12]")
    )
    registry = opened(faulty)
    registry.manifest(NAME, "1.0-1")
    assert fetched(registry) == CONTENT
    assert len(faulty.requests("GET", "/token")) == 2


def test_a_registry_that_refuses_every_token_is_asked_a_bounded_number_of_times(start: Start) -> None:
    faulty = start(*TOKENS, wants("never"))
    with pytest.raises(AccessDenied):
        opened(faulty, login=Credential(USER, PASSWORD)).manifest(NAME, "1.0-1")
    assert len(faulty.requests()) < 10


def test_tokens_are_shared_by_operations(start: Start) -> None:
    faulty = start(*TOKENS, wants("T1"))
    registry = opened(faulty)
    for _ in range(3):
        registry.manifest(NAME, "1.0-1")
        registry.tags(NAME)
    assert len(faulty.requests("GET", "/token")) == 1
    asked = faulty.requests("GET", "/token")[0]["query"]
    assert asked == "service=test&scope=repository%3Aimages%2Ftool%3Apull"


@pytest.mark.parametrize("place", ["token service", "registry"])
def test_a_stored_login_that_is_refused_does_not_stop_a_pull(start: Start, place: str) -> None:
    refusal = {"status": 403, "body": '{"errors":[{"code":"DENIED"}]}'}
    if place == "token service":
        rules = [{"path": "/token", "only": ["Authorization", "Basic .*"], **refusal}, TOKENS[0], wants("T1")]
    else:
        login = {"path": "/token", "only": ["Authorization", "Basic .*"], "status": 200, "body": '{"token": "BAD"}'}
        rules = [login, TOKENS[0], {"path": "/v2/", "only": ["Authorization", "Bearer BAD"], **refusal}, wants("T1")]
    faulty = start(*rules)
    notices: list[str] = []
    registry = opened(faulty, login=Credential(USER, PASSWORD, source="the settings"), notices=notices)
    assert fetched(registry) == CONTENT
    assert registry.manifest(NAME, "1.0-1") == image()
    assert notices == [
        f"{faulty.server.host} refused the stored login of robot (the settings); continuing without a login"
    ]


def test_an_identity_token_is_exchanged_by_post(start: Start) -> None:
    faulty = start({"path": "/token", "method": "POST", "status": 200, "body": '{"access_token": "T1"}'}, wants("T1"))
    login = Credential(identity_token="opaque")
    assert opened(faulty, login=login).manifest(NAME, "1.0-1") == image()
    assert faulty.requests("POST", "/token")[0]["query"] == ""


def test_secrets_are_in_no_error_and_no_repr(start: Start) -> None:
    faulty = start(
        {"path": "/token", "status": 200, "body": '{"token": "TOPSECRET"}'},
        wants("TOPSECRET"),
        {"path": "/manifests/", "status": 500},
        {"path": "/tags/", "status": 400, "body": '{"errors":[{"code":"X","message":"\\u001b[31mred"}]}'},
    )
    registry = opened(faulty, login=Credential(USER, PASSWORD))
    for call in (lambda: registry.manifest(NAME, "1.0-1"), lambda: registry.tags(NAME)):
        with pytest.raises(FactoryError) as caught:
            call()
        for secret in ("TOPSECRET", PASSWORD, "Bearer", "\x1b"):
            assert secret not in shown(caught.value) + repr(caught.value) + repr(registry.__dict__)


# Referrers


def test_a_registry_that_redirects_the_referrers_api_elsewhere_has_none(start: Start) -> None:
    redirect = {"path": "/referrers/", "status": 303, "headers": {"Location": "http://OTHER/a/web/page"}}
    faulty = start(redirect)
    assert list(opened(faulty).referrers(NAME, image().descriptor.digest)) == []
    assert faulty.requests(host="other") == []


def test_a_tag_that_is_read_as_the_digest_lists_no_referrers(start: Start) -> None:
    for subject in (image(), referrer_index([image().descriptor])):
        digest = subject.descriptor.digest
        faulty = start({"path": f"/manifests/sha256-{digest.hex}", "status": 200, "body": subject.content.decode()})
        assert list(opened(faulty).referrers(NAME, digest)) == []


def test_a_folder_address_is_no_registry_over_http() -> None:
    with pytest.raises(FactoryError):
        DistributionRegistry(RegistryAddress.parse("oci:/nowhere"))
