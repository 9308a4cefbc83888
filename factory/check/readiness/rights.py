"""Files that only root can use, and rights that an image cannot give."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator

from factory.check.readiness.subject import Subject
from factory.recipes.codes import Severity
from factory.records.findings import Finding
from factory.sif.tree import Entry

# Distributions keep these from ordinary users, and no program of a user needs them. rpm and apk do not keep a list of
# files that can be read here, so the folders of the system itself are left out whole.
_OF_THE_SYSTEM = re.compile(
    r"/(?:proc|sys|dev|run|boot|root|tmp|lost\+found|home|var|\.singularity\.d)(?:/.*)?"
    r"|/etc/(?:g?shadow-?|\.pwd\.lock|security/opasswd|ssl/private(?:/.*)?|sudoers(?:\.d)?(?:/.*)?|.*\.lock|pki/.*"
    r"|ssh/ssh_host_.*|polkit-1/.*|audit/.*|skel/.*|default/.*|cron.*|crypttab|iscsi/.*|libaudit\.conf|passwd-|group-"
    r"|subuid-|subgid-|at\.deny|anacrontab|securetty|ppp(?:/.*)?|grub\.d/.*|selinux/.*|apt/auth\.conf.*|credstore.*)"
    r"|(?:/usr)?/s?bin/[^/]+|(?:/usr)?/lib(?:64|exec|32)?/(?!python|R/|jvm|julia)[^/]*(?:/.*)?"
    r"|/usr/share/(?:polkit-1|selinux|empty|empty\.sshd)(?:/.*)?",
    re.DOTALL,
)
_READ, _EXECUTE = stat.S_IROTH, stat.S_IXOTH
_ANY_EXECUTE = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH
_CAPABILITY = "security.capability"


def _root_only(subject: Subject) -> Iterator[Finding]:
    """Files and folders that others cannot read. Below a closed folder nothing else is reported."""
    closed = "\0"
    listed = subject.packaged
    for path, entry in subject.tree.entries.items():
        if path.startswith(closed) or _OF_THE_SYSTEM.fullmatch(path) or path in listed:
            continue
        wrong = _closed(entry)
        if not wrong:
            continue
        if entry.inode.kind == "folder":
            closed = path.rstrip("/") + "/"
        mode = f"mode {entry.inode.mode & 0o777:03o}, owner {entry.inode.uid}"
        severity: Severity = "error" if _is_needed(subject, path) else "warning"
        yield subject.finding("root-only-file", path, f"{wrong} ({mode})", severity=severity)


def _is_needed(subject: Subject, path: str) -> bool:
    """Return whether programs on PATH are behind a path, or it is one of them."""
    prefix = path.rstrip("/") + "/"
    return path.rpartition("/")[0] in subject.path_folders or any(
        f"{folder}/".startswith(prefix) for folder in subject.path_folders
    )


def _closed(entry: Entry) -> str:
    """Return what ordinary users cannot do with an entry, or ''."""
    mode = entry.inode.mode
    if entry.inode.kind == "folder":
        return "" if mode & _EXECUTE and mode & _READ else "users cannot enter or list this folder"
    if entry.inode.kind != "file":
        return ""
    if not mode & _READ:
        return "users cannot read this file"
    if mode & _ANY_EXECUTE and not mode & _EXECUTE:
        return "users cannot run this program"
    return ""


# Every installation of a distribution has these, and nobody expects them to work in a container.
_USUAL = re.compile(
    r"su|sg|mount|umount|passwd|chsh|chfn|newgrp|gpasswd|chage|expiry|unix_chkpwd|pam_extrausers_chkpwd|wall|write"
    r"|bsd-write|ssh-agent|ssh-keysign|dbus-daemon-launch-helper|dotlockfile|mail-(?:lock|unlock|touchlock)|crontab|at"
    r"|fusermount3?|ping[46]?|pam_timestamp_check|usernetctl|grub2-set-bootflag|utempter|newuidmap|newgidmap"
    r"|polkit-agent-helper-1|pkexec|mount\.(?:nfs|cifs|fuse)|umount\.nfs|lockfile|[mp]?locate|staprun|bbsuid"
    r"|gst-ptp-helper|arping|clockdiff|traceroute6\.iputils|chrome-sandbox|sudo|sudoedit|doas"
)
_ROOT_PROGRAMS = ("sudo", "doas")


def _setuid(subject: Subject) -> Iterator[Finding]:
    seen: set[int] = set()
    for path, entry in subject.tree.entries.items():
        if entry.inode.kind != "file" or entry.inode.number in seen or _USUAL.fullmatch(path.rpartition("/")[2]):
            continue
        bits = entry.inode.mode & (stat.S_ISUID | stat.S_ISGID)
        capable = any(name == _CAPABILITY for name, _ in entry.inode.xattrs)
        if bits or capable:
            seen.add(entry.inode.number)
            what = "is setuid" if bits & stat.S_ISUID else "is setgid" if bits else "has file capabilities"
            yield subject.finding("setuid", path, f"the program {what}")


def _sudo(subject: Subject) -> Iterator[Finding]:
    for name in _ROOT_PROGRAMS:
        entry = subject.program(name)
        if entry is not None:
            yield subject.finding("sudo", entry.path, f"{name} is installed")


CHECKS = (_root_only, _setuid, _sudo)
