"""Shell text in a definition file means to a shell what it should, checked with real shells."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.recipes.definition.definition import begins_structure
from factory.recipes.definition.templates import TEMPLATE
from factory.recipes.dockerfile.running import inline
from factory.recipes.dockerfile.shell import commands, is_plain, is_safe, join, quote, value
from factory.recipes.dockerfile.words import expand

TEXT = st.text(st.sampled_from("ab'\"\\$`{}%x \n\t#=:é[]*?~!;&|()<>-"), max_size=40)


def printed(script: str) -> str:
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True, env={"B": "from base"})
    return done.stdout


@given(TEXT)
def test_a_quoted_text_is_the_text_itself(text: str) -> None:
    quoted = quote(text)
    assert printed(f"printf %s {quoted}") == text
    assert TEMPLATE.search(quoted) is None
    assert not any(begins_structure(line) for line in quoted.split("\n")[1:])


@given(TEXT)
def test_a_value_with_a_reference_is_the_text_and_the_variable(text: str) -> None:
    literal = text.replace("\\", "\\\\").replace("$", "\\$").replace('"', '\\"')
    symbolic = expand(f'"{literal}"$B', {}, refer=True)
    quoted = value(symbolic)
    assert printed(f"printf %s {quoted}") == f"{text}from base"
    assert TEMPLATE.search(quoted) is None


@pytest.mark.parametrize("text", ["${B:-x}", "${NONE:-x}", "${B:+y}z", "${NONE-a}b}", "${B%base}", "${B##*m}"])
def test_a_reference_with_an_operator_is_the_shells(text: str) -> None:
    assert printed(f"printf %s {value(expand(text, {}, refer=True))}") == expand(text, {"B": "from base"})


def test_structure_and_templates_are_broken_up() -> None:
    assert quote("a\n%post\nBootstrap: x\n{{ y }}") == "'a\n''%post\n''Bootstrap: x\n{''{ y }}'"
    assert join(["a b", "c"]) == "'a b' c"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", ("a",)),
        ("a   b &&   c", ("a b", "c")),
        ("a 'x  && y' && b \"$C  d\"", ("a 'x  && y'", 'b "$C  d"')),
        ("cd /x && make >/dev/null 2>&1", ("cd /x", "make >/dev/null 2>&1")),
        ("A=1 b", ("A=1 b",)),
        ("a; b", None),
        ("a || b", None),
        ("a | b", None),
        ("a & b", None),
        ("if x", None),
        ("a && set -e", None),
        ("a && exit 1", None),
        ("a $(b)", None),
        ("a `b`", None),
        ("a #b", None),
        ("a '", None),
        ("a &&", None),
        ("(a)", None),
        ("{ a", None),
        ("! a", None),
        ("cat <<EOF", None),
    ],
)
def test_lists_of_simple_commands_are_recognized(text: str, expected: tuple[str, ...] | None) -> None:
    assert commands(text) == expected


def test_what_changes_the_shell_is_not_plain() -> None:
    assert [text for text in ("make", "cd /x", "export A=1", "A=1", "A=1 b", ". x") if is_plain(text)] == ["make"]


@pytest.mark.parametrize("text", ["a '", 'a "', "a \\", "a {{ b }}", "a\n%b", "a\nbootstrap: c", "a `b`"])
def test_open_or_structural_text_is_not_safe(text: str) -> None:
    assert not is_safe(text)


SCRIPTS = [
    "false; echo after",
    "false && echo no",
    "false || echo yes",
    "set -e; false; echo no",
    "set -eu; echo $UNSET; echo no",
    "exit 3",
    "cd / && exit",
    "x=1; echo $x",
    "printf '%s.' 'a\\nb' \"$B\" {{ x }}",
    "if false; then :; fi",
    "true | false",
    "trap 'echo trapped' EXIT",
    "echo a # comment",
    "(exit 4)",
    "cat <<X\n$B 'it\nX",
    "cat <<'X'\n%post $B\nX",
    "! true",
    "export B=changed; cd /tmp; umask 0; set -x",
    "exec false",
    "echo one >&2; echo two",
    "echo \\",
    "echo 'unclosed",
    ")",
]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_a_script_in_post_does_what_a_shell_of_its_own_does(script: str, shell: str) -> None:
    env = {"B": "from base", "PATH": "/usr/bin:/bin"}
    alone = subprocess.run([shell, "-c", script], capture_output=True, text=True, check=False, env=env)
    whole = f'{inline(script)}\necho "end $B $(pwd) $(umask) $-"\n'
    post = subprocess.run([shell, "-ex", "-c", whole], capture_output=True, text=True, check=False, env=env, cwd="/usr")
    if alone.returncode:
        assert post.returncode == alone.returncode
        assert post.stdout == alone.stdout
    else:
        body, _, end = post.stdout.rpartition("end ")
        assert body == alone.stdout
        assert end.startswith("from base /usr 0022 ")
        assert "e" in end.split()[-1]
