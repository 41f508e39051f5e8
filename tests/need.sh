# shellcheck shell=sh
# For scripts that need programs: names what is missing, and installs it on Debian as root.
#
#     . tests/need.sh
#     need COMMAND DEBIAN-PACKAGE…     # for each
#     install_missing

missing=""

need() {
    command=$1
    shift
    command -v "$command" >/dev/null 2>&1 || missing="$missing $*"
}

install_missing() {
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        printf '\n== installing%s\n' "$missing"
        apt-get update -q
        # shellcheck disable=SC2086 # one word for each package
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
    else
        echo "missing:$missing (names of Debian's packages); install them and run this again" >&2
        exit 1
    fi
}
