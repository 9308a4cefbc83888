"""Dockerfiles are read as Docker reads them; problems have a file, a line and a way out."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from factory.recipes.dockerfile.model import Dockerfile, Instruction
from factory.recipes.dockerfile.parser import parse, read, scan
from factory.recipes.model import ProblemError

PATH = Path("Dockerfile")


def stage(text: str) -> tuple[Instruction, ...]:
    return parse(f"FROM scratch\n{text}", PATH).stages[0].instructions


def one(text: str) -> Instruction:
    (found,) = stage(text)
    return found


def test_directives_are_read_until_the_first_other_line() -> None:
    found = parse("# syntax = docker/dockerfile:1 \n#ESCAPE=`\n# other=1\n# check=x\nFROM a`\nb\n", PATH)
    assert [(one.name, one.value, one.line) for one in found.directives] == [
        ("syntax", "docker/dockerfile:1", 1),
        ("escape", "`", 2),
    ]
    assert found.escape == "`"
    assert found.stages[0].base == "ab"


def test_a_directive_after_a_blank_line_is_a_comment() -> None:
    assert parse("\n# escape=`\nFROM a\\\nb\n", PATH).stages[0].base == "ab"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RUN a \\\n  b\n", "a   b"),
        ("RUN a \\  \t\n b\n", "a  b"),
        ("RUN a \\\n# comment\n\n   # another \\\n b\n", "a  b"),
        ("RUN a \\\\\n", "a \\\\"),
        ("run a\n", "a"),
        ("  \tRUN\ta  b\n", "a  b"),
        ("RUN a # no comment\n", "a # no comment"),
        ("RUN a \\", "a"),
        ("RUN a \\\r\n b\r\n", "a  b"),
        ("\\\nRUN a\n", "a"),
    ],
)
def test_lines_are_continued_as_docker_does(text: str, expected: str) -> None:
    assert one(text).text == expected


def test_an_instruction_knows_its_first_and_last_line() -> None:
    first, second = stage("\n# x\nRUN a \\\n\n b\nRUN <<A cat <<B\nx\nA\ny\nB\n")
    assert (first.line, first.last_line) == (4, 6)
    assert (second.line, second.last_line) == (7, 11)


def test_the_byte_order_mark_is_ignored() -> None:
    assert parse("\ufeffFROM a\n", PATH).stages[0].base == "a"


def test_here_documents_are_read_in_order() -> None:
    found = one('COPY <<ONE <<-"TWO" /to/\n$x\nONE \nONE\n\t\tb\n\tTWO\n')
    assert [(item.name, item.content, item.expands, item.strips_tabs, item.line) for item in found.here_documents] == [
        ("ONE", "$x\nONE \n", True, False, 3),
        ("TWO", "b\n", False, True, 6),
    ]


@pytest.mark.parametrize(
    "text", ["ENV A=<<EOF\n", "RUN echo '<<EOF'\n", 'RUN ["<<EOF"]\n', "RUN a <<<EOF\n", "CMD cat <<EOF\n"]
)
def test_other_uses_of_the_operator_begin_no_here_document(text: str) -> None:
    assert one(text).here_documents == ()


def test_onbuild_holds_its_instruction_with_its_here_documents() -> None:
    found = one("ONBUILD COPY --chown=1 <<EOF /x\ny\nEOF\n")
    assert found.trigger is not None
    assert found.trigger.name == "COPY"
    assert found.trigger.flag("chown") == "1"
    assert found.trigger.here_documents[0].content == "y\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('RUN ["a", "b c"]', ("a", "b c")),
        ('CMD [ "a" , "\\u00e9" ]', ("a", "é")),
        ("ENTRYPOINT []", ()),
        ('SHELL ["/bin/bash", "-c"]', ("/bin/bash", "-c")),
        ('COPY ["a b", "/c/"]', ("a b", "/c/")),
        ('VOLUME ["/a"]', ("/a",)),
        ('HEALTHCHECK CMD ["a"]', ("CMD", "a")),
    ],
)
def test_arrays_are_exec_form(text: str, words: tuple[str, ...]) -> None:
    found = one(text)
    assert found.is_json
    assert found.words == words


@pytest.mark.parametrize(
    "text", ["RUN [a]", "RUN ['a']", 'RUN ["a"] && b', "CMD [ -f x ] && y", "RUN [NaN]", "RUN " + "[" * 9000]
)
def test_what_is_no_array_is_shell_form(text: str) -> None:
    found = one(text)
    assert not found.is_json
    assert found.text == text.partition(" ")[2]


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("ENV A=1 B=2", [("A", "1"), ("B", "2")]),
        ('ENV A="x y" B=x\\ y', [("A", '"x y"'), ("B", "x\\ y")]),
        ("ENV A  x  y", [("A", "x  y")]),
        ("ENV A=", [("A", "")]),
        ("ENV A=b=c", [("A", "b=c")]),
        ("LABEL 'a b'=\"c=d\"", [("'a b'", '"c=d"')]),
        ("ARG A B=1 C=", [("A", None), ("B", "1"), ("C", "")]),
    ],
)
def test_names_and_values_are_split(text: str, pairs: list[tuple[str, str | None]]) -> None:
    assert [(pair.name, pair.value) for pair in one(text).pairs] == pairs


def test_flags_come_before_the_arguments() -> None:
    found = one("COPY --from=a --chown='1 2' --link --exclude=x --exclude=y a --b /c")
    assert found.words == ("a", "--b", "/c")
    assert (found.flag("from"), found.flag("chown"), found.is_set("link")) == ("a", "1 2", True)
    assert found.all_flags("exclude") == ("x", "y")
    assert not one("COPY --link=false a b").is_set("link")


def test_arguments_above_from_belong_to_the_file() -> None:
    found = parse("ARG A=1\nARG B\nFROM x AS Y\nARG A\nFROM --platform=$P y\n", PATH)
    assert [pair.name for item in found.arguments for pair in item.pairs] == ["A", "B"]
    assert [(item.index, item.name, item.base, item.platform, item.line) for item in found.stages] == [
        (0, "y", "x", "", 3),
        (1, "", "y", "$P", 5),
    ]


@pytest.mark.parametrize(
    ("text", "line", "message", "remedy"),
    [
        ("", 0, "there is no FROM", "FROM IMAGE"),
        ("ARG a\n", 1, "there is no FROM", "FROM IMAGE"),
        ("RUN a\nFROM b\n", 1, "RUN is above the first FROM", "below FROM"),
        ("FROM a\nRUM b\n", 2, "there is no instruction 'RUM'", "did you mean RUN?"),
        ("FROM a\nRUN a\n  && b\n", 3, "there is no instruction '&&'", "end that one with \\"),
        ("FROM a b\n", 1, "neither one nor three", "FROM IMAGE AS NAME"),
        ("FROM a AS 1\n", 1, "is not a name for a stage", "letter first"),
        ("FROM a\nCOPY x\n", 2, "COPY has too few arguments", "SOURCE... DESTINATION"),
        ("FROM a\nCOPY --form=x y z\n", 2, "no flag '--form'", "did you mean --from?"),
        ("FROM a\nCOPY --from x y\n", 2, "--from has no value", "--from=VALUE"),
        ("FROM a\nCOPY --chown=1 --chown=2 y z\n", 2, "occurs twice", "remove"),
        ("FROM a\nCOPY --link=2 y z\n", 2, "--link is '2'", "--link=false"),
        ("FROM a\nCMD --x\n", 2, "CMD has no flag", "none"),
        ("FROM a\nENV A\n", 2, "has no value", "ENV NAME=VALUE"),
        ("FROM a\nENV A=1 B\n", 2, "'B' has no =", "quote values"),
        ("FROM a\nENV =1\n", 2, "without a name", "ENV NAME=VALUE"),
        ("FROM a\nWORKDIR\n", 2, "too few", "WORKDIR /path"),
        ("FROM a\nRUN\n", 2, "too few", "RUN COMMAND"),
        ("FROM a\nSHELL bash\n", 2, "JSON array", '["/bin/bash", "-c"]'),
        ('FROM a\nCMD ["a", 1]\n', 2, "no strings", '["a", "1"]'),
        ("FROM a\nHEALTHCHECK curl\n", 2, "not a health check", "HEALTHCHECK CMD"),
        ("FROM a\nHEALTHCHECK NONE x\n", 2, "not a health check", "HEALTHCHECK NONE"),
        ("FROM a\nONBUILD ONBUILD RUN x\n", 2, "ONBUILD ONBUILD", "another"),
        ("FROM a\nONBUILD COPY x\n", 2, "too few", "SOURCE"),
        ("FROM a\n\nRUN <<EOF\nx\n", 3, "<<EOF of line 3 has no end", "on a line of its own"),
        ("FROM a\nCOPY x <<EOF\nEOF\n", 2, "as its destination", "SOURCE"),
        ('FROM a\nVOLUME [""]\n', 2, "empty path", "/data"),
        ("# escape=x\nFROM a\n", 1, "neither \\ nor `", "escape"),
        ("# escape=`\n# escape=`\nFROM a\n", 2, "occurs twice", "remove"),
        ("FROM a\nRUN a\u202eb\n", 2, "editors do not show", "printf"),
        ("FROM a\nRUN \x1b[0m\n", 2, "editors do not show", "printf"),
        ("FROM a\nRUN " + "x" * 70_000, 2, "more than 65535 bytes", "several lines"),
    ],
)
def test_each_mistake_has_a_line_and_a_way_out(text: str, line: int, message: str, remedy: str) -> None:
    with pytest.raises(ProblemError) as caught:
        parse(text, PATH)
    problem = caught.value.problem
    assert problem.place.line == line
    assert message in problem.message
    assert remedy in problem.remedy


def test_every_mistake_is_found_in_one_run() -> None:
    _, problems = scan("FROM a\nRUM x\nENV A\nRUN ok\nCOPY b\n", PATH)
    assert [problem.place.line for problem in problems] == [2, 3, 5]


def test_a_file_outside_of_the_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("FROM a\n")
    folder = tmp_path / "recipe"
    folder.mkdir()
    (folder / "Dockerfile").symlink_to("../secret")
    with pytest.raises(ProblemError, match="leaves the recipe's folder"):
        read(folder, "Dockerfile")
    with pytest.raises(ProblemError, match="no such file"):
        read(folder, "Other")
    (folder / "bad").write_bytes(b"FROM a\nRUN \xff\n")
    with pytest.raises(ProblemError, match=r"bad:2: the file is not UTF-8"):
        read(folder, "bad")


@pytest.mark.slow
def test_large_and_deep_files_are_refused_quickly() -> None:
    started = time.monotonic()
    for text in (
        "FROM a\n" + "RUN x\n" * 40_000,
        "FROM a\n" * 30_000,
        "FROM a\n" + "COPY " + "<<A " * 15_000 + "/x\n" + "A\n" * 100,
        "FROM a\nENV " + "a\\" * 30_000 + "\n",
        "FROM a\nRUN " + '--mount="' * 7000 + "\n",
        "FROM a\n" + "\\ \\ " * 15_000 + "\n",
    ):
        _, problems = scan(text, PATH)
        assert problems
    assert time.monotonic() - started < 20


def test_a_parsed_file_is_a_value() -> None:
    text = "FROM a\nRUN b\n"
    assert parse(text, PATH) == parse(text, PATH)
    assert isinstance(parse(text, PATH), Dockerfile)
