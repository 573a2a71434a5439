#!/bin/sh
# Runs a command on a loopback of its own that loses packets; at the end it says how many on stderr.
#   lossy_network.sh PERCENT command …
# Needs iproute2, nftables and util-linux; root, or a kernel that gives users namespaces.
set -eu
if [ -z "${IN_LOSSY_NETWORK:-}" ]; then
    export IN_LOSSY_NETWORK=1
    if [ "$(id -u)" = 0 ]; then
        exec unshare --net -- "$0" "$@"
    fi
    # The user stays the same: PostgreSQL refuses to run as root.
    exec unshare --user --map-current-user --keep-caps --net -- "$0" "$@"
fi
percent=$1
shift
PATH=$PATH:/usr/sbin:/sbin
ip link set lo up
nft -f - <<RULES
table inet lossy {
    counter lost { }
    counter sent { }
    chain input {
        type filter hook input priority 0;
        meta l4proto tcp counter name sent
        meta l4proto tcp numgen random mod 100 < $percent counter name lost drop
    }
}
RULES
code=0
"$@" || code=$?
count() { nft list counter inet lossy "$1" | sed -n 's/.*packets \([0-9]*\).*/\1/p'; }
echo "lost $(count lost) of $(count sent) packets" >&2
exit "$code"
