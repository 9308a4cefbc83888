"""Variables and quotes, as Docker's lexer reads them (BuildKit's shell/lex_test.go has the same cases)."""

from __future__ import annotations

import pytest

from factory.recipes.dockerfile.matching import WordError, Work
from factory.recipes.dockerfile.words import delimiter, expand, split, unset

VALUES = {"a": "foo.tar.gz", "empty": "", "path": "/usr/bin:/bin", "two": "x y", "ünit": "u", "same": "aaaa"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$a", "foo.tar.gz"),
        ("${a}", "foo.tar.gz"),
        ("x${a}y", "xfoo.tar.gzy"),
        ("$ünit", "u"),
        ("$none", ""),
        ("$", "$"),
        ("$.", "$."),
        ("$1a", "a"),
        ("$$a", "a"),
        ("$@", ""),
        ("\\$a", "$a"),
        ("'$a'", "$a"),
        ('"$a"', "foo.tar.gz"),
        ('"\\$a"', "$a"),
        ('"\\n"', "\\n"),
        ('"a\\\\b"', "a\\b"),
        ("a\\nb", "anb"),
        ("a\\ b", "a b"),
        ("a\\", "a"),
        ("'a'\"b\"c", "abc"),
        ("'it\"s'", 'it"s'),
        ("<<EOF", "<<EOF"),
        ("a < b", "a < b"),
        ("${a:-x}", "foo.tar.gz"),
        ("${empty:-x}", "x"),
        ("${empty-x}", ""),
        ("${none-x}", "x"),
        ("${none:-$a}", "foo.tar.gz"),
        ("${none:-${empty:-'a b'}}", "a b"),
        ("${a:+x}", "x"),
        ("${empty:+x}", ""),
        ("${empty+x}", "x"),
        ("${none+x}", ""),
        ("${a:?no}", "foo.tar.gz"),
        ("${empty?no}", ""),
        ("${a#*.}", "tar.gz"),
        ("${a##*.}", "gz"),
        ("${a%.*}", "foo.tar"),
        ("${a%%.*}", "foo"),
        ("${a#???}", ".tar.gz"),
        ("${a#nothing}", "foo.tar.gz"),
        ("${a%r*}", "foo.ta"),
        ("${none#x}", ""),
        ("${a/o/0}", "f0o.tar.gz"),
        ("${a//o/0}", "f00.tar.gz"),
        ("${a//./}", "footargz"),
        ("${a/.*/}", "foo"),
        ("${a/*/all}", "all"),
        ("${path//\\//_}", "_usr_bin:_bin"),
        ("${same/a?/b}", "baa"),
        ("${same//a?/b}", "bb"),
    ],
)
def test_variables_and_quotes_are_replaced_as_docker_does(text: str, expected: str) -> None:
    assert expand(text, VALUES) == expected


@pytest.mark.parametrize(
    "text",
    [
        "'a",
        '"a',
        '"a\\',
        "${a",
        "${",
        "${}",
        "${{a}}",
        "${:x}",
        "${a:x}",
        "${a@x}",
        "${a:#x}",
        "${none?}",
        "${empty:?why}",
        "${a#\\x}",
        "${a/x",
        "${a/x/y",
    ],
)
def test_what_docker_refuses_is_refused(text: str) -> None:
    with pytest.raises(WordError):
        expand(text, VALUES)


def test_the_message_of_a_required_variable_is_shown() -> None:
    with pytest.raises(WordError, match="none: give --build-arg none"):
        expand("${none:?give --build-arg none}", VALUES)


def test_the_escape_character_of_the_file_counts() -> None:
    assert expand("C:\\dir `$a", VALUES, "`") == "C:\\dir $a"


def test_quotes_in_a_here_document_are_ordinary_characters() -> None:
    assert expand('it\'s "$a"\n', VALUES, quotes=False) == 'it\'s "foo.tar.gz"\n'


def test_a_value_with_blanks_becomes_several_words() -> None:
    assert split("1 $two '3 4'", VALUES) == ("1", "x", "y", "3 4")


def test_names_without_a_value_are_listed() -> None:
    assert unset("$x ${y:-1} $a '$z' $x", VALUES) == ("x", "y")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("EOF", ("EOF", True)),
        ("'EOF'", ("EOF", False)),
        ('"E"OF', ("EOF", False)),
        ("a b", None),
        ("$EOF", ("$EOF", True)),
    ],
)
def test_a_delimiter_in_quotes_turns_expansion_off(word: str, expected: object) -> None:
    assert delimiter(word) == expected


def test_nested_and_repeated_substitutions_cannot_exhaust_the_machine() -> None:
    with pytest.raises(WordError, match="in each other"):
        expand("${a:-" * 5000 + "}" * 5000, {})
    with pytest.raises(WordError, match="more than"):
        expand("$a" * 30_000, {"a": "x" * 1000})
    work = Work()
    with pytest.raises(WordError, match="too large or too many"):
        _expand_often(work)
    with pytest.raises(WordError, match="at most"):
        expand("${a#x}", {"a": "a" * 10_000})


def _expand_often(work: Work) -> None:
    for _ in range(10_000):
        expand("${a//*a*b/}", {"a": "a" * 4000}, work=work)
