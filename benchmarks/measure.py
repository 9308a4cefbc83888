"""Shared code of the benchmarks: the cost of a command, alternating rounds, medians, tables.

Benchmarks are not tests: times depend on the machine. Ratios to another client in the same run are more reliable.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_OFTEN, _SELDOM = 0.01, 0.05  # seconds between two samples of the memory; sampling slows down the process


@dataclass(frozen=True)
class Cost:
    """Cost of a command: wall seconds, CPU seconds, peak memory in MB.

    wall: from the start of the process to its end. cpu: user and system time of the process and all descendants
    that were waited for (wait4(2)), so orphans are not counted. memory: the peaks (VmHWM) of all processes in the tree
    are summed at each sample, and the largest sum counts. Samples are 10 to 50 ms apart, so the last moments are
    missing. Shared pages count once per process. For a single process, as all pull clients here are, the value is exact
    except for those moments.
    """

    wall: float
    cpu: float
    memory: float


@dataclass(frozen=True)
class Client:
    """One row of a comparison.

    command: returns the arguments, given an empty folder for output. env: returns additional environment variables,
    given the same folder. into: file in that folder for standard output; empty: a log. marks: cells of the table.
    """

    name: str
    command: Callable[[Path], Sequence[str]]
    env: Callable[[Path], Mapping[str, str]] = field(default=lambda _: {})
    into: str = ""
    marks: tuple[str, ...] = ()


Costs = dict[str, list[Cost]]  # by the client's name; one per round


def measured(arguments: Sequence[str], cwd: Path, env: Mapping[str, str], output: Path | None = None) -> Cost:
    """Run a command with standard output and error to a file; exit if it fails.

    Memory is read from /proc, since the peak reported by wait4 may be that of the parent before exec.
    """
    log = cwd / "output.log"
    started, peak = time.monotonic(), 0
    with log.open("wb") as errors, (output or log).open("ab") as target:
        process = subprocess.Popen(list(arguments), cwd=cwd, env=dict(env), stdout=target, stderr=errors)
        handle = os.pidfd_open(process.pid)
        try:
            pause = _OFTEN
            while not select.select([handle], [], [], pause)[0]:
                peak = max(peak, sum(map(high_water, tree(process.pid))))
                pause = min(_SELDOM, 1.05 * pause)
        finally:
            os.close(handle)
        wall = time.monotonic() - started
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(arguments)}\nexit status {process.returncode}\n{log.read_text(errors='replace')[-2000:]}")
    return Cost(wall, used.ru_utime + used.ru_stime, peak / 1000)


def tree(pid: int) -> list[int]:
    """Return a process and its living descendants."""
    found = [pid]
    for parent in found:  # grows during the loop
        found += _children(parent)
    return found


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):  # it has ended
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        return [int(child) for task in tasks for child in task.read_text().split()]
    return []


def high_water(pid: int) -> int:
    """Return the peak resident memory of a running process in kB; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def alternate(
    clients: Sequence[Client],
    rounds: int,
    folder: Path,
    env: Mapping[str, str],
    check: Callable[[Client, Path], None] = lambda _client, _out: None,
) -> Costs:
    """Run every client once per round, each round starting with another client.

    A client writes into an empty folder. Before it starts, all dirty pages are flushed, so that it does not pay for the
    previous client. check: called with the folder after each run; like removing the folder, it is not measured.
    """
    costs: Costs = {client.name: [] for client in clients}
    for turn in range(rounds):
        first = turn % len(clients)
        for client in (*clients[first:], *clients[:first]):
            out = folder / "out"
            out.mkdir()
            os.sync()
            into = out / client.into if client.into else None
            costs[client.name].append(measured(client.command(out), folder, {**env, **client.env(out)}, into))
            check(client, out)
            shutil.rmtree(out)
    return costs


def wall_of(costs: Iterable[Cost]) -> float:
    """Return the median wall time in seconds."""
    return statistics.median(cost.wall for cost in costs)


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table: text left-aligned, numbers right-aligned."""
    lines = [list(heads), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = [all(_is_number(row[at]) for row in lines[1:]) for at in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        padded = (
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(cells, widths, right, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    dashes = ["-" * (width - 1) + ":" if number else "-" * width for width, number in zip(widths, right, strict=True)]
    return "\n".join([line(lines[0]), line(dashes), *map(line, lines[1:])])


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


def cost_table(
    costs: Costs, marks: Mapping[str, Sequence[str]] | None = None, heads: Sequence[str] = (), size: int = 0
) -> str:
    """Return a table of medians, the overall peak memory, and the ratio of wall time to the first client.

    marks and heads: additional columns. size: of the image in bytes; adds a column with MB/s.
    """
    first = wall_of(next(iter(costs.values())))
    rows = []
    for name, spent in costs.items():
        wall = wall_of(spent)
        spread = f"{min(cost.wall for cost in spent):.2f}-{max(cost.wall for cost in spent):.2f}"
        cells = [name, f"{wall:.2f}", spread, f"{wall / first:.2f}"]
        cells += [f"{size / wall / 1e6:.0f}"] if size else []
        cells += [f"{statistics.median(cost.cpu for cost in spent):.2f}", f"{max(cost.memory for cost in spent):.0f}"]
        rows.append([*cells, *(marks or {}).get(name, ())])
    speed = ["MB/s"] if size else []
    return markdown(["", "wall s", "min-max", "ratio", *speed, "CPU s", "peak MB", *heads], rows)


class Report:
    """Results of a benchmark: printed immediately, and collected for a file."""

    def __init__(self, output: Path | None) -> None:
        self._output = output
        self._texts: list[str] = []

    def add(self, text: str) -> None:
        """Add a Markdown paragraph or table."""
        print(f"{text}\n", flush=True)
        self._texts.append(text)
        if self._output is not None:
            self._output.write_text("\n\n".join(self._texts) + "\n")


def machine() -> str:
    """Describe the machine in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    system = f"Linux {os.uname().release.split('-')[0]}, Python {sys.version.split()[0]}"
    return f"{os.cpu_count()} cores, {memory:.0f} GB of memory, {system}"
