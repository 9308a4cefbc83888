from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.errors import RecipeError
from factory.recipes.definition.copies import Copy
from factory.recipes.definition.definition import Definition, Header, Section, Stage
from factory.recipes.definition.parser import HEADERS, bind, parse, read, scan, scan_file

PATH = Path("image.def")
HEAD = "Bootstrap: docker\nFrom: debian\n"

TWO_STAGES = """\
# A comment before everything.

bootstrap: docker
FROM: golang:{{ go }}   # the compiler
Stage: build

%arguments
    go=1.22

%post
    go build -o /app

Bootstrap: docker
From: {{base}}

%files from build
    /app /usr/bin/app

%POST -c /bin/bash
    echo {{ greeting }} {{ greeting }}
    # {{ nobody }} is left alone in comments
%post
    echo again
%labels
    version {{ version }}
"""


def _fails(text: str, values: dict[str, str] | None = None) -> str:
    with pytest.raises(RecipeError) as caught:
        bind(parse(text, PATH), values or {}).text()
    return "\n".join(caught.value.lines())


def test_stages_headers_and_sections_are_read_with_their_lines() -> None:
    first, second = parse(TWO_STAGES, PATH).stages
    assert first.headers == (
        Header("Bootstrap", "docker", 3),
        Header("From", "golang:{{ go }}", 4),
        Header("Stage", "build", 5),
    )
    assert [(section.name, section.args, section.line) for section in second.sections] == [
        ("files", "from build", 16),
        ("post", "-c /bin/bash", 19),
        ("post", "", 22),
        ("labels", "", 24),
    ]
    assert second.line == 13
    assert second.value("from") == "{{base}}"
    assert second.sections[0].source_stage == "build"
    assert second.sections[0].copies() == (Copy("/app", "/usr/bin/app", 17),)
    assert first.defaults() == {"go": "1.22"}


def test_arguments_are_found_with_their_lines_and_not_in_comments() -> None:
    uses = parse(TWO_STAGES, PATH).variables()
    assert [(use.name, use.line, use.defined) for use in uses] == [
        ("go", 4, True),
        ("base", 14, False),
        ("greeting", 20, False),
        ("greeting", 20, False),
        ("version", 25, False),
    ]


def test_the_rendered_text_is_plain_and_canonical() -> None:
    values = {"base": "debian:12", "greeting": "hello", "version": "1", "unused": "x"}
    assert (
        bind(parse(TWO_STAGES, PATH), values).text()
        == """\
Bootstrap: docker
From: golang:1.22
Stage: build

%post
    go build -o /app

Bootstrap: docker
From: debian:12

%files from build
    /app /usr/bin/app

%post -c /bin/bash
    echo hello hello
    # {{ nobody }} is left alone in comments
%post
    echo again
%labels
    version 1
"""
    )


def test_given_values_take_precedence_over_defaults() -> None:
    text = HEAD + "%arguments\n a=1\n%post\n echo {{ a }}\n"
    assert "echo 2" in bind(parse(text, PATH), {"a": "2"}).text()


def test_defaults_count_for_their_own_stage_only() -> None:
    text = HEAD + "%arguments\n a=1\n" + HEAD + "%post\n echo {{ a }}\n"
    assert _fails(text).startswith("image.def:8: the argument 'a' is not defined\n")


def test_a_default_may_use_another_argument() -> None:
    text = HEAD + "%arguments\n a=1\n b={{ a }}.2\n%post\n echo {{ b }}\n"
    assert "echo 1.2" in bind(parse(text, PATH), {}).text()


def test_an_undefined_argument_names_file_line_and_a_way_out() -> None:
    assert _fails(HEAD + "%post\n  echo {{ cuda }}\n") == (
        "image.def:4: the argument 'cuda' is not defined\n"
        'set it in recipe.toml, [build] args = { cuda = "…" }, or give it a default under %arguments'
    )


def test_a_comment_that_apptainer_would_not_skip_is_not_skipped() -> None:
    for line in ("#{{ x }}", "#!/bin/sh {{ x }}", "echo '#' {{ x }}"):
        assert "'x' is not defined" in _fails(f"{HEAD}%post\n{line}\n")


@pytest.mark.parametrize(
    ("value", "character"),
    [
        ("a\n%setup\n touch /tmp/x", "a line break"),
        ("a\nBootstrap: localimage", "a line break"),
        ("a\r", "a carriage return"),
        ("a\0", "the character U+0000 (a control character)"),
        ("a\x0b%setup", "the character U+000B (a control character)"),
        ("a\u2028b", "the character U+2028 (line separator)"),
        ("a\u00a0b", "a no-break space (U+00A0)"),
    ],
)
def test_values_with_line_breaks_or_hidden_characters_are_refused(value: str, character: str) -> None:
    told = _fails(HEAD + "%post\n echo {{ a }}\n", {"a": value})
    assert told.startswith(f"image.def:1: the value of the argument 'a' contains {character}: ")


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("{{ a }}", "%setup"),
        ("  {{ a }}", "%setup"),
        ("{{ a }}etup", "%s"),
        ("{{ a }}", "bootstrap: localimage"),
        ("Bootstrap{{ a }}", ": localimage"),
        ("{{ a }}", "boot\u017ftrap: localimage"),
    ],
)
def test_a_value_cannot_begin_a_section_or_a_stage(line: str, value: str) -> None:
    message = _fails(f"{HEAD}%post\n{line}\n", {"a": value})
    assert message.startswith("image.def:4: an argument's value begins a section or a stage here: ")


@pytest.mark.parametrize("value", ["debian # x", "debian \\", " debian", ""])
def test_a_value_that_would_change_its_header_is_refused(value: str) -> None:
    text = "Bootstrap: docker\nFrom: {{ a }}\n%post\n true\n"
    if value == "":
        assert "From:\n" in bind(parse(text, PATH), {"a": value}).text()
    else:
        told = _fails(text, {"a": value})
        cut = (
            told.startswith("image.def:2: From: 'debian ")
            and "contains # or ends with \\, which the engine interprets" in told
        )
        assert cut or "an argument's value changes the structure of the definition" in told


def test_values_cannot_put_a_new_template_together() -> None:
    assert "a template remains" in _fails(HEAD + "%post\n echo {{{ a }}}\n", {"a": "{ b }"})
    assert "a template remains" in _fails(HEAD + "%post\n echo {{ a }}\n", {"a": "{{ a }}"})
    assert "changes the structure" in _fails(HEAD + "%post\n echo {{ a }}\n b }}\n", {"a": "{{"})


def test_a_stage_name_from_a_value_stays_one_word() -> None:
    text = HEAD + "%files from {{ s }}\n /a /b\n"
    assert "image.def:3: invalid arguments of %files: 'from x y'" in _fails(text, {"s": "x y"})
    assert "%files from build\n" in bind(parse(text, PATH), {"s": "build"}).text()


def test_an_app_name_from_a_value_cannot_leave_its_folder() -> None:
    told = _fails(HEAD + "%appenv {{ a }}\n x=1\n", {"a": "../../../../tmp/x"})
    assert "image.def:3: %appenv needs the name of one app" in told


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.text(max_size=30), min_size=3))
def test_whatever_the_values_are_the_structure_stays(values: dict[str, str]) -> None:
    text = (
        "Bootstrap: docker\nFrom: {{ a }}\nStage: s\n%post -c {{ b }}\n{{ a }}{{ b }}\n{{ c }}: {{ a }}\n"
        "Bootstrap: docker\nFrom: x\n%files from {{ a }}\n{{ b }} {{ c }}\n%runscript\n{{{ a }}{{ b }}\n"
    )
    try:
        rendered = bind(parse(text, PATH), values).text()
    except RecipeError:
        return
    first, second = parse(rendered, PATH).stages
    assert [header.key for header in first.headers] == ["Bootstrap", "From", "Stage"]
    assert [section.name for section in first.sections] == ["post"]
    assert [section.name for section in second.sections] == ["files", "runscript"]
    assert not parse(rendered, PATH).variables()
    assert rendered.count("\n") == text.count("\n") + 2  # the blank line after the headers of each stage


_word = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0#%{}\\:'\"", exclude_categories=["Cc", "Cs"]))
_values = _word.map(lambda text: " ".join(text.split()))
_line = _word.filter(lambda text: not text.lstrip().startswith("%"))
_body = st.lists(_line, max_size=4).map(lambda lines: "".join(f"{line}\n" for line in lines))
_section = st.builds(
    Section,
    st.sampled_from(["post", "help", "labels", "environment", "runscript", "test"]),
    st.sampled_from(["", "-c /bin/bash"]),
    _body,
    st.just(1),
)
_stage = st.builds(
    lambda values, sections: Stage(
        (Header("Bootstrap", "docker", 1), *(Header(key, value, 1) for key, value in values.items())), sections, 1
    ),
    st.dictionaries(st.sampled_from([key for key in HEADERS if key != "Bootstrap"]), _values, max_size=4),
    st.lists(_section, max_size=4).map(tuple),
)


@given(st.lists(_stage, min_size=1, max_size=3))
def test_what_is_written_reads_back_the_same(stages: list[Stage]) -> None:
    definition = Definition(PATH, tuple(stages))
    again = parse(definition.text(), PATH)
    assert again.same_as(definition)
    assert again.text() == definition.text()
    assert bind(again, {}).text() == definition.text()


@given(st.text(st.sampled_from("Bootstrap: docker\nFrom:%post setup files{}\"'#\\\r\t\0 "), max_size=200))
def test_any_text_gives_problems_or_a_definition_that_reads_back(text: str) -> None:
    definition, problems = scan(text, PATH)
    if problems:
        assert all(problem.message and problem.remedy for problem in problems)
    else:
        assert parse(definition.text(), PATH).same_as(definition)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "image.def: there is no Bootstrap: header"),
        ("# only a comment\n", "image.def: there is no Bootstrap: header"),
        ("From: x\nBootstrap: docker\n", "image.def:1: 'From: x' is above Bootstrap:, where it does not belong to"),
        ("%post\n true\n", "image.def:1: there is no Bootstrap: header"),
        (HEAD + "Frm: x\n", "image.def:3: unknown header 'Frm'"),
        (HEAD + "from: x\n", "image.def:3: From: occurs twice in a stage"),
        (HEAD + "Include: a \\\n\n b\n", "image.def:3: the backslash continues this line with an empty line"),
        (HEAD + "Include: a \\\n# b\n", "image.def:3: the backslash continues this line with an empty line"),
        (
            HEAD + "Include: a \\\n%post\n",
            "image.def:3: the backslash continues this line, and no other header line",
        ),
        (HEAD + "Include: a \\\nStage: b\n", "image.def:3: the backslash continues this line with the header Stage:"),
        (HEAD + "Include: \\\n b\n", "image.def:3: not continued as written: 'Include: \\\\'"),
        (HEAD + "Include: a\\n\\\n b\n", "image.def:3: not continued as written: "),
        (
            HEAD + "%arguments\n a\u00a0=1\n",
            "image.def:4: %arguments: invalid line 'a\\xa0=1' because of a no-break space",
        ),
        (HEAD + "nonsense\n", "image.def:3: not a header: 'nonsense'"),
        (HEAD + "%pots\n", "image.def:3: unknown section '%pots'"),
        (HEAD + "%post\n  %packages\n", "image.def:4: unknown section '%packages'"),
        (HEAD + "%post\n  %post\n", "image.def:4: a space in column 1 makes %post an unknown section"),
        (HEAD + "%post\n% Post\n", "image.def:4: a space in column 2 makes %post an unknown section"),
        (HEAD + "%post\t-c bash\n", "image.def:3: a tab in column 6 makes %post an unknown section"),
        (HEAD + "%files\u00a0\n", "image.def:3: a no-break space (U+00A0) in column 7 makes %files an unknown section"),
        (HEAD + "%po\u200bst\n", "image.def:3: a zero-width space (U+200B) in column 4 makes %post an unknown section"),
        (
            HEAD + " Fro\u00adm: x\n",
            "image.def:3: the character U+00AD (soft hyphen) in column 5 makes From: an unknown",
        ),
        (
            "Bootstrap\u200b: docker\n",
            "image.def:1: a zero-width space (U+200B) in column 10 makes Bootstrap: an unknown",
        ),
        ("\ufeff" + HEAD, "image.def:1: the file begins with a byte order mark (U+FEFF)"),
        (HEAD + "%files\n a\u00a0/b\n", "image.def:4: %files: a word contains a no-break space (U+00A0)"),
        (HEAD + "%files build\n", "image.def:3: invalid arguments of %files: 'build'"),
        (HEAD + "%appenv\n", "image.def:3: %appenv needs the name of one app"),
        (HEAD + "%appenv ../../tmp\n", "image.def:3: %appenv needs the name of one app"),
        (HEAD + "%files\n a b c\n", "image.def:4: %files: the line has 3 words, not a source and a destination"),
        (HEAD + "%files\n 'a b' c\n", "image.def:4: %files: a quote is unclosed, single, or in the middle of a word"),
        (HEAD + '%files\n "a b\n', "image.def:4: %files: a quote is unclosed, single, or in the middle of a word"),
        (HEAD + "%files\n a ../../etc/passwd\n", "image.def:4: %files: the destination contains .."),
        (HEAD + "%files\n a /opt/../../b\n", "image.def:4: %files: the destination contains .."),
        (HEAD + "%files\n a $HOME/b\n", "image.def:4: %files: the destination contains $ or begins with ~"),
        (HEAD + "%files\n a ~/b\n", "image.def:4: %files: the destination contains $ or begins with ~"),
        (HEAD + '%files\n "" /x\n', "image.def:4: %files: the source is empty"),
        (HEAD + "%arguments\n nothing\n", "image.def:4: %arguments: invalid line 'nothing'"),
        (HEAD + "%post\n a\0b\n", "image.def:4: the line contains the character U+0000 (a control character)"),
        (HEAD + "%post\n {{\n a }}\n", "image.def:4: {{ a }} spans two lines"),
    ],
)
def test_each_problem_has_its_line(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(text, PATH)
    assert caught.value.what.startswith(message)
    assert caught.value.fix


def test_an_unknown_section_names_the_nearest_one() -> None:
    _, problems = scan(HEAD + "%enviroment\n", PATH)
    assert str(problems[0]) == (
        "image.def:3: error: unknown section '%enviroment'; did you mean %environment?; "
        "for Apptainer every line that starts with % begins a section, also in scripts"
    )


def test_every_problem_of_a_file_is_found() -> None:
    _, problems = scan(HEAD + "Frm: x\n%pots\n%files\n a b c\n", PATH)
    assert [problem.place.line for problem in problems] == [3, 4, 6]
    with pytest.raises(RecipeError) as caught:
        parse(HEAD + "Frm: x\n%pots\n%files\n a b c\n", PATH)
    assert caught.value.fix == "did you mean From:? (2 more problems; singfactory lint shows all)"


def test_a_bootstrap_line_in_a_script_begins_a_stage_as_it_does_for_apptainer() -> None:
    assert len(parse(HEAD + "%post\n cat <<E\nBootstrap: docker\nE: x\n".replace("E: x", "From: x"), PATH).stages) == 2
    assert len(parse(HEAD + "%post\n  Bootstrap: docker\n", PATH).stages) == 1


def test_line_endings_of_windows_are_taken_off() -> None:
    definition = parse("Bootstrap: docker\r\nFrom: x\r\n%post\r\n true\r\n", PATH)
    assert definition.text() == "Bootstrap: docker\nFrom: x\n\n%post\n true\n"


def test_a_lone_carriage_return_is_no_line_break_and_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.def"
    path.write_bytes(HEAD.encode() + b"%post\n echo a\r%setup\n")
    definition, problems = scan_file(path.parent, path.name)
    assert [section.name for section in definition.stages[0].sections] == ["post"]
    assert [str(problem.place) for problem in problems] == [f"{path}:4"]
    path.write_bytes(path.read_bytes().replace(b"\r%setup", b"").replace(b"\n", b"\r\n"))
    assert read(path.parent, path.name).stages[0].sections[0].body == " echo a\n"


def test_a_file_that_is_missing_or_not_text_is_a_problem(tmp_path: Path) -> None:
    (_, missing) = scan_file(tmp_path, "image.def")
    assert missing[0].message == "no definition file: No such file or directory"
    (tmp_path / "image.def").write_bytes(b"Bootstrap: x\n\xff\n")
    (_, broken) = scan_file(tmp_path, "image.def")
    assert (broken[0].place.line, broken[0].message) == (2, "the file is not UTF-8")


def test_files_entries_know_quotes_templates_and_comments() -> None:
    text = HEAD + '%files\n  "a b" /c\n  x{{ v }}.sh /y # why\n\n # nothing\n  one "/d e"\n'
    (section,) = parse(text, PATH).stages[0].sections
    assert section.copies() == (Copy("a b", "/c", 4), Copy("x{{ v }}.sh", "/y", 5), Copy("one", "/d e", 8))


def test_a_hostile_files_line_is_read_in_no_time() -> None:
    _, problems = scan(HEAD + "%files\n" + "{{x}}" * 5000 + '"\n', PATH)
    assert problems


def test_headers_are_replaced_in_place_added_and_removed() -> None:
    before = parse("Bootstrap: recipe\nRegistry: r\nFrom: {{ base }}\n%post\n true\n", PATH)
    after = before.with_headers(0, {"bootstrap": "localimage", "From": "base.sif", "Registry": None, "Stage": "s"})
    assert after.text() == "Bootstrap: localimage\nFrom: base.sif\nStage: s\n\n%post\n true\n"
    assert before.stages[0].value("Bootstrap") == "recipe"
