"""`singfactory config`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from factory.cli import binds, mirrors, settings
from factory.cli.context import Context, common_arguments
from factory.cli.options import CommonOptions
from factory.cli.terminal import emit, say
from factory.oci.names import RegistryAddress


@dataclass(frozen=True)
class ConfigOptions(CommonOptions):
    """Options of `singfactory config`."""

    name: str | None


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    names = [key.name for key in settings.KEYS]
    parser.add_argument("name", metavar="NAME", nargs="?", choices=names, help="print only the value of this setting")
    common_arguments(parser, ConfigOptions, registry=True, store=True, json=True)


def run(options: ConfigOptions) -> int:
    """Print the settings; an empty line for one that is not set. The registry is checked and normalized."""
    found = Context(options).settings
    values = {name: value.text for name, value in found.values.items()}
    if "registry" in values:
        values["registry"] = str(RegistryAddress.parse(values["registry"]))
    if options.name:
        tables = {mirrors.NAME: mirrors.words, binds.NAME: binds.words}
        text = tables[options.name](values) if options.name in tables else values.get(options.name, "")
        if options.json:
            emit(text)
        else:
            say(text)
    elif options.json:
        emit(values)
    else:
        for name, text in values.items():
            say(f"{name} = {text}  (from {found.values[name].origin})")
    return 0
