from __future__ import annotations

import os
import subprocess
import sys

import pytest

from factory.errors import NotFound
from factory.io.become import absolute_searches, become

ENV = {"PATH": os.environ["PATH"]}
BECOME = """
import os, sys
from factory.io.become import become
print("before")
become(sys.argv[1:], {**os.environ, "X": "inside"})
"""


def test_becoming_a_program_keeps_the_process_its_status_and_what_was_printed() -> None:
    command = [sys.executable, "-c", BECOME, "sh", "-c", "echo $$ $X; exit 9"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        out, _ = started.communicate(timeout=20)
    assert out == f"before\n{started.pid} inside\n"
    assert started.returncode == 9


def test_becoming_a_missing_program_is_a_proper_error() -> None:
    with pytest.raises(NotFound, match="the program no-such-program was not found"):
        become(["no-such-program"], ENV)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("/usr/bin:/bin", "/usr/bin:/bin"),
        (".:/bin", "/bin"),
        (":/bin", "/bin"),
        ("/bin:", "/bin"),
        ("/bin::/sbin", "/bin:/sbin"),
        ("bin:~/bin:../bin:/bin", "/bin"),
        (":", None),
        ("", None),
    ],
)
def test_search_paths_have_no_relative_entries(given: str, kept: str | None) -> None:
    for name in ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PERL5LIB"):
        assert absolute_searches({name: given, "X": given}).get(name) == kept
    assert absolute_searches({"X": given}) == {"X": given}
    assert absolute_searches({"LD_LIBRARY_PATH": "/lib;.;/x"}) == {"LD_LIBRARY_PATH": "/lib:/x"}
