#!/bin/sh
# Tells somebody which pods came and went.
#
#   KONTROL_CALLBACK=examples/alert.sh ALERT='logger -t fleet' kubervisor run
#
# $ALERT is a command that gets one sentence as its last argument; without it the sentences go to the
# master's log. The list of pods seen is kept as STATE, so that a restarted or another master alerts
# about what changed meanwhile and about nothing twice.
set -eu

names() { # the id of each pod, one a line: PODS has its members sorted, so the id follows the app
    grep -o '"app":"[^"]*","id":"[^"]*"' | sed 's/.*"id":"//; s/"$//' | sort
}
tell() { if [ -n "${ALERT:-}" ]; then $ALERT "$1" >&2; else echo "$1" >&2; fi; }

names < "$PODS_FILE" > "${PODS_FILE%/*}/now" || true
cat "${STATE_FILE:-/dev/null}" | tr -d '[]"' | tr ',' '\n' | sed '/^$/d' > "${PODS_FILE%/*}/before"
cd "${PODS_FILE%/*}" # private to this run, and removed after it

if [ -n "${STATE_FILE:-}" ]; then # the first run has nothing to compare with
    comm -13 before now | while read -r id; do tell "$id is here"; done
    comm -23 before now | while read -r id; do tell "$id is gone"; done
fi
printf '[%s]\n' "$(sed 's/.*/"&"/' now | paste -sd, -)"
