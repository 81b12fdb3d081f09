#!/bin/sh
# `make compat`: runs `make test` in a Debian tree of another suite, as root, installing what the README asks for.
# The tree stays in COMPAT_DIR for the next run; remove its folder to build it anew. Files that git tracks are tested,
# as they lie in the working tree. Mirror, certificates and pip settings are those of this machine.
set -eu

suite="${SUITE:-trixie}"
folder="${COMPAT_DIR:-.cache/compat}"
checkout=root/counting-house

fail() {
    echo "$1" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "make compat mounts and changes root: run it as root."
command -v apt-get >/dev/null || fail "make compat builds a Debian tree with apt and debootstrap: run it on Debian."
sh scripts/install-servers.sh debootstrap
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
tree="$folder/$suite"
exec 9>"$tree.lock"
flock --nonblock 9 || fail "Another make compat uses $tree: wait for it, or set COMPAT_DIR."

if [ ! -d "$tree" ]; then
    # Where this machine has its own Debian from; without one, where debootstrap looks by itself.
    mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 == "Debian" && $2 == "Debian" { print $3; exit }')
    echo "Building a tree of Debian $suite in $tree"
    rm -rf "$tree.new"
    # shellcheck disable=SC2086 # no mirror is no argument
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$tree.new" $mirror >"$tree.log" 2>&1 ||
        fail "debootstrap failed: see $tree.log."
    mv "$tree.new" "$tree"
fi

copy() { # what there is of these paths, in their places
    for path in "$@"; do
        if [ -e "$path" ]; then
            mkdir -p "$tree$(dirname "$path")"
            cp -rL "$path" "$tree$(dirname "$path")"
        fi
    done
}
copy /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt /etc/pip.conf /etc/xdg/pip /root/.config/pip
apt-config dump Acquire >"$tree/etc/apt/apt.conf.d/90host"

rm -rf "${tree:?}/$checkout" "$tree/tmp"
install -d -m 1777 "$tree/tmp"
install -d "$tree/$checkout"
git ls-files -z | tar --create --null --files-from - | tar --extract --no-same-owner --directory "$tree/$checkout"

# With a process space and mounts of its own, whatever a test leaves running or mounted ends with it. The shell stays as
# process 1, to take in what others leave; `make` would be confused by children that it does not know.
export tree checkout
unset MAKEFLAGS MAKELEVEL MFLAGS AMQP_URL DATABASE_URL
unshare --mount --propagation private --pid --fork --kill-child sh -c '
    set -eu
    mount -t proc proc "$tree/proc"
    mount --rbind /dev "$tree/dev"
    mount -t tmpfs tmpfs "$tree/dev/shm"
    mount -t tmpfs tmpfs "$tree/run"
    chroot "$tree" /usr/bin/env HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        LANG=C.UTF-8 sh -euc "
        cd /$checkout
        export DEBIAN_FRONTEND=noninteractive
        apt-get -qq update
        apt-get -qq install -y --no-install-recommends python3-venv git make curl >/dev/null
        . /etc/os-release
        echo \"\$PRETTY_NAME: \$(python3 --version)\"
        make test
        dpkg-query --show --showformat \"\\\${Package} \\\${Version}\\\\n\" postgresql rabbitmq-server
    "
    exit $?
' 9>&-
