from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.io.http.client import Client
from factory.io.http.settings import host_of, origin_of, redacted


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://ghcr.io/v2/a/blobs/sha256:1?sig=SECRET#x", "https://ghcr.io/v2/a/blobs/sha256:1"),
        ("https://user:SECRET@ghcr.io:444/v2/", "https://ghcr.io:444/v2/"),
        ("https://GHCR.io", "https://ghcr.io"),
        ("/v2/a/blobs/uploads/1?state=SECRET", "/v2/a/blobs/uploads/1"),
        ("http://[::1", "an address that cannot be read"),
    ],
)
def test_a_redacted_url_has_no_login_and_no_query(url: str, shown: str) -> None:
    assert redacted(url) == shown


@given(st.text(max_size=200), st.text(max_size=50))
def test_no_query_survives_redaction(path: str, query: str) -> None:
    text = redacted(f"https://user:hunter2@host/{path}?SIGNATURE{query}")
    assert "SIGNATURE" not in text
    assert "hunter2@" not in text
    assert text.isprintable()


@given(st.text(max_size=300))
def test_redaction_takes_any_text(text: str) -> None:
    assert redacted(text).isprintable() or redacted(text) == ""
    assert isinstance(host_of(text), str)


def test_default_ports_make_the_same_origin() -> None:
    assert origin_of("https://Host/a") == origin_of("https://host:443/b")
    assert origin_of("https://host") != origin_of("http://host")
    assert origin_of("https://host") != origin_of("https://host:444")


def test_urllib3_logs_no_query(caplog: pytest.LogCaptureFixture) -> None:
    Client().close()
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("urllib3.connectionpool").debug('%s://%s "GET %s"', "https", "host", "/blob?sig=SECRET")
    assert "SECRET" not in caplog.text
    assert 'https://host "GET /blob?..."' in caplog.text
