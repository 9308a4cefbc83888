from __future__ import annotations

from factory.recipes.toml.lines import key_lines, nearest_line

DOCUMENT = '''\
# comment = 1
top = "x" # [no]
[recipe]
name = """
[fake]
key = "fake" \\""" ""
"""
"quoted key" = 'a # b'
dotted . "k.ey" = 1
list = [
  "a", # ] comment
  "[b]",
]
[ build . args ]
lit = \'\'\'
[[test]]
\'\'\'
inline = { a = "}", b = [1, 2] }

[[test]]
name = "1"
[[test]]
name = "2"
[test.sub]
deep = true
'''


def test_keys_stand_where_they_are_written_whatever_strings_hold() -> None:
    lines = key_lines(DOCUMENT)
    assert lines == {
        ("top",): 2,
        ("recipe",): 3,
        ("recipe", "name"): 4,
        ("recipe", "quoted key"): 8,
        ("recipe", "dotted"): 9,
        ("recipe", "dotted", "k.ey"): 9,
        ("recipe", "list"): 10,
        ("build", "args"): 14,
        ("build", "args", "lit"): 15,
        ("build", "args", "inline"): 18,
        ("test",): 20,
        ("test", 0): 20,
        ("test", 0, "name"): 21,
        ("test", 1): 22,
        ("test", 1, "name"): 23,
        ("test", 1, "sub"): 24,
        ("test", 1, "sub", "deep"): 25,
    }


def test_a_missing_key_stands_at_the_table_around_it() -> None:
    lines = key_lines(DOCUMENT)
    assert nearest_line(lines, ("test", 1, "run")) == 22
    assert nearest_line(lines, ("nothing", "here")) == 0
