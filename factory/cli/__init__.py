"""The command line: parse, call a stage, render. The only package that prints, exits or reads the environment."""

from factory.cli.main import main

__all__ = ["main"]
