#!/bin/sh
# Makes sure that there is a RabbitMQ server to start private nodes from.
set -eu

has_rabbitmq() {
    [ -n "${AMQP_URL:-}" ] || command -v rabbitmq-server >/dev/null || [ -x /usr/sbin/rabbitmq-server ] ||
        [ -x /opt/homebrew/opt/rabbitmq/sbin/rabbitmq-server ] || [ -x /usr/local/opt/rabbitmq/sbin/rabbitmq-server ]
}

fail() {
    echo "$1" >&2
    exit 1
}

has_rabbitmq && exit 0

if ! command -v apt-get >/dev/null; then
    fail "RabbitMQ is needed: install it (on a Mac: brew install rabbitmq), or set AMQP_URL to a broker you have."
fi
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null; then
    as_root="sudo"
else
    fail "RabbitMQ is needed, and installing it takes root or sudo: apt-get install rabbitmq-server, or set AMQP_URL."
fi

echo "Installing rabbitmq-server with apt: private nodes are started from it. Its own service is left off."
# A system service would take port 5672 and stay: this policy holds for the installation alone.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod +x "$policy"
    trap '$as_root rm -f "$policy"' EXIT
fi
install="env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300"
output=$(mktemp)
if ! { $as_root $install update && $as_root $install install -y --no-install-recommends rabbitmq-server; } >"$output" 2>&1; then
    cat "$output" >&2
    fail "Installing rabbitmq-server failed, see above. Install it by hand, or set AMQP_URL to a broker you have."
fi
rm -f "$output"
