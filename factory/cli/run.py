"""`singfactory run`: run an image's own program."""

from __future__ import annotations

import argparse

from factory.cli.execute import declare, execute
from factory.cli.run_options import RunOptions


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    declare(parser, "ARGUMENT")


def run(options: RunOptions) -> int:
    """Replace this process by ``run`` of the engine."""
    return execute("run", options)
