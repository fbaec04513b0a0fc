#!/bin/sh
# After install and upgrade, of the deb (configure) and of the rpm (1, 2).
set -e
case "$1" in configure | 1 | 2) ;; *) exit 0 ;; esac
systemd-sysusers p2pagent.conf
systemd-tmpfiles --create p2pagent.conf
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl try-restart p2pagent.service # does nothing unless it runs
fi
# Not started by itself: a member needs the key of its swarm first.
[ -e /etc/p2pagent/swarm.key ] || cat <<'TEXT'
p2pagent: put the swarm's key into /etc/p2pagent/swarm.key (the first node makes it:
p2pagent keygen /etc/p2pagent/swarm.key), name members under `join` in
/etc/p2pagent/p2pagent.yaml, then: systemctl enable --now p2pagent
TEXT
