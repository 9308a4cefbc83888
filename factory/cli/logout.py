"""`singfactory logout`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from factory.cli.context import Context, common_arguments
from factory.cli.logins import login_files
from factory.cli.options import CommonOptions
from factory.cli.terminal import say
from factory.oci.names import RegistryAddress
from factory.registry.credentials import logout


@dataclass(frozen=True)
class LogoutOptions(CommonOptions):
    """Options of `singfactory logout`."""

    host: str


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("host", metavar="HOST", help="registry host, such as ghcr.io")
    common_arguments(parser, LogoutOptions)


def run(options: LogoutOptions) -> int:
    """Remove the host's login from every file that holds one."""
    host = RegistryAddress.parse(options.host).host
    changed = [path for path in login_files(Context(options).env) if path.is_file() and logout(path, host)]
    for path in changed:
        say(f"login for {host} removed from {path}")
    if not changed:
        say(f"no login for {host} was found")
    return 0
