"""`singfactory exec`: run a command in an image."""

from __future__ import annotations

import argparse

from factory.cli.execute import declare, execute
from factory.cli.run_options import RunOptions


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    declare(parser, "PROGRAM")


def run(options: RunOptions) -> int:
    """Replace this process by ``exec`` of the engine."""
    return execute("exec", options)
