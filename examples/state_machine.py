#!/usr/bin/env python3
"""Watches one process and keeps a payload file: starting -> up <-> failing -> down, and back up.

    examples/state_machine.py /run/app/payload.json -- curl -fsS -m 2 localhost:8080/health &
    KONTROL_PAYLOAD=/run/app/payload.json kubervisor run

The check runs every $INTERVAL seconds (default 1). It must fail $FAILURES times in a row (default 3) before the state is
down: one lost check alarms nobody. The file is replaced, never rewritten, so that a reader sees the old or the new
state and nothing between; it is replaced only when the state changes, because each change of a payload
changes the ensemble's digest.
"""
import json
import os
import subprocess
import sys
import tempfile
import time

path, check = os.path.abspath(sys.argv[1]), sys.argv[sys.argv.index("--") + 1:]
INTERVAL, FAILURES = float(os.environ.get("INTERVAL", "1")), int(os.environ.get("FAILURES", "3"))


def publish(state):
    fd, name = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".payload-")
    with os.fdopen(fd, "w") as file:
        json.dump({"state": state, "since": int(time.time())}, file)
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())
    os.replace(name, path)


state, failed = "starting", 0
publish(state)
while True:
    fine = subprocess.call(check, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    failed = 0 if fine else failed + 1
    if fine:
        new = "up"
    elif failed >= FAILURES:
        new = "down"
    else:
        new = "failing" if state in ("up", "failing") else state
    if new != state:
        state = new
        publish(state)
    time.sleep(INTERVAL)
