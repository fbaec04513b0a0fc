#!/bin/sh
# After removal. Models are dear: they stay, unless a purge asks for them too with
# P2PAGENT_PURGE_CACHE=yes. The user stays, so that nobody else gets its files.
set -e
[ ! -d /run/systemd/system ] || systemctl daemon-reload
[ "$1" = purge ] || exit 0
rm -f /etc/p2pagent/swarm.key /etc/p2pagent/hf-token
rmdir --ignore-fail-on-non-empty /etc/p2pagent 2>/dev/null || true
rm -rf /var/lib/p2pagent/agent
[ "${P2PAGENT_PURGE_CACHE:-}" != yes ] || rm -rf /var/lib/p2pagent
[ ! -d /var/lib/p2pagent ] || echo "p2pagent: models are left in /var/lib/p2pagent/huggingface"
