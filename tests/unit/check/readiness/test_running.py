"""What the output of an entry point says. Real entry points: tests/integration/test_readiness_running.py."""

from __future__ import annotations

import time

import pytest

from factory.check.readiness.running import is_worth_starting, judged
from factory.recipes.codes import CODES

DOCKER = "#!/bin/sh\nOCI_ENTRYPOINT='{}'\nOCI_CMD='{}'\n\n# When SINGULARITY_NO_EVAL set …\nexec \"$@\"\n"


@pytest.mark.parametrize(
    ("text", "failed", "code", "place"),
    [
        ("mkdir: can't create directory '/app/log': Read-only file system", True, "entry-point-writes", "/app/log"),
        ("OSError: [Errno 30] Read-only file system: '/srv/x/y.db'", False, "entry-point-writes", "/srv/x/y.db"),
        ("Error: EROFS: read-only file system, mkdir '/usr/src/app'", True, "entry-point-writes", "/usr/src/app"),
        ("/.singularity.d/runscript: 3: cannot create /x: Read-only file system", True, "entry-point-writes", "/x"),
        ("Read-only file system", True, "entry-point-writes", "/.singularity.d/runscript"),
        ("chown: /home/test: Invalid argument", False, "entry-point-needs-root", "/.singularity.d/runscript"),
        ("chown: /data: Operation not permitted", False, "entry-point-needs-root", "/.singularity.d/runscript"),
        ('error: failed switching to "www": operation not permitted', True, "entry-point-needs-root", None),
        ("This script must be run as root", True, "entry-point-needs-root", None),
        ("nginx: [emerg] bind() to 0.0.0.0:80 failed (13: Permission denied)", True, "entry-point-needs-root", None),
        ("E: Unable to lock directory, are you root?", True, "entry-point-needs-root", None),
        ("cat: /app/config: Permission denied", True, "entry-point-needs-root", None),
        ("cat: /app/config: Permission denied", False, "", None),
        ("cat: /home/test/x: Permission denied", True, "", None),
        ("usage: tool FILE\n", True, "", None),
        ("loading /root.bin; the rootfs should be fine", True, "", None),
        ("", True, "", None),
    ],
)
def test_what_an_entry_point_says_is_understood(text: str, failed: bool, code: str, place: str | None) -> None:  # noqa: FBT001
    found = list(judged(f"starting\n{text}\nbye\n", failed=failed))
    assert [one.code for one in found] == ([code] if code else [])
    if place:
        assert found[0].place == place
    assert all(one.severity == "warning" == CODES[one.code].severity for one in found)


@pytest.mark.parametrize(
    ("script", "worth"),
    [
        ("", False),
        ("#!/bin/sh\n", False),
        ('#!/bin/sh\n\nexec /bin/bash "$@"\n', False),
        ('#!/bin/sh\n\nexec python3 "$@"\n', False),
        ('#!/bin/sh\n\nexec python3 -m app "$@"\n', True),
        ('#!/bin/sh\n\nexec tool "$@"\n', True),
        ("#!/bin/sh\n\nmkdir -p /app/log\nexec bash\n", True),
        ("#!/bin/sh\n\necho hello\n", True),
        (DOCKER.format("", '"bash"'), False),
        (DOCKER.format("", '"/bin/sh" "-c" "x"'), True),
        (DOCKER.format('"/entrypoint.sh"', '"bash"'), True),
        (DOCKER.format("", ""), False),
        ("#!/bin/sh\n\nexec 'unclosed\n", True),
    ],
)
def test_only_entry_points_that_can_say_something_are_started(script: str, worth: bool) -> None:  # noqa: FBT001
    assert is_worth_starting(script) == worth


def test_output_that_is_made_to_be_slow_is_not() -> None:
    text = "\n".join(
        ["must " * 80, "chown " + "x" * 390, "bind " * 80, "/" * 400, "permission denied " + "/a" * 150] * 400
    )
    started = time.process_time()
    list(judged(text, failed=True))
    assert time.process_time() - started < 5
