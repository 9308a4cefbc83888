from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest

from factory.engine.output import Output
from factory.errors import BuildFailed, FactoryError, NoRoom, RegistryFailure

LOG = Path("/srv/build.log")
START = """\
INFO:    Starting build...
INFO:    Fetching OCI image...
27.8MiB / 27.8MiB [================================================================] 100 % 35.1 MiB/s 0s
INFO:    Extracting OCI image...
INFO:    Inserting Apptainer configuration...
"""
POST = (
    START
    + """\
INFO:    Running post scriptlet
+ apt-get update
Hit:1 http://mirror.example.org/debian bookworm InRelease
+ pip install no-such-package
ERROR: Could not find a version that satisfies the requirement no-such-package (from versions: none)
ERROR: No matching distribution found for no-such-package
WARNING: there was an error checking the latest version of pip
"""
)


def failure(text: str, status: int = 255) -> FactoryError:
    output = Output(lambda _: None)
    output.take(text.encode())
    output.end()
    return output.failure(status, LOG)


def lines_of(blocks: Iterable[bytes]) -> list[str]:
    seen: list[str] = []
    output = Output(seen.append)
    for block in blocks:
        output.take(block)
    output.end()
    return seen


def test_a_failed_post_section_shows_the_last_lines_of_its_own_output() -> None:
    error = failure(POST + "FATAL:   While performing build: while running engine: exit status 1\n")
    assert isinstance(error, BuildFailed)
    assert error.lines() == (
        "%post failed",
        "While performing build: while running engine: exit status 1",
        "the whole log is /srv/build.log",
    )
    assert error.detail == (
        "+ apt-get update",
        "Hit:1 http://mirror.example.org/debian bookworm InRelease",
        "+ pip install no-such-package",
        "ERROR: Could not find a version that satisfies the requirement no-such-package (from versions: none)",
        "ERROR: No matching distribution found for no-such-package",
        "WARNING: there was an error checking the latest version of pip",
    )


@pytest.mark.parametrize("line", ["INFO: done", "INFO:root:done", "FATAL: cannot", "FATAL ERROR: x", "  INFO:    x"])
def test_a_program_that_logs_like_the_engine_does_not_end_the_section(line: str) -> None:
    error = failure(f"{POST}{line}\nFATAL:   While performing build: exit status 1\n")
    assert error.what == "%post failed"
    assert error.why == "While performing build: exit status 1"
    assert error.detail[-1] == line


def test_only_the_last_lines_are_shown_and_long_ones_are_cut() -> None:
    many = "".join(f"line {number} {'x' * 1000}\n" for number in range(1000))
    error = failure(f"{START}INFO:    Running post scriptlet\n{many}FATAL:   exit status 1\n")
    assert len(error.detail) == 15
    assert error.detail[-1].startswith("line 999 ")
    assert max(len(line) for line in error.detail) == 400


def test_a_failure_after_the_section_is_not_blamed_on_it() -> None:
    error = failure(POST + "INFO:    Creating SIF file...\nFATAL:   While performing build: while creating SIF: bad\n")
    assert error.lines()[:2] == ("the build failed", "While performing build: while creating SIF: bad")


@pytest.mark.parametrize("section", ["setup", "post", "test"])
def test_the_section_that_ran_is_named(section: str) -> None:
    assert failure(f"INFO:    Running {section} scriptlet\nFATAL:   exit status 2\n").what == f"%{section} failed"


@pytest.mark.parametrize(
    "text",
    [
        POST
        + "dpkg: error: failed to write: No space left on device\nFATAL:   While performing build: exit status 100\n",
        START + "FATAL:   While performing build: while creating squashfs: write: no space left on device\n",
        START + "FATAL:   While performing build: unpack: write /tmp/x: disk quota exceeded\n",
    ],
)
def test_a_full_disk_is_recognized_by_the_output(text: str) -> None:
    error = failure(text)
    assert isinstance(error, NoRoom)
    assert error.what == "no space left while building"
    assert "SINGFACTORY_TMPDIR" in error.fix


@pytest.mark.parametrize(
    "fatal",
    [
        "conveyor failed to get: reading manifest 99 in docker.io/library/debian: manifest unknown",
        "conveyor failed to get: GET https://ghcr.io/v2/o/x/manifests/1: MANIFEST_UNKNOWN: manifest unknown",
        "conveyor failed to get: errors:\\ndenied: requested access to the resource is denied\\nunauthorized: x",
        "conveyor failed to get: GET https://ghcr.io/token: UNAUTHORIZED: authentication required",
        "conveyor failed to get: NAME_UNKNOWN: repository name not known to registry: name unknown",
    ],
)
def test_a_missing_base_image_is_recognized_by_the_output(fatal: str) -> None:
    error = failure(f"INFO:    Starting build...\nFATAL:   While performing build: {fatal}\n")
    assert isinstance(error, BuildFailed)
    assert error.what == "the base image does not exist or is private"
    assert error.why.endswith(fatal)


@pytest.mark.parametrize(
    "fatal",
    [
        'Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: no such host',
        'Get "http://localhost:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused',
        "read tcp 10.0.0.1:1->2.2.2.2:443: read: connection reset by peer",
        "net/http: TLS handshake timeout",
        "toomanyrequests: You have reached your pull rate limit",
        'Get "https://x/v2/": http: server gave HTTP response to HTTPS client',
        "unexpected EOF",
    ],
)
def test_a_network_failure_before_the_first_section_can_be_retried(fatal: str) -> None:
    error = failure(f"INFO:    Starting build...\nFATAL:   While performing build: conveyor failed to get: {fatal}\n")
    assert isinstance(error, RegistryFailure)
    assert error.retryable


def test_a_network_failure_inside_a_section_is_a_failed_build() -> None:
    error = failure(POST + "curl: (7) connection refused\nFATAL:   While performing build: exit status 7\n")
    assert isinstance(error, BuildFailed)
    assert error.what == "%post failed"


@pytest.mark.parametrize("status", [1, 255, -9])
def test_an_engine_that_prints_nothing_is_reported_by_its_status(status: int) -> None:
    error = failure("", status)
    assert error.lines()[:2] == ("the build failed", f"the engine ended with status {status}")


def test_coloured_lines_are_read_like_plain_ones() -> None:
    text = "\x1b[34mINFO:   \x1b[0m Running post scriptlet\n+ false\n\x1b[31mFATAL:  \x1b[0m exit status 1\n"
    error = failure(text)
    assert (error.what, error.why, error.detail) == ("%post failed", "exit status 1", ("+ false",))


def test_lines_arrive_whole_and_clean_however_the_stream_is_cut() -> None:
    text = "one\ntwo é\r\n10 %\r50 %\r100 %\n\x1b[1mbold\x1b[0m\x07\ttab\nlast".encode()
    wanted = ["one", "two é", "100 %", "bold\ttab", "last"]
    assert lines_of([text]) == wanted
    assert lines_of([text[at : at + 1] for at in range(len(text))]) == wanted


def test_bytes_that_are_not_text_are_replaced() -> None:
    assert lines_of([b"\xff\xfe\n", b"ok\n"]) == ["\ufffd\ufffd", "ok"]


@pytest.mark.slow
def test_a_stream_without_newlines_or_without_end_does_not_fill_the_memory() -> None:
    output = Output(lambda _: None)
    tracemalloc.start()
    for _ in range(300):
        output.take(b"x" * 65536)
    for _ in range(300):
        output.take(b"short line\n" * 1000)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 60_000_000


@pytest.mark.slow
def test_endless_fatal_messages_take_bounded_memory() -> None:
    output = Output(lambda _: None)
    tracemalloc.start()
    for _ in range(200):
        output.take(b"FATAL:   a recipe prints this\n" * 2000)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1_000_000
    assert len(failure("FATAL:   " + "x" * 60_000).why) == 400


def test_eight_bit_control_characters_are_removed() -> None:
    assert lines_of(["a\x9b31mb\x85c\n".encode()]) == ["a31mbc"]
