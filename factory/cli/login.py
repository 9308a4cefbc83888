"""`singfactory login`."""

from __future__ import annotations

import argparse
import getpass
import sys
from dataclasses import dataclass

from factory.cli.context import Context, common_arguments
from factory.cli.logins import docker_file
from factory.cli.network import http_settings
from factory.cli.options import CommonOptions
from factory.cli.terminal import say
from factory.errors import UsageError
from factory.oci.names import RegistryAddress
from factory.registry import credentials
from factory.registry.distribution import DistributionRegistry


@dataclass(frozen=True)
class LoginOptions(CommonOptions):
    """Options of `singfactory login`."""

    host: str
    username: str
    password_stdin: bool


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options. A password is never an argument: process lists show arguments."""
    parser.add_argument("host", metavar="HOST", help="registry host, such as ghcr.io")
    parser.add_argument("-u", "--username", required=True, help="user name at the registry")
    parser.add_argument("--password-stdin", action="store_true", help="read the password or token from standard input")
    common_arguments(parser, LoginOptions)


def run(options: LoginOptions) -> int:
    """Check the login, then save it in Docker's configuration file (mode 0600), which Apptainer reads too."""
    context = Context(options)
    address = RegistryAddress.parse(options.host)
    if options.password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = getpass.getpass(f"password or token for {options.username} at {address.host}: ")
    else:
        raise UsageError("no password", why="standard input is not a terminal", fix="pipe it in with --password-stdin")
    given = {address.host: credentials.Credential(options.username, password, source="login")}
    keychain = credentials.Keychain(given=given)
    DistributionRegistry(address, settings=http_settings(context.settings), keychain=keychain).check_login()
    path = docker_file(context.env)
    credentials.login(path, address.host, options.username, password)
    say(f"login for {address.host} saved in {path}")
    return 0
