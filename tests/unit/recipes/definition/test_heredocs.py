from __future__ import annotations

import time

import pytest

from factory.recipes.definition.heredocs import lines_of_bodies, open_here_document


@pytest.mark.parametrize(
    "script",
    [
        "cat <<EOF\na\nEOF\n",
        "cat <<EOF >/x; echo y\na\nEOF\n",
        "cat <<-'EOF' | tee x\n\ta\n\tEOF\n",
        'cat <<"E F"\nE F\n',
        "cat <<\\EOF\n$x\nEOF\n",
        "cat << EOF\nit's\nEOF",
        "cat <<A <<B\n1\nB\nA\n2\nB\n",
        "a() { cat <<EOF; }\nx\nEOF\na\n",
        "x=$(cat <<EOF\nx\nEOF\n)\n",
        "echo $((1<<n)) $((n << 2))\n(( x <<= 3 ))\n",
        "echo '<<EOF' \"<<EOF\" \\<\\<EOF\n",
        "# it's <<EOF\ncat <<<EOF\n",
        "echo 'a\n<<EOF\n'\n",
        "",
    ],
)
def test_a_complete_here_document_is_not_open(script: str) -> None:
    assert open_here_document(script) is None


@pytest.mark.parametrize(
    ("script", "operator", "line"),
    [
        ("cat <<EOF\na\n", "<<EOF", 0),
        ("true\ncat > x <<-'E O'\n\ta\n  E O\n", "<<-'E O'", 1),
        ("cat <<A <<B\n1\nA\n2\n", "<<B", 0),
        ("cat <<A\n1\nA\necho 'a\nb'\ncat <<B", "<<B", 5),
        ("cat <<EOF\nEOF \n EOF\n", "<<EOF", 0),
        ('x="$(cat <<EOF\nx\n', "<<EOF", 0),
        ("echo it\\'s # a 'comment\ncat << EOF\n", "<< EOF", 1),
    ],
)
def test_a_here_document_without_its_end_is_open(script: str, operator: str, line: int) -> None:
    document = open_here_document(script)
    assert document is not None
    assert (document.operator, document.line) == (operator, line)


@pytest.mark.parametrize(
    "script",
    [
        "(" * 60_000,
        "'" * 60_001,
        '"' * 60_001,
        "<<a\n" * 15_000,
        "<<a " * 15_000 + "\n" + "a\n" * 15_000,
        "\\" * 60_001,
    ],
)
def test_a_hostile_script_is_read_quickly(script: str) -> None:
    started = time.monotonic()
    open_here_document(script)
    assert time.monotonic() - started < 20  # a guard against hanging; it takes milliseconds


def test_the_lines_of_complete_here_documents_are_known() -> None:
    script = "true\ncat <<A <<-'B'\n1\nA\n\t2\n\tB\necho 'x\ny'\ncat <<C\nC\ncat <<D\nd\n"
    assert lines_of_bodies(script) == {2, 3, 4, 5, 9}
