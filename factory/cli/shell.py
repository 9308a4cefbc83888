"""`singfactory shell`."""

from __future__ import annotations

import argparse

from factory.cli.execute import RunOptions, declare, execute


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    declare(parser, command=False)


def run(options: RunOptions) -> int:
    """Become the engine's ``shell``."""
    return execute("shell", options)
