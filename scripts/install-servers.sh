#!/bin/sh
# Makes sure that there are programs to start private servers, or a browser, from, and a font for its pictures:
# `install-servers.sh rabbitmq-server postgresql`.
set -eu

has() {
    case "$1" in
    rabbitmq-server)
        [ -n "${AMQP_URL:-}" ] || command -v rabbitmq-server >/dev/null || [ -x /usr/sbin/rabbitmq-server ] ||
            [ -x /opt/homebrew/opt/rabbitmq/sbin/rabbitmq-server ] ||
            [ -x /usr/local/opt/rabbitmq/sbin/rabbitmq-server ]
        ;;
    postgresql)
        command -v postgres >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 ||
            ls /opt/homebrew/opt/postgresql@*/bin/initdb >/dev/null 2>&1 ||
            ls /usr/local/opt/postgresql@*/bin/initdb >/dev/null 2>&1
        ;;
    pgbouncer) command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] ;;
    chromium)
        command -v chromium >/dev/null || [ -x "/Applications/Chromium.app/Contents/MacOS/Chromium" ]
        ;;
    nodejs) command -v node >/dev/null ;;
    fonts-inter) fc-list 2>/dev/null | grep -q Inter ;;
    *) command -v "$1" >/dev/null ;;
    esac
}

fail() {
    echo "$1" >&2
    exit 1
}

missing=""
for server in "$@"; do
    has "$server" || missing="$missing $server"
done
[ -n "$missing" ] || exit 0
missing="${missing# }"
# A broker may be somewhere else; the tests' databases are private.
case "$missing" in
*rabbitmq-server*) or=", or set AMQP_URL to a broker you have" ;;
*) or="" ;;
esac

if ! command -v apt-get >/dev/null; then
    fail "Needed, and not here: $missing. Install it (on a Mac: brew install rabbitmq postgresql@17 pgbouncer wrk chromium node)$or."
fi
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null; then
    as_root="sudo"
else
    fail "Needed, and not here: $missing. Installing it takes root or sudo: apt-get install $missing$or."
fi

echo "Installing $missing with apt, for private use: no service of it is started."
# A system service would take the usual port: this policy holds for the installation alone.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod +x "$policy"
    trap '$as_root rm -f "$policy"' EXIT
fi
install="env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300"
output=$(mktemp)
# shellcheck disable=SC2086 # a list of packages
if ! { $as_root $install update && $as_root $install install -y --no-install-recommends $missing; } >"$output" 2>&1; then
    cat "$output" >&2
    fail "Installing $missing failed, see above. Install it by hand$or."
fi
rm -f "$output"
