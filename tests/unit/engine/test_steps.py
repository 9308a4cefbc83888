"""What the output of a Dockerfile build says about its steps."""

from __future__ import annotations

from factory.engine.steps import Steps


def read(text: str) -> tuple[Steps, list[str]]:
    seen: list[str] = []
    steps = Steps(seen.append)
    for at in range(0, len(text), 7):  # blocks end anywhere
        steps.take(text[at : at + 7].encode())
    steps.end()
    return steps, seen


FAILED = """\
[1/2] STEP 1/2: FROM localhost/singfactory/base-0 AS stage0
[1/2] STEP 2/2: RUN make
building
[2/2] STEP 1/9: FROM scratch AS stage2
[2/2] STEP 7/9: RUN /bin/sh -c one
two
working 10%\rworking 90%
\x1b[31mred\x1b[0m
subprocess exited with status 3
subprocess exited with status 3
Error: building at STEP "RUN /bin/sh -c one
two": exit status 3
"""


def test_the_step_that_failed_its_last_lines_and_the_reason() -> None:
    steps, seen = read(FAILED)
    assert (steps.stage, steps.step) == (2, 7)
    assert steps.tail() == ("two", "working 90%", "red")
    assert steps.why(125) == "exit status 3"
    assert seen[2] == "building"


def test_a_reason_without_a_status_is_the_builders_own_message() -> None:
    steps, _ = read('STEP 1/2: FROM x\nSTEP 2/2: COPY a /b\nError: building at STEP "COPY a /b": no such file\n')
    assert (steps.stage, steps.step) == (1, 2)
    assert steps.why(125) == 'building at STEP "COPY a /b": no such file'
    assert read("")[0].why(125) == "the builder ended with status 125"


def test_endless_output_takes_bounded_memory() -> None:
    steps = Steps(lambda _: None)
    steps.take(b"STEP 2/3: RUN yes\n")
    for _ in range(300):
        steps.take(b"x" * 10_000)
    steps.take(b"\n" + b"line\n" * 5000)
    assert len(steps.tail()) == 15
    assert all(len(line) <= 400 for line in steps.tail())
