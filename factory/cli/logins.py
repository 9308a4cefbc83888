"""This user's logins: from the environment, and from the files of Docker, Apptainer, Singularity and Podman."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from factory.cli.settings import Settings, Value
from factory.errors import NotFound
from factory.io import process
from factory.oci.names import RegistryAddress
from factory.registry.credentials import DOCKER_HUB, Credential, Keychain

_ENGINES = ("APPTAINER", "SINGULARITY")
_AUTH_FILES = ("REGISTRY_AUTH_FILE", "APPTAINER_AUTH_FILE", "APPTAINER_AUTHFILE", "SINGULARITY_AUTHFILE")
_DOCUMENT = "DOCKER_AUTH_CONFIG"


def keychain(settings: Settings, env: Mapping[str, str], notice: Callable[[str], None]) -> Keychain:
    """Return the sources of logins, the most specific first.

    SINGFACTORY_USERNAME is only for the registry that the environment, the user's or the site's file names. An option
    or a project, which may be untrusted, cannot send it elsewhere. The engines' variables name no registry either: they
    are for that one, for Docker Hub, and for the hosts in docker_login_hosts.
    """
    bound, named = (_host(found.get("registry")) for found in (settings.own, settings.values))
    given, withheld = {}, {}
    username, password = env.get("SINGFACTORY_USERNAME"), env.get("SINGFACTORY_PASSWORD")
    if username and password:
        if named and named != bound:
            origin = settings.values["registry"].origin
            withheld[named] = (
                f"SINGFACTORY_PASSWORD is not sent to {named}, which only {origin} names. If the password is for this "
                "registry, set SINGFACTORY_REGISTRY to it"
            )
        if bound:
            given[bound] = Credential(username, password, source="SINGFACTORY_USERNAME")
    hosts = dict.fromkeys(filter(None, (bound, DOCKER_HUB, *settings.listed("docker_login_hosts"))))
    documents, elsewhere = _engine_logins(env, hosts)
    if env.get(_DOCUMENT):
        documents[_DOCUMENT] = env[_DOCUMENT]
    return Keychain(
        login_files(env),
        _run_helper(env),
        given,
        notice,
        withheld=withheld,
        documents=documents,
        elsewhere=elsewhere,
    )


def login_files(env: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the files that may hold logins, in the order of preference."""
    named = [Path(env[name]) for name in _AUTH_FILES if env.get(name)]
    home = Path(env.get("HOME") or "/")
    engines = [
        Path(env.get(f"{engine}_CONFIGDIR") or home / f".{engine.lower()}") / "docker-config.json"
        for engine in _ENGINES
    ]
    podman = [Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "containers/auth.json"]
    if env.get("XDG_RUNTIME_DIR"):
        podman.insert(0, Path(env["XDG_RUNTIME_DIR"]) / "containers/auth.json")
    return tuple(dict.fromkeys((*named, docker_file(env), *engines, *podman)))


def docker_file(env: Mapping[str, str]) -> Path:
    """Return Docker's file of logins, which `singfactory login` writes."""
    return Path(env.get("DOCKER_CONFIG") or Path(env.get("HOME") or "/") / ".docker") / "config.json"


def _engine_logins(env: Mapping[str, str], hosts: Iterable[str]) -> tuple[dict[str, str], str]:
    """Return the engines' logins as Docker configurations for these hosts, and the variable with a password, if any."""
    documents, source = {}, ""
    for engine in _ENGINES:
        user, secret = f"{engine}_DOCKER_USERNAME", f"{engine}_DOCKER_PASSWORD"
        if env.get(user) and env.get(secret):
            login = {"username": env[user], "password": env[secret]}
            documents[user] = json.dumps({"auths": dict.fromkeys(hosts, login)})
            source = source or secret
    return documents, source


def _host(registry: Value | None) -> str:
    return RegistryAddress.parse(registry.text).host if registry else ""


def _run_helper(env: Mapping[str, str]) -> Callable[[list[str], bytes], bytes]:
    def run(arguments: list[str], stdin: bytes) -> bytes:
        status, out, _ = process.output_of(arguments, env=env, stdin=stdin)
        if status != 0:
            raise NotFound(f"{arguments[0]} has no login")
        return out

    return run
