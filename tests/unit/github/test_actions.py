from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.errors import UsageError
from factory.github.actions import OUTPUT_LIMIT, SUMMARY_LIMIT, Actions

TEXT = st.text(alphabet=st.sampled_from("ab=<\n\r%: ") | st.characters(codec="utf-8"))
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,20}", fullmatch=True)
NOTICE = "_This summary is truncated: GitHub shows at most 1 MiB per step. The log has all of it._\n"


@pytest.fixture
def step(tmp_path: Path) -> Actions:
    """A step with its two empty files, as created by the runner."""
    for name in ("output", "summary"):
        (tmp_path / name).touch()
    return step_in(tmp_path)


def step_in(folder: Path, **more: str) -> Actions:
    return Actions.of(
        {
            "GITHUB_ACTIONS": "true",
            "GITHUB_OUTPUT": str(folder / "output"),
            "GITHUB_STEP_SUMMARY": str(folder / "summary"),
            **more,
        }
    )


def read_by_the_runner(text: str) -> list[tuple[str, str]]:
    """Parse an output file like the runner: FileCommandManager (EnvFileKeyValuePairs) of github.com/actions/runner."""
    found, lines = [], iter(text.split("\n"))
    for line in lines:
        if not line:
            continue
        equals, heredoc = line.find("="), line.find("<<")
        if equals >= 0 and (heredoc < 0 or equals < heredoc):
            found.append((line[:equals], line[equals + 1 :]))
            continue
        assert heredoc > 0, line
        name, delimiter = line[:heredoc], line[heredoc + 2 :]
        value: list[str] = []
        for part in lines:
            if part == delimiter:
                break
            value.append(part)
        else:
            pytest.fail(f"no end of {name}")
        found.append((name, "\n".join(value)))
    return found


def written(path: Path | None) -> str:
    assert path is not None
    return path.read_bytes().decode()


@pytest.mark.slow
@settings(deadline=None)  # fsync is slow
@given(outputs=st.lists(st.tuples(NAMES, TEXT), max_size=4))
def test_outputs_are_read_back_unchanged(
    tmp_path_factory: pytest.TempPathFactory, outputs: list[tuple[str, str]]
) -> None:
    step = step_in(tmp_path_factory.mktemp("step"))
    for name, value in outputs:
        step.output(name, value)
    if outputs:
        assert read_by_the_runner(written(step.output_file)) == outputs


def test_a_value_that_contains_an_earlier_delimiter_gets_another_one(step: Actions) -> None:
    step.output("first", "x")
    seen = written(step.output_file)
    forged = f"{seen}\nother=forged\n{seen.splitlines()[-1]}\nother=forged"
    step.output("second", forged)
    assert read_by_the_runner(written(step.output_file)) == [("first", "x"), ("second", forged)]
    delimiters = re.findall(r"^\w+<<(singfactory_[0-9a-f]{32})$", written(step.output_file), re.MULTILINE)
    assert len(set(delimiters)) == 2


def test_a_delimiter_is_never_part_of_the_value(step: Actions, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["0" * 32, "1" * 32]
    drawn = iter(words)
    monkeypatch.setattr("secrets.token_hex", lambda _: next(drawn))  # a collision
    step.output("name", f"a\nsingfactory_{words[0]}\nother=forged")
    assert read_by_the_runner(written(step.output_file)) == [("name", f"a\nsingfactory_{words[0]}\nother=forged")]


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a<<b", "a\nb", "1a", "-a", "ä", "a" + "\u2028"])
def test_an_invalid_output_name_is_refused(step: Actions, name: str) -> None:
    with pytest.raises(UsageError, match="not a valid output name"):
        step.output(name, "x")
    assert written(step.output_file) == ""


def test_an_output_that_is_too_long_is_refused_with_its_size(step: Actions) -> None:
    step.output("fits", "x" * (OUTPUT_LIMIT // 2))  # two bytes a character in UTF-16
    before = written(step.output_file)
    for value in ("x" * (OUTPUT_LIMIT // 2 + 1), "\U0001f4a1" * (OUTPUT_LIMIT // 4 + 1)):
        with pytest.raises(UsageError) as caught:
            step.output("long", value)
        assert caught.value.what == "the output long is too long"
        assert f"it has {len(value.encode('utf-16-le'))} bytes of UTF-16" in caught.value.why
    assert written(step.output_file) == before


def test_a_run_can_have_fifty_outputs_of_the_maximum_size(step: Actions) -> None:
    for number in range(49):
        step.output(f"n{number}", "x" * (OUTPUT_LIMIT // 2))
    with pytest.raises(UsageError, match="too long"):
        step.output("last", "x" * (OUTPUT_LIMIT // 2))
    step.output("small", "x")


def test_a_lone_surrogate_does_not_stop_an_output(step: Actions) -> None:
    step.output("name", "caf\udce9")  # a file name in Latin-1, as Python reads it
    step.summary("caf\udce9")
    assert read_by_the_runner(written(step.output_file)) == [("name", "caf?")]
    assert written(step.summary_file) == "caf?\n"


def test_summaries_of_a_step_add_up(step: Actions) -> None:
    step.summary("# One\n")
    step.summary("Two")
    assert written(step.summary_file) == "# One\nTwo\n"


@pytest.mark.slow
@settings(deadline=None)
@given(lengths=st.lists(st.integers(0, 400_000), min_size=1, max_size=6), letter=st.sampled_from("aü€"))
def test_a_summary_never_exceeds_the_limit_and_says_so_when_truncated(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], letter: str
) -> None:
    step = step_in(tmp_path_factory.mktemp("step"))
    line = letter * 99 + "\n"
    wanted = ""
    for length in lengths:
        text = line * (length // 100)
        step.summary(text)
        wanted += text or "\n"
    got = written(step.summary_file)
    assert len(got.encode()) <= SUMMARY_LIMIT
    if got.endswith(NOTICE):
        kept = got.removesuffix(NOTICE).removesuffix("\n")
        assert wanted.startswith(kept)
        assert len(wanted.encode()) > SUMMARY_LIMIT - len(NOTICE.encode()) - 2
    else:
        assert got == wanted


@pytest.mark.slow
def test_after_a_cut_summary_nothing_is_added(step: Actions) -> None:
    step.summary("x\n" * SUMMARY_LIMIT)
    before = written(step.summary_file)
    assert before.endswith(f"x\n\n{NOTICE}")
    assert SUMMARY_LIMIT - 2 <= len(before.encode()) <= SUMMARY_LIMIT
    assert before.count(NOTICE) == 1
    step.summary("y")
    assert written(step.summary_file) == before


def test_a_summary_filled_by_another_program_ends_in_the_notice(step: Actions) -> None:
    assert step.summary_file is not None
    step.summary_file.write_text("z" * (SUMMARY_LIMIT + 5) + "\n")
    step.summary("y")
    assert written(step.summary_file).endswith(NOTICE)


def test_writing_outside_a_step_is_an_error_that_names_the_variable() -> None:
    step = Actions.of({})
    assert not step.active
    with pytest.raises(UsageError, match="GITHUB_OUTPUT is not set"):
        step.output("name", "x")
    with pytest.raises(UsageError, match="GITHUB_STEP_SUMMARY is not set"):
        step.summary("x")


def test_a_missing_output_folder_is_an_error(tmp_path: Path) -> None:
    step = step_in(tmp_path / "absent")
    with pytest.raises(UsageError, match="GITHUB_OUTPUT names it, but its folder does not exist"):
        step.output("name", "x")


@pytest.mark.parametrize(
    ("event", "ref", "number"),
    [
        ({"pull_request": {"number": 7}}, "refs/pull/7/merge", 7),
        ({"issue": {"number": 8, "pull_request": {"url": "https://example.org"}}}, "refs/heads/main", 8),
        ({"issue": {"number": 8}}, "refs/heads/main", None),
        ({"ref": "refs/heads/main"}, "refs/heads/main", None),
        ({}, "refs/pull/9/merge", 9),
        ({}, "refs/heads/pull/9/merge", None),
        ({"pull_request": "x"}, "refs/tags/v1", None),
        ([], "", None),
    ],
)
def test_the_pull_request_is_read_from_the_event(tmp_path: Path, event: Any, ref: str, number: int | None) -> None:
    path = tmp_path / "event.json"
    path.write_text(json.dumps(event))
    assert step_in(tmp_path, GITHUB_EVENT_PATH=str(path), GITHUB_REF=ref).pull_request == number


def test_without_an_event_file_the_ref_names_the_pull_request(tmp_path: Path) -> None:
    assert step_in(tmp_path, GITHUB_REF="refs/pull/9/merge").pull_request == 9
    absent = str(tmp_path / "absent")
    assert step_in(tmp_path, GITHUB_EVENT_PATH=absent, GITHUB_REF="refs/heads/main").pull_request is None


def test_a_malformed_event_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "event.json"
    path.write_text("{")
    with pytest.raises(UsageError, match=r"the event file .* cannot be read"):
        _ = step_in(tmp_path, GITHUB_EVENT_PATH=str(path)).pull_request


RUN = {
    "html_url": "https://github.example.org/octocat/Hello-World/actions/runs/7",
    "head_branch": "jax",
    "head_sha": "c" * 40,
    "head_repository": {"full_name": "hubot/fork", "owner": {"login": "hubot"}},
    "pull_requests": [],
}


@pytest.mark.parametrize(
    ("event", "url", "head"),
    [
        ({"workflow_run": RUN}, RUN["html_url"], ("hubot", "jax", "c" * 40)),
        ({"workflow_run": {**RUN, "head_repository": None}}, RUN["html_url"], None),
        ({"workflow_run": {**RUN, "head_branch": None}}, RUN["html_url"], None),
        ({"workflow_run": []}, "", None),
        ({"pull_request": {"number": 7}}, "", None),
    ],
)
def test_a_triggered_run_knows_the_head_of_the_triggering_run(
    tmp_path: Path, event: Any, url: str, head: tuple[str, str, str] | None
) -> None:
    path = tmp_path / "event.json"
    path.write_text(json.dumps(event))
    step = step_in(tmp_path, GITHUB_EVENT_PATH=str(path), GITHUB_REF="refs/heads/main")
    assert (step.reported_run_url, step.reported_head) == (url, head)


def test_the_url_of_a_run_includes_its_attempt() -> None:
    environment = {
        "GITHUB_SERVER_URL": "https://github.example.org/",
        "GITHUB_REPOSITORY": "octocat/Hello-World",
        "GITHUB_RUN_ID": "123",
        "GITHUB_RUN_ATTEMPT": "2",
    }
    page = "https://github.example.org/octocat/Hello-World/actions/runs/123"
    assert Actions.of(environment).run_url == f"{page}/attempts/2"
    assert Actions.of({**environment, "GITHUB_RUN_ATTEMPT": ""}).run_url == page
    attempts = {text: Actions.of({"GITHUB_RUN_ATTEMPT": text}).first_attempt for text in ("", "1", "2", "10")}
    assert attempts == {"": True, "1": True, "2": False, "10": False}
    assert Actions.of({**environment, "GITHUB_RUN_ID": ""}).run_url == ""


def test_every_variable_is_read() -> None:
    step = Actions.of(
        {
            "GITHUB_ACTIONS": "true",
            "GITHUB_SHA": "abc",
            "GITHUB_REF": "refs/heads/main",
            "GITHUB_API_URL": "https://api.example.org",
            "GITHUB_EVENT_NAME": "push",
        }
    )
    told = (step.active, step.sha, step.ref, step.api_url, step.event_name)
    assert told == (True, "abc", "refs/heads/main", "https://api.example.org", "push")


def test_the_reported_commit_is_that_of_the_triggering_run(tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    env = {"GITHUB_SHA": "a" * 40, "GITHUB_EVENT_PATH": str(event), "GITHUB_EVENT_NAME": "push"}
    event.write_text(json.dumps({"workflow_run": {"head_sha": "b" * 40}}))
    assert Actions.of(env).reported_sha == "a" * 40
    started = env | {"GITHUB_EVENT_NAME": "workflow_run"}
    assert Actions.of(started).reported_sha == "b" * 40
    for wrong in ("main", "b" * 39, "b" * 40 + "\n", 5, None):
        event.write_text(json.dumps({"workflow_run": {"head_sha": wrong}}))
        assert Actions.of(started).reported_sha == ""
    assert Actions.of({}).reported_sha == ""
