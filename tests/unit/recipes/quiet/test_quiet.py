from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from factory.recipes.definition.definition import Definition
from factory.recipes.definition.parser import parse
from factory.recipes.model import QuietSpec
from factory.recipes.quiet import quiet

ROOT = Path(__file__).resolve().parents[4]
PATH = Path("image.def")
HEAD = "Bootstrap: docker\nFrom: debian:12\n"
POST = "%post\n    echo 1\n\n    exit 0\n"
OFF = quiet.NO_RULES


def ruled(text: str, spec: QuietSpec | None = None, first: tuple[str, ...] = ()) -> Definition:
    return quiet.with_rules(parse(text, PATH), spec or QuietSpec(), 1_700_000_000, first)


def post_of(definition: Definition, stage: int = -1) -> str:
    sections = definition.stages[stage].named("post")
    assert all(section.args == "" for section in sections)
    return "".join(section.body for section in sections)


def test_every_rule_has_a_switch_a_reason_and_something_that_it_does() -> None:
    assert {rule.name for rule in quiet.RULES} == {field.name for field in fields(QuietSpec)} - {"hints"}
    for rule in quiet.RULES:
        assert rule.what
        assert rule.why
        assert rule.before or rule.after or rule.mksquashfs_options


def test_the_documentation_lists_the_rules() -> None:
    text = (ROOT / "docs/reproducible.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z]+)` \| (.+) \| (.+) \|$", text, re.MULTILINE)
    assert rows == [(rule.name, rule.what, rule.why) for rule in quiet.RULES]


def test_the_result_is_a_definition_that_reads_back_as_itself() -> None:
    for spec in (QuietSpec(), replace(QuietSpec(), bytecode=False), OFF):
        definition = ruled(HEAD + POST + "%test\n true\n", spec)
        assert parse(definition.text(), PATH).same_as(definition)


def test_no_line_of_a_rule_is_a_template_to_the_engine() -> None:
    assert "{{" not in ruled(HEAD + POST).text()


def test_the_recipe_s_own_lines_are_a_script_of_their_own_word_for_word() -> None:
    body = post_of(ruled(HEAD + POST))
    script = re.search(r">/\.post\.recipe <<'END_OF_POST'\n(.*)END_OF_POST\n", body, re.DOTALL)
    assert script
    assert script[1] == "    echo 1\n\n    exit 0\n"


def test_a_script_that_holds_the_end_mark_gets_another_one() -> None:
    body = post_of(ruled(HEAD + "%post\ncat <<END_OF_POST\nEND_OF_POST\nEND_OF_POST_\n"))
    assert "<<'END_OF_POST__'\ncat <<END_OF_POST\nEND_OF_POST\nEND_OF_POST_\nEND_OF_POST__\n" in body


@pytest.mark.parametrize(
    ("sections", "command"),
    [
        ("%post\n x\n", "/bin/sh -ex"),
        ("%post -u\n x\n", "/bin/sh -ex -u"),
        ("%post -c /bin/bash -l\n x\n", "/bin/bash -l"),
        ("%post -c /usr/bin/python3\nprint()\n", "/usr/bin/python3"),
        ("%post -u\n x\n%post\n y\n", "/bin/sh -ex -u"),
        ("%post -u\n x\n%post -c /bin/bash\n y\n", "/bin/bash"),
    ],
)
def test_the_recipe_s_own_lines_run_in_what_the_engine_would_start(sections: str, command: str) -> None:
    assert f"\n{command} /.post.recipe || exit\n" in post_of(ruled(HEAD + sections))


def test_the_other_sections_keep_their_places() -> None:
    text = HEAD + "%files\n a /a\n%post\n x\n%environment\n A=1\n%post\n y\n%test\n true\n"
    names = [section.name for section in ruled(text).stages[0].sections]
    assert names == ["labels", "files", "post", "environment", "post", "test"]


def test_the_build_date_label_is_the_epoch_and_a_recipe_s_own_comes_after_it() -> None:
    label = "org.label-schema.build-date Tuesday_14_November_2023_22:13:20_UTC"
    assert f"%labels\n    {label}\n" in ruled(HEAD).text()
    assert (
        f"%labels\n    {label}\n%test\n true\n%labels\n a b\n" in ruled(HEAD + "%test\n true\n%labels\n a b\n").text()
    )
    assert "build-date" not in ruled(HEAD + POST, replace(QuietSpec(), epoch=False)).text()


def test_what_is_switched_off_leaves_nothing() -> None:
    assert ruled(HEAD + POST, OFF).text() == parse(HEAD + POST, PATH).text()
    bodies = {rule: post_of(ruled(HEAD + POST, replace(QuietSpec(), **{rule.name: False}))) for rule in quiet.RULES}
    for rule, body in bodies.items():
        assert not rule.after or rule.after not in body
    assert "SOURCE_DATE_EPOCH" not in bodies[quiet.RULES[0]]
    assert "export SOURCE_DATE_EPOCH=1700000000\n" in post_of(ruled(HEAD + POST))


def test_each_set_of_rules_has_a_record_of_its_own() -> None:
    specs = [QuietSpec(), OFF, *(replace(QuietSpec(), **{rule.name: False}) for rule in quiet.RULES)]
    assert len({quiet.record(spec) for spec in specs}) == len(specs)
    assert re.fullmatch(r"epoch locale caches identity bytecode fragments [0-9a-f]{12}", quiet.record(QuietSpec()))


def test_a_changed_rule_changes_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    before = quiet.record(QuietSpec())
    changed = (*quiet.RULES[:-1], replace(quiet.RULES[-1], mksquashfs_options=("-no-fragments", "-no-exports")))
    monkeypatch.setattr(quiet, "RULES", changed)
    assert quiet.record(QuietSpec()) != before


def test_the_mount_points_that_a_recipe_promises_are_made_first_and_alone_where_all_is_off() -> None:
    first = ("mkdir -p -- /data || exit",)
    body = post_of(ruled(HEAD + POST, first=first))
    assert body.index(first[0]) < body.index("echo 1")
    alone = post_of(ruled(HEAD, OFF, first))
    assert alone.splitlines()[-1] == first[0]
    assert "tidy_up" not in alone


def test_an_image_base_without_post_gets_none_since_it_may_have_no_shell() -> None:
    for agent in ("docker", "localimage", "oras"):
        text = f"Bootstrap: {agent}\nFrom: x\n%files\n a /a\n"
        definition = ruled(text)
        assert definition.stages[0].named("post") == ()
        assert not quiet.clamps_times(QuietSpec(), definition)


def test_a_base_that_is_made_here_is_tidied_up_without_a_post_of_its_own() -> None:
    definition = ruled("Bootstrap: debootstrap\nOSVersion: bookworm\n%test\n true\n")
    assert "tidy_up" in post_of(definition)
    assert ".post.recipe" not in post_of(definition)
    assert quiet.clamps_times(QuietSpec(), definition)


@pytest.mark.parametrize("rule", ["epoch", "bytecode"])
def test_times_are_not_clamped_where_bytecode_would_go_stale(rule: str) -> None:
    spec = replace(QuietSpec(), **{rule: False})
    assert quiet.clamps_times(QuietSpec(), ruled(HEAD + POST))
    assert not quiet.clamps_times(spec, ruled(HEAD + POST, spec))


def test_earlier_stages_get_the_rules_for_the_time_before_post_and_are_not_tidied_up() -> None:
    text = f"{HEAD}Stage: one\n{POST}\n{HEAD}Stage: two\n%files from one\n /a\n\n{HEAD}%post\n x\n"
    definition = ruled(text)
    first = post_of(definition, 0)
    assert "export SOURCE_DATE_EPOCH=1700000000\nexport TZ=UTC\n" in first
    assert "tidy_up" not in first
    assert definition.stages[1].named("post") == ()
    assert "tidy_up" in post_of(definition, 2)


def test_what_the_engine_appends_for_apps_is_traced_and_stops_at_errors_as_ever() -> None:
    assert post_of(ruled(HEAD + POST + "%appinstall a\n true\n")).endswith("\nset -ex\n")
    assert "set -ex\n" not in post_of(ruled(HEAD + POST))
