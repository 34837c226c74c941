#!/bin/bash
# Runs as a unit in a machine that test_machine.py boots, uses the units of deploy/systemd, and writes what it
# sees to /out/seen as NAME=VALUE.
see() { printf '%s=%s\n' "$1" "$(tr '\n' ' ' <<< "$2")" >> /out/seen; }
restarted() { # Waits for the end of a restart, for five minutes at most.
  for _ in {1..1500}; do
    [ "$(systemctl show --property NRestarts --value spincycle)" = "$1" ] && systemctl --quiet is-active spincycle && return
    sleep 0.2
  done
}
spincycle=/opt/spincycle/bin/spincycle
umask 077
trap 'systemctl --no-block poweroff' EXIT

# The image has a user and a directory for containers. A machine of an operator does not.
userdel spincycle
rm -rf /var/lib/spincycle

# Both servers in one process. Their watchdog does not wait for a minute.
mkdir -p /run/systemd/system/spincycle.service.d
printf '[Service]\nWatchdogSec=5s\nTimeoutAbortSec=5s\n' > /run/systemd/system/spincycle.service.d/watchdog.conf
systemctl daemon-reload
systemctl start spincycle
see server.active "$(systemctl is-active spincycle)"
(cd / && SPINCYCLE_DATABASE_URL=sqlite:////var/lib/spincycle/spincycle.db $spincycle token create ada --role admin) > /run/token
see server.request "$(/opt/spincycle/bin/spinc --token-file /run/token start nap ms=100 --wait)"
pid=$(systemctl show --property MainPID --value spincycle)
see server.status "$(grep -E '^(CapEff|NoNewPrivs|Seccomp|Uid):' "/proc/$pid/status")"
see server.database "$(stat --format '%U %a' /var/lib/private/spincycle/spincycle.db)"
kill -9 "$pid"
restarted 1
see server.killed "$(systemctl is-active spincycle)"
kill -STOP "$(systemctl show --property MainPID --value spincycle)"
restarted 2
see server.hanging "$(systemctl is-active spincycle)"
mkdir -p /etc/systemd/system/spincycle-prune.service.d
cp /kit/prune-sqlite.conf /etc/systemd/system/spincycle-prune.service.d/
systemctl daemon-reload
systemctl start spincycle-prune
see prune.result "$(systemctl show --property Result --value spincycle-prune)"
rm -r /etc/systemd/system/spincycle-prune.service.d
systemctl daemon-reload
systemctl stop spincycle
see server.result "$(systemctl show --property Result --value spincycle)"

# The servers apart, with TLS and a cluster key. The file of the database is in the private /tmp of the unit.
systemctl start spincycle-migrate
see migrate.result "$(systemctl show --property Result --value spincycle-migrate)"
systemctl start spincycle-request-manager spincycle-job-runner
see manager.active "$(systemctl is-active spincycle-request-manager)"
see runner.active "$(systemctl is-active spincycle-job-runner)"
pid=$(systemctl show --property MainPID --value spincycle-request-manager)
user=$(stat --format %u "/proc/$pid")
nsenter --target "$pid" --mount --setuid "$user" --setgid "$user" \
  env --chdir=/tmp SPINCYCLE_DATABASE_URL=sqlite:////tmp/rm.db $spincycle token create ada --role admin > /run/token
call() { /opt/spincycle/bin/spinc --addr rm1.example.com:32318 --ca /etc/spincycle/tls/ca.pem --token-file /run/token "$@"; }
see runner.request "$(call start nap ms=100 --wait 2>&1)"
systemctl stop spincycle-job-runner
see runner.result "$(systemctl show --property Result --value spincycle-job-runner)"
useradd --create-home deploy
systemctl start spincycle-job-runner@deploy
pid=$(systemctl show --property MainPID --value spincycle-job-runner@deploy)
see template.user "$(stat --format %U "/proc/$pid")"
see template.request "$(call start nap ms=100 --wait 2>&1)"
systemctl stop spincycle-job-runner@deploy spincycle-request-manager
see template.result "$(systemctl show --property Result --value spincycle-job-runner@deploy)"
see manager.result "$(systemctl show --property Result --value spincycle-request-manager)"
see journal.bad "$(journalctl --output cat | grep -cE '"level":"(warning|error|critical)"')"
journalctl --no-pager > /out/journal
see end reached
