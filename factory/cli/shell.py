"""`singfactory shell`: start a shell in an image."""

from __future__ import annotations

import argparse

from factory.cli.execute import declare, execute
from factory.cli.run_options import RunOptions


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    declare(parser)


def run(options: RunOptions) -> int:
    """Replace this process by ``shell`` of the engine."""
    return execute("shell", options)
