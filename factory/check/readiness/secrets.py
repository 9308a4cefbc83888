"""Passwords, keys and tokens that are left in an image: whoever can pull it can read them.

Only files with telling names and the image's own scripts are read. What a secret is never appears in a finding.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence

from factory.check.readiness.forms import FORMS, PRIVATE_KEY, TELLING, Form, is_secret, known_secrets
from factory.check.readiness.subject import Subject
from factory.records.findings import Finding
from factory.sif.tree import Entry

_LARGEST = 256 << 10  # bytes of a file that is read
_ALL_READ = 32 << 20  # bytes of all files that are read
_LEAST_READ = 16 << 10  # bytes that each file counts for
_KEY_FILE = re.compile(
    r"id_(?:rsa|dsa|ecdsa|ed25519)|[^/]*\.(?:pem|key|ppk|p8)|ssh_host_[a-z0-9]+_key|[^/]*_rsa", re.DOTALL
)
# Packages publish the keys of their own tests and examples; everyone has them.
_PUBLIC = re.compile(
    r".*/(?:site-packages|dist-packages|node_modules|tests?|testing|testdata|examples?|samples?|docs?|fixtures"
    r"|gems|R/(?:site-)?library)/.*|/usr/share/.*|/usr/lib/(?:go|ruby|rustlib)/.*|/opt/conda/pkgs/.*",
    re.DOTALL,
)
_MADE_BY_PACKAGES = re.compile(r"/etc/ssh/ssh_host_[a-z0-9]+_key|/etc/ssl/private/ssl-cert-snakeoil\.key|/etc/pki/.*")
_SCRIPTS = re.compile(
    r"/\.singularity\.d/(?:Singularity|runscript|startscript|test|env/[^/]+|bootstrap_history/[^/]+|labels\.json)"
)
_NAME = re.compile(
    r"(?:.*_)?(?:TOKEN|SECRET|PASSWORD|PASSWD|PASS|APIKEY|API_KEY|ACCESS_KEY|SECRET_KEY|PRIVATE_KEY|ACCESS_KEY_ID"
    r"|CREDENTIALS?)",
    re.IGNORECASE,
)
_LEAST = 8  # characters of a value that can be a secret
_HISTORY = re.compile(r"/(?:root|home/[^/]+)/\.(?:[a-z]{1,20}_?history|lesshst|viminfo|local/share/fish/fish_history)")
_GIT = re.compile(r".*/\.git", re.DOTALL)


def _in_files(subject: Subject) -> Iterator[Finding]:
    left = _ALL_READ
    for path, entry in subject.tree.entries.items():
        if entry.inode.kind != "file" or not 0 < entry.inode.size <= _LARGEST or path in subject.packaged:
            continue
        name = path.rpartition("/")[2]
        forms = [form for form in FORMS if form.path.fullmatch(path)] if TELLING.fullmatch(name) else []
        key, script = _KEY_FILE.fullmatch(name) is not None, _SCRIPTS.fullmatch(path) is not None
        if not (forms or key or script) or _PUBLIC.fullmatch(path):
            continue
        left -= max(entry.inode.size, _LEAST_READ)
        if left < 0:
            return
        yield from _judged(subject, entry, forms=forms, key=key, script=script)


def _judged(subject: Subject, entry: Entry, *, forms: Sequence[Form], key: bool, script: bool) -> Iterator[Finding]:
    content = subject.tree.head(entry, _LARGEST)
    if key and PRIVATE_KEY.search(content):
        if _MADE_BY_PACKAGES.fullmatch(entry.path):
            message = "a private key that a package made during the build is the same for everyone"
            remedy = f"remove it at the end of %post: rm -f {entry.path}"
            yield subject.finding("secret", entry.path, message, remedy=remedy, severity="warning")
        else:
            yield subject.finding("secret", entry.path, "it contains a private key")
    found = next((form.what for form in forms if form.is_in(content)), "")
    if found:
        yield subject.finding("secret", entry.path, f"it contains {found}")
    for what in known_secrets(content) if script else ():
        yield subject.finding("secret", entry.path, f"it contains a {what}")


def _in_variables(subject: Subject) -> Iterator[Finding]:
    """Variables by their name; values of a known form are found in their script."""
    for variable in subject.variables.values():
        value = variable.value.encode("utf-8", "surrogateescape")
        if not _NAME.fullmatch(variable.name) or len(value) < _LEAST or not is_secret(value):
            continue
        if not any(True for _ in known_secrets(value)):
            message = f"{posixpath.basename(variable.script)} sets it to a fixed value, which looks like a secret"
            remedy = "leave it out of the image; users set it, or a job does: APPTAINERENV_NAME"
            yield subject.finding("secret", f"${variable.name}", message, remedy=remedy, severity="warning")


def _history(subject: Subject) -> Iterator[Finding]:
    for path, entry in subject.tree.entries.items():
        if _HISTORY.fullmatch(path) and entry.inode.kind == "file" and entry.inode.size:
            yield subject.finding("history-file", path, f"{entry.inode.size} bytes of what somebody typed")


def _git(subject: Subject) -> Iterator[Finding]:
    for path, entry in subject.tree.entries.items():
        if _GIT.fullmatch(path) and entry.inode.kind == "folder" and subject.tree.get(f"{path}/objects") is not None:
            yield subject.finding("git-folder", path, "a git repository with its whole history")


CHECKS = (_in_files, _in_variables, _history, _git)
