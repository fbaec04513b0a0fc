#!/bin/sh
# Before removal, of the deb (remove) and of the rpm (0). An upgrade leaves the
# agent running: the new package restarts it.
set -e
case "$1" in remove | 0) ;; *) exit 0 ;; esac
[ ! -d /run/systemd/system ] || systemctl --no-reload disable --now p2pagent.service 'p2pagent-wait@*.service'
