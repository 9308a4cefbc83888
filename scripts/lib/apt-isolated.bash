# shellcheck shell=bash
# Downloads Debian packages with apt's own signature checks, without root and without changing the
# system's package state: lists, cache and dpkg status are kept in the caller's folder STATE.
# Proxy, certificates and other transport settings are the machine's.
#
#   apt_isolated_debian STATE SUITE     use another suite of the Debian archive that this machine uses
#   apt_isolated_system STATE           use the machine's own sources
#   apt_isolated_download STATE DIR PACKAGE...   download exactly these packages to DIR
#   apt_isolated_closure STATE DIR PACKAGE...    download these packages and all their dependencies
#   apt_isolated_explain STATE          print why the last call failed, in one line
#
# All write apt's output to STATE/log and return non-zero on failure.

apt_isolated_keyring() {
    local file
    for file in /usr/share/keyrings/debian-archive-keyring.{gpg,pgp}; do
        [[ -r $file ]] && printf '%s\n' "$file" && return
    done
    return 1
}

# Prints the URIs of the Debian archives among apt's sources, identified by the origin in the signed lists. apt
# itself reads the sources, so .sources, .list, disabled entries and APT_CONFIG are handled as usual. Prints nothing
# if there are no lists yet. Security and other side archives have no further suites.
apt_isolated_debian_uris() { # options for apt-get
    # shellcheck disable=SC2016  # the $(NAME)s are apt's
    apt-get "$@" indextargets --format '$(ORIGIN) $(COMPONENT) $(RELEASE) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        awk '$1 == "Debian" && $2 == "main" && $3 !~ /[-\/](security|updates|backports|proposed)/ &&
             $4 !~ /^(cdrom|file|copy):/ && !seen[$4]++ { print $4 }'
}

apt_isolated_open() { # STATE, then lines for the configuration
    local state=$1
    shift
    rm -rf "$state"
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
    : >"$state/status"
    : >"$state/log"
    # Passed with -c, so it overrides the system's files: hooks and pins for the installed system must not
    # apply here. apt's sandbox user could not read the caller's folder.
    cat >"$state/apt.conf" <<CONF
#clear APT::Default-Release;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
Dir::State "$state";
Dir::State::lists "$state/lists";
Dir::State::status "$state/status";
Dir::State::extended_states "$state/extended_states";
Dir::Cache "$state/cache";
Dir::Cache::archives "$state/cache/archives";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "";
Acquire::Languages "none";
CONF
    (($# == 0)) || printf '%s\n' "$@" >>"$state/apt.conf"
}

apt_isolated_run() { # STATE, then apt-get's arguments
    local state=$1
    shift
    LC_ALL=C apt-get -q -y -c "$state/apt.conf" "$@" >>"$state/log" 2>&1 </dev/null
}

apt_isolated_debian() {
    local state=$1 suite=$2 keyring uris uri
    uris=$(apt_isolated_debian_uris || true)
    if [[ -z $uris ]]; then # no lists yet: update from the machine's sources first
        apt_isolated_system "$state" || true
        uris=$(apt_isolated_debian_uris -c "$state/apt.conf" || true)
        if [[ -z $uris ]]; then
            [[ -n $(apt_isolated_explain "$state") ]] || echo "E: no Debian archive among apt's sources" >>"$state/log"
            return 1
        fi
    fi
    apt_isolated_open "$state" "Dir::Etc::sourcelist \"$state/sources.list\";" \
        'Dir::Etc::sourceparts "/dev/null";' 'APT::Update::Error-Mode "any";'
    if ! keyring=$(apt_isolated_keyring); then
        echo 'E: no Debian keyring here (package debian-archive-keyring)' >>"$state/log"
        return 1
    fi
    for uri in $uris; do
        printf 'deb [arch=%s target=Packages lang=none signed-by=%s] %s %s main\n' \
            "$(dpkg --print-architecture)" "$keyring" "$uri" "$suite" >"$state/sources.list"
        apt_isolated_run "$state" update && return
    done
    return 1
}

apt_isolated_system() {
    apt_isolated_open "$1"
    # An unreachable third-party source is ignored: a missing package fails at the download.
    apt_isolated_run "$1" update
}

apt_isolated_download() {
    local state=$1 dir=$2
    shift 2
    mkdir -p "$dir"
    (cd "$dir" && apt_isolated_run "$state" download "$@")
}

# The empty status file makes apt treat every dependency as missing, so the result is complete.
apt_isolated_closure() {
    local state=$1 dir=$2
    shift 2
    mkdir -p "$dir"
    apt_isolated_run "$state" install --download-only --no-install-recommends "$@" &&
        mv "$state"/cache/archives/*.deb "$dir/"
}

apt_isolated_explain() {
    local pattern
    for pattern in 'Failed to fetch' '^E: ' '^W: '; do
        grep -m 1 -e "$pattern" "$1/log" && return
    done
    return 0
}
