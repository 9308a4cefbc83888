"""Shell scripts that quiet builds run inside images. They work in busybox sh, dash and bash.

All but LOCALE go into the function `tidy_up`, after `COMMON`. They use its functions `remove` and `empty`, and never
fail the build.
"""

from __future__ import annotations

import inspect

from factory.io import bytecode

LOCALE = """\
export TZ=UTC
case $(locale -a 2>/dev/null) in
'' | *C.UTF-8* | *C.utf8*) export LC_ALL=C.UTF-8 ;; # musl has it, and no command to ask
*) export LC_ALL=C ;;
esac
"""

# While %post runs, /tmp, /var/tmp and some files in /etc belong to the build machine. They can be on the same disk as
# the image, so device numbers do not identify them; the list of mounts does. Without that list nothing is removed.
COMMON = """\
if [ ! -r /proc/self/mountinfo ] || ! command -v rm >/dev/null; then return 0; fi
newline='
'
mounts=$(while read -r _ _ _ _ point _; do printf '%s\\n' "$point"; done </proc/self/mountinfo)
mounts=$newline$mounts$newline
is_ours() { # PATH: it is no link, and nothing at, above or below it is a mount point; sets $real
    folder=$(cd -P -- "${1%/*}/" 2>/dev/null && pwd -P) || return 1
    real=${folder%/}/${1##*/}
    [ ! -L "$real" ] || return 1
    case $real in *[[:space:]]* | *\\\\* | *'#'*) return 1 ;; esac # such names are escaped in the list
    case $mounts in *"$newline$real$newline"* | *"$newline$real/"*) return 1 ;; esac
    while [ -n "${folder#/}" ]; do
        case $mounts in *"$newline$folder$newline"*) return 1 ;; esac
        folder=${folder%/*}
    done
}
remove() {
    for path; do
        if [ -e "$path" ] && is_ours "$path"; then rm -rf -- "$real"; fi
    done
}
empty() {
    for path; do
        if [ -f "$path" ] && [ -s "$path" ] && is_ours "$path"; then : >"$real"; fi
    done
}
"""

CACHES = """\
# Archives and lists of package managers.
remove /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/* /var/cache/apt/*.bin
for list in /var/lib/apt/lists/*; do
    [ "${list##*/}" = partial ] || remove "$list"
done
remove /var/lib/apt/lists/partial/*
remove /var/cache/dnf/* /var/cache/libdnf5/* /var/cache/yum/* /var/cache/zypp/* /var/cache/apk/* /etc/apk/cache/*
remove /var/cache/pacman/pkg/* /var/lib/pacman/sync/*
remove /var/cache/debconf/*-old /var/lib/dpkg/*-old
remove /var/cache/ldconfig/aux-cache /var/cache/man/*
remove /root/.cache/pip /root/.cache/uv /root/.cache/yarn /root/.cache/go-build /usr/local/share/.cache/yarn
remove /root/.npm/_cacache /root/.npm/_logs /root/.wget-hsts
# conda: downloaded archives. Unpacked packages stay: environments may link to them.
for packages in /opt/*/pkgs /root/*/pkgs /root/.conda/pkgs; do
    if [ -f "$packages/urls.txt" ]; then
        remove "$packages"/*.conda "$packages"/*.tar.bz2 "$packages"/cache/*.json "$packages"/cache/*.zst
    fi
done
# Logs are emptied, not removed: a service may need its file, with this owner.
remove /var/log/journal/*
if is_ours /var/log && command -v find >/dev/null; then
    find "$real" -xdev -type f -size +0 -exec sh -c 'for file; do : >"$file"; done' sh {} +
fi
"""

IDENTITY = """\
empty /etc/machine-id
remove /var/lib/dbus/machine-id /var/lib/systemd/random-seed /var/lib/systemd/credential.secret
remove /var/lib/urandom/random-seed /root/.gnupg/random_seed
remove /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
host='' name=''
[ ! -r /proc/sys/kernel/hostname ] || read -r host </proc/sys/kernel/hostname
[ ! -r /etc/hostname ] || read -r name </etc/hostname
if [ -n "$host" ] && [ "$name" = "$host" ]; then empty /etc/hostname; fi
"""

_PYTHON = inspect.getsource(bytecode)

BYTECODE = f"""\
seen=' '
IFS=:
for programs in /usr/bin /usr/local/bin /usr/libexec /bin /opt/*/bin /opt/*/*/bin /opt/*/envs/*/bin /usr/local/*/bin \\
    /root/*/bin /root/*/envs/*/bin /*/bin $PATH; do
    is_ours "$programs/." || continue
    for python in "$programs"/python3 "$programs"/python3.[0-9] "$programs"/python3.[0-9][0-9] \\
        "$programs"/platform-python; do
        if [ ! -f "$python" ] || [ ! -x "$python" ]; then continue; fi
        magic=$("$python" -I -S -B -c 'import sys, importlib.util as i
sys.version_info < (3, 7) or print(i.MAGIC_NUMBER.hex())' 2>/dev/null) || continue
        case $magic in '') continue ;; esac
        case $seen in *" $magic "*) continue ;; esac # one interpreter of a version is enough
        seen="$seen$magic "
        "$python" -I -S -B - <<'END_OF_PYTHON'
{_PYTHON}END_OF_PYTHON
    done
done
"""
