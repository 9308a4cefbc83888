"""`singfactory exec`."""

from __future__ import annotations

import argparse

from factory.cli.execute import RunOptions, declare, execute


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    declare(parser, command=True)


def run(options: RunOptions) -> int:
    """Become the engine's ``exec``."""
    return execute("exec", options)
