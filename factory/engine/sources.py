"""Pass this machine's package sources on to builds: mirrors, pip indexes, proxies and certificates.

Sites configure their proxy, mirror or authority on their machines, not in every recipe. These settings decide where
bytes come from, not which bytes: they are no part of an image's input key, and are not written into the definition.
They reach builds as environment variables and as read-only binds below /dev, which nothing empties; without a sandbox,
below /tmp, which builds then share with the host.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from factory.engine import certificates
from factory.engine.authorities import site_bundle
from factory.engine.binds import Bind
from factory.engine.environment import CERTIFICATES, PROXIES, holds_login, holds_token
from factory.errors import UsageError
from factory.io import files, plain
from factory.io.http.proxies import Proxy, plain_no_proxy

_PIP_OPTIONS = ("index-url", "extra-index-url", "find-links", "trusted-host", "retries")
_INDEXES = ("index-url", "extra-index-url")
# A variable of uv, that of pip with the same meaning, and what separates its values.
_UV_OF_PIP = (
    ("UV_DEFAULT_INDEX", "PIP_INDEX_URL", " "),
    ("UV_INDEX", "PIP_EXTRA_INDEX_URL", " "),
    ("UV_FIND_LINKS", "PIP_FIND_LINKS", ","),
    ("UV_INSECURE_HOST", "PIP_TRUSTED_HOST", " "),
)
_INDEX_NAME = re.compile(r"[A-Za-z0-9_-]+=")  # uv: NAME=URL
_PIP_LIMIT = 1024 * 1024  # bytes of a configuration file
_PIP_OF_ALL = Path("/etc/pip.conf")
_ONE_LINE = re.compile(r"deb(?:-src)?\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)")
_DISABLED = re.compile(r"^Enabled:\s*no\s*$", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class PackageSources:
    """Package sources of this machine. env and binds are for builds; debian_mirror is '' if unknown.

    left_out: variables that builds get in part or not at all, since they hold a login or a key, or name a folder that
    contains the home. authorities: a file with the site's certificates, which the engine itself needs too; '' for none.
    relayed: proxies with a login, by variable. Builds get the address of a relay instead (io/http/relay.py).
    """

    debian_mirror: str = ""
    env: tuple[tuple[str, str], ...] = ()
    binds: tuple[Bind, ...] = ()
    left_out: tuple[str, ...] = ()
    authorities: str = ""
    relayed: tuple[tuple[str, Proxy], ...] = ()

    def missing(self) -> str:
        """Say what builds do not get, why, and what to do about it; '' if they get everything."""
        proxies = " ".join(name for name in self.left_out if name in PROXIES)
        others = " ".join(name for name in self.left_out if name not in PROXIES)
        said = []
        if proxies:
            said.append(
                f"{proxies} (a login in it can only be kept from builds if it is http://USER:PASSWORD@HOST:PORT)"
            )
        if others:
            said.append(f"{others} (a login, token or key in it would be visible to builds, or it is around your home)")
        return f"builds do not get {', and not '.join(said)}; set it to an address without" if said else ""


def find(
    env: Mapping[str, str],
    folder: Path,
    configured_mirror: str = "",
    seen_as: Path | None = None,
    ca: Path | None = None,
) -> PackageSources:
    """Read this machine's configuration.

    folder: a new folder for mount points, inside the folder that builds see as /tmp. seen_as: its path in builds, if it
    differs. ca: the setting of that name.
    """
    collected = _Collected(folder, seen_as or folder)
    collected.set_proxies(env)
    bundle = site_bundle(env, ca)
    authorities = collected.add_file("certificates.pem", bundle) if bundle else ""
    for name, path in certificates.readable(env).items():
        if not authorities:
            collected.set(name, collected.bind_file(path))
    collected.env |= dict.fromkeys(CERTIFICATES if authorities else (), authorities)
    collected.left_out += certificates.left_out(env)
    home = Path(env.get("HOME") or "/").resolve()
    for option, text in pip_configuration(env).items():
        name = "PIP_" + option.upper().replace("-", "_")
        kept = [collected.localised(part, home, index=option in _INDEXES) for part in text.split()]
        if None in kept:
            collected.left_out.append(name)
        if shown := [part for part in kept if part]:
            collected.set(name, " ".join(shown))
    _set_for_uv(collected, env, home)
    return PackageSources(
        configured_mirror or debian_mirror(),
        tuple(sorted(collected.env.items())),
        tuple(collected.binds),
        tuple(collected.left_out),
        authorities,
        tuple(collected.relayed),
    )


def pip_configuration(env: Mapping[str, str]) -> dict[str, str]:
    """Return pip's settings on this machine that say where packages come from. As in pip, later files win."""
    found: dict[str, str] = {}
    for place in _pip_files(env):
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(plain.read_plain(place, _PIP_LIMIT, follow=True).decode())
        except (configparser.Error, OSError, UnicodeDecodeError, plain.NotPlainError):
            continue  # pip itself reports it
        for section in ("global", "install"):
            for option in _PIP_OPTIONS:
                for spelling in (option, option.replace("-", "_")):  # pip accepts both
                    if parser.has_option(section, spelling):
                        found[option] = parser.get(section, spelling)
    for option in _PIP_OPTIONS:
        text = env.get("PIP_" + option.upper().replace("-", "_"))
        if text:
            found[option] = text
    return found


def _pip_files(env: Mapping[str, str]) -> list[Path]:
    if env.get("PIP_CONFIG_FILE") == os.devnull:  # makes pip read no file
        return []
    home = Path(env.get("HOME", "/"))
    places = [_PIP_OF_ALL, home / ".pip/pip.conf"]
    places.append(Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "pip/pip.conf")
    if env.get("PIP_CONFIG_FILE"):
        places.append(Path(env["PIP_CONFIG_FILE"]))
    return places


def debian_mirror(etc: Path = Path("/etc/apt"), debootstrap: Path = Path("/usr/sbin/debootstrap")) -> str:
    """Return the Debian mirror that this machine uses, or debootstrap's default on other distributions."""
    distribution = _distribution()
    if distribution == "debian":
        parts = sorted((*etc.glob("sources.list.d/*.sources"), *etc.glob("sources.list.d/*.list")))
        for path in (*parts, etc / "sources.list"):
            for uri in _archive_uris(path):
                return uri
    try:
        text = debootstrap.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    match = re.search(r"^DEF_MIRROR=[\"']?(https?://[^\s\"']+/debian)", text, re.MULTILINE)
    return match[1] if match else ""


def _distribution() -> str:
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return ""
    match = re.search(r"^ID=[\"']?([a-z0-9]+)", text, re.MULTILINE)
    return match[1] if match else ""


def _archive_uris(path: Path) -> list[str]:
    """Return the URIs of the main archive (path ends in /debian) in an apt source file of either format."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    if path.suffix == ".sources":
        stanzas = [part for part in re.split(r"\n\s*\n", text) if not _DISABLED.search(part)]
        lines = [line for part in stanzas for line in part.splitlines()]
        found = [word for line in lines if line.lower().startswith("uris:") for word in line.split()[1:]]
    else:
        found = [match[1] for line in text.splitlines() if (match := _ONE_LINE.match(line.strip()))]
    archives = [uri.rstrip("/") for uri in found if uri.startswith("http") and uri.rstrip("/").endswith("/debian")]
    return [uri for uri in archives if not holds_login(uri)]


def _http_proxy(address: str) -> Proxy | None:
    """Return a proxy that a relay can reach, or None."""
    try:
        proxy = Proxy.parse(address)
    except UsageError:
        return None
    return proxy if proxy.scheme == "http" and "?" not in address else None


def _set_for_uv(collected: _Collected, env: Mapping[str, str], home: Path) -> None:
    """Set uv's variables: the user's own, else those of pip, with pip's rule: the best version of all indexes.

    Reference: https://docs.astral.sh/uv/reference/environment/
    """
    for name, pip, separator in _UV_OF_PIP:
        given = env.get(name, "")
        if not given:
            text = collected.env.get(pip, "")
            if text and all(re.match(r"[a-z]+://|/", part) or name == "UV_INSECURE_HOST" for part in text.split()):
                collected.env[name] = separator.join(map(_as_url, text.split()) if "INDEX" in name else text.split())
            continue
        parts = [
            part.partition("=")[2] if _INDEX_NAME.match(part) else part for part in re.split(r"[\s,]+", given) if part
        ]
        kept = [collected.localised(part, home, index="INDEX" in name) for part in parts]
        if None in kept:
            collected.left_out.append(name)
        if shown := [part for part in kept if part]:
            collected.set(name, separator.join(shown))
    if "UV_INDEX" in collected.env:
        collected.env["UV_INDEX_STRATEGY"] = env.get("UV_INDEX_STRATEGY") or "unsafe-best-match"


def _as_url(place: str) -> str:
    return f"file://{quote(place)}" if place.startswith("/") else place


class _Collected:
    """Collects environment variables and binds."""

    def __init__(self, folder: Path, seen_as: Path) -> None:
        self._folder = folder
        self._seen_as = seen_as
        self._targets: dict[Path, str] = {}
        self.env: dict[str, str] = {}
        self.binds: list[Bind] = []
        self.left_out: list[str] = []
        self.relayed: list[tuple[str, Proxy]] = []

    def set(self, name: str, text: str) -> None:
        """Set a variable unless it holds a login: a recipe can print everything that a build sees."""
        if any(holds_login(part) or holds_token(part) for part in text.split()):
            self.left_out.append(name)
        else:
            self.env[name] = text

    def set_proxies(self, env: Mapping[str, str]) -> None:
        """Set each proxy in both spellings: curl and apt read only the lowercase one, others only the other."""
        for name in (spelling for spelling in PROXIES if spelling.islower()):
            given = next((spelling for spelling in (name, name.upper()) if env.get(spelling)), "")
            text = plain_no_proxy(env[given]) if name == "no_proxy" and given else env.get(given, "")
            if not text:
                continue
            if not holds_login(text):
                self.env |= {name: text, name.upper(): text}
            elif (proxy := _http_proxy(text)) is not None:
                self.relayed += [(name, proxy), (name.upper(), proxy)]
            else:
                self.left_out.append(given)

    def add_file(self, name: str, content: bytes) -> str:
        """Write a file that builds see. Returns its path there."""
        files.atomic_write(self._folder / name, content)
        return str(self._seen_as / name)

    def bind_file(self, path: Path) -> str:
        """Make a file visible in builds. Returns its path there."""
        real = path.resolve()
        if real not in self._targets:
            name = f"{len(self._targets)}-{real.name}"
            with files.create(self._folder / name, exact=True):
                pass
            self._add(real, name)
        return self._targets[real]

    def bind_folder(self, path: Path) -> str:
        """Make a folder visible in builds. Returns its path there."""
        real = path.resolve()
        if real not in self._targets:
            name = f"{len(self._targets)}-{real.name}"
            files.make_folder(self._folder / name, exact=True)
            self._add(real, name)
        return self._targets[real]

    def localised(self, source: str, home: Path, *, index: bool) -> str | None:
        """Return a pip source as a build sees it: '' for a missing local folder, None for one that contains the home.

        index: whether it is an index. The pages of an index link to files next to it (../files). So its parent is bound
        if the index has the usual name (PEP 503: BASE/simple/) and the parent does not contain the home.
        """
        is_url = source.startswith("file://")
        path = Path(unquote(urlsplit(source).path) if is_url else source)
        if not is_url and "://" in source:
            return source
        if not path.is_absolute() or not path.is_dir():
            return source if not path.is_absolute() else ""
        if home.is_relative_to(path.resolve()):
            return None
        whole = index and path.name == "simple" and not home.is_relative_to(path.parent.resolve())
        base = path.parent if whole else path
        inside = str(Path(self.bind_folder(base)) / path.relative_to(base))
        return f"file://{inside}" if is_url else inside

    def _add(self, real: Path, name: str) -> None:
        target = self._seen_as / name
        self._targets[real] = str(target)
        self.binds.append(Bind(real, str(target)))
