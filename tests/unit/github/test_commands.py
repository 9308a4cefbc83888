from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.errors import UsageError
from factory.github.commands import annotation, debug, endgroup, group, mask, new_token, resume, stop

HOSTILE = st.text(alphabet=st.sampled_from("ab:,%\r\n0AD=") | st.characters())


def read_by_the_runner(command: str) -> tuple[str, dict[str, str], str]:
    """Parse a command like the runner: ActionCommand.TryParseV2 of github.com/actions/runner."""

    def decoded(text: str, *pairs: tuple[str, str]) -> str:
        for code, letter in (*pairs, ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
            text = text.replace(code, letter)
        return text

    head, _, data = command.removeprefix("::").partition("::")
    level, _, rest = head.partition(" ")
    pairs = [pair.partition("=") for pair in rest.split(",") if pair]
    return level, {key: decoded(text, ("%3A", ":"), ("%2C", ",")) for key, _, text in pairs}, decoded(data)


@pytest.mark.parametrize(
    ("shown", "command"),
    [
        (annotation("error", "no base"), "::error::no base"),
        (annotation("warning", "x", file="recipes/a/image.def"), "::warning file=recipes/a/image.def::x"),
        (annotation("notice", "x", file="a.def", line=7), "::notice file=a.def,line=7::x"),
        (annotation("error", "x", line=7), "::error::x"),
        (annotation("error", "50 %\r\nof: it, all"), "::error::50 %25%0D%0Aof: it, all"),
        (annotation("error", "x", file="a:b,c%d\ne"), "::error file=a%3Ab%2Cc%25d%0Ae::x"),
    ],
)
def test_an_annotation_is_written_as_github_documents_it(shown: str, command: str) -> None:
    assert shown == command


@given(HOSTILE, HOSTILE, st.integers(0, 10**6))
def test_any_text_becomes_one_command_on_one_line(message: str, file: str, line: int) -> None:
    command = annotation("error", message, file=file, line=line)
    assert "\n" not in command
    assert "\r" not in command
    level, properties, _ = read_by_the_runner(command)
    assert level == "error"
    assert set(properties) == ({"file", "line"} if file and line else {"file"} if file else set())


@given(st.text(alphabet="abc:,%\r\n= ::"), st.text(alphabet="abc:,%\r\n= /", min_size=1))
def test_the_runner_decodes_the_original_text(message: str, file: str) -> None:
    # The runner decodes %25 last, as the toolkit encodes it first: nothing is decoded twice.
    _, properties, data = read_by_the_runner(annotation("notice", message, file=file))
    assert (properties["file"], data) == (file, message)


class Runner:
    """Process a job's output like the runner: ActionCommandManager.TryProcessCommand of github.com/actions/runner.

    obeyed: commands and their data. Names count without case; a command stands at the start of a line (after spaces),
    or, in the old form, after ``##[``.
    """

    KNOWN = frozenset(
        {"stop-commands", "add-mask", "set-output", "set-env", "debug", "error", "warning", "group", "endgroup"}
    )

    def __init__(self) -> None:
        self.obeyed: list[tuple[str, str]] = []
        self._token = ""

    def read(self, output: str) -> Runner:
        for line in output.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
            name, data = self._command(line)
            if self._token:
                if name == self._token.lower():
                    self._token = ""
            elif name == "stop-commands":
                self._token = data
            elif name:
                self.obeyed.append((name, data))
        return self

    def _command(self, line: str) -> tuple[str, str]:
        known = self.KNOWN | {self._token.lower()}
        text = line.lstrip()
        if text.startswith("::") and "::" in text[2:]:
            head, _, data = text[2:].partition("::")
            name = head.partition(" ")[0].lower()
            if name in known:
                return name, data
        head, _, data = line.partition("##[")[2].partition("]")
        name = head.partition(" ")[0].lower()
        return (name, data) if name in known else ("", "")


# Output of an untrusted build: commands of both forms, alone and within a line, with all kinds of line ends.
UNTRUSTED = st.lists(
    st.sampled_from(
        [
            "::set-output name=x::1",
            "::add-mask::a",
            "##[add-mask]a",
            "::stop-commands::a",
            "::a::",
            "::endgroup::",
            "::",
            *("  ", "\n", "\r", "\r\n", "a", "stop-commands", "%0A", "\u2028"),
        ]
    )
    | st.text(max_size=5)
).map("".join)


@given(UNTRUSTED)
def test_quoted_lines_are_no_commands_and_later_lines_are(text: str) -> None:
    token = new_token()
    runner = Runner().read(f"{stop(token)}\n{text}\n{resume(token)}\n{debug('we go on')}\n")
    assert runner.obeyed == [("debug", "we go on")]


def test_the_simulated_runner_executes_unquoted_commands() -> None:
    text = "::set-output name=x::1\nlog: ##[add-mask]a\nlog: ::add-mask::a\n ::GROUP::b\n"
    assert Runner().read(text).obeyed == [("set-output", "1"), ("add-mask", "a"), ("group", "b")]


def test_every_token_is_random() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(len(token) == 32 for token in tokens)


@pytest.mark.parametrize(
    "token", ["", "pause-logging", "add-mask", "a b", "0123456789abcdef\n", "x" * 129, "0123456789abcde::"]
)
def test_a_guessable_token_or_a_command_name_is_refused(token: str) -> None:
    for use in (stop, resume):
        with pytest.raises(UsageError, match="not a valid token"):
            use(token)


@pytest.mark.slow
@given(HOSTILE)
def test_groups_and_debug_messages_are_one_line_and_decode_correctly(text: str) -> None:
    for name, command in (("group", group(text)), ("debug", debug(text))):
        assert not set("\r\n") & set(command)
        assert read_by_the_runner(command) == (name, {}, text)
    assert endgroup() == "::endgroup::"


@given(st.lists(HOSTILE).map("\n".join))
def test_each_line_of_a_secret_is_masked(secret: str) -> None:
    hidden = [read_by_the_runner(command) for command in mask(secret)]
    lines = [line for line in secret.replace("\r", "\n").split("\n") if line.strip()]
    assert hidden == [("add-mask", {}, line) for line in lines]


def test_an_empty_secret_masks_nothing() -> None:
    assert mask("") == mask(" \n\r\n\t") == ()
