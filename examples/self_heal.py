#!/usr/bin/env python3
"""Restarts what runs inside a pod when the pod says that it is ill.

    KONTROL_CALLBACK=examples/self_heal.py KONTROL_INVOKE_KEY_FILE=key.pem kubervisor run

A pod is ill while its payload holds {"state": "down"} (see state_machine.py). Then its agent is asked to run $HEAL
(default: `service app restart`), signed with the key, at most once in $HEAL_EVERY seconds (default 60) per pod:
STATE remembers when. The agents need KONTROL_INVOKE_PUBKEY_FILE, and better KONTROL_INVOKE_ALLOW too.
"""
import json
import os
import subprocess
import sys
import time

COMMAND = os.environ.get("HEAL", "service app restart")
EVERY = float(os.environ.get("HEAL_EVERY", "60"))

pods = json.load(open(os.environ["PODS_FILE"]))
state = json.load(open(os.environ["STATE_FILE"])) if "STATE_FILE" in os.environ else {}
tried, now = state.get("tried", {}), time.time()

ill = [pod for pod in pods if isinstance(pod.get("payload"), dict) and pod["payload"].get("state") == "down"]
tried = {pod["id"]: tried[pod["id"]] for pod in ill if pod["id"] in tried}
for pod in ill:
    # A clock that was set back must not keep a pod waiting for ever.
    if 0 <= now - tried.get(pod["id"], -EVERY) < EVERY:
        continue
    tried[pod["id"]] = now
    # The agent's id is looked up in PODS by the address; 0 is healed, 1 refused or failed, 124 too late.
    answer = subprocess.run(["kubervisor", "invoke", pod["ip"], "--id", pod["id"], "--timeout", "10", "--cmd", COMMAND],
                            stdout=subprocess.PIPE)
    print("%s: '%s' ended with %d" % (pod["id"], COMMAND, answer.returncode), file=sys.stderr)

out = {"tried": tried}
if ill:
    out["again"] = EVERY  # look again even if nothing changes: it may still be ill
print(json.dumps(out))
