#!/usr/bin/env python3
"""Takes pods with too many errors out of traffic, in its own words.

    KONTROL_CALLBACK=examples/verdicts.py KUBERVISOR_ENDPOINTS=endpoints.txt \
        KUBERVISOR_TARGET_PORT=8080 kubervisor run

Each payload holds {"errors": 0..1}, the share of failed requests. More than $MAX_ERRORS (default 0.05) is too many. This only
says what is wrong with whom: the gate decides how many may go at once and when they come back, so that nothing
printed here can take the fleet below its floor. A pod that is not named has no verdict against it.
"""
import json
import os
import sys

LIMIT = float(os.environ.get("MAX_ERRORS", "0.05"))

traffic = []
for pod in json.load(sys.stdin):  # the same bytes as $PODS_FILE
    payload = pod.get("payload")
    errors = payload.get("errors") if isinstance(payload, dict) else None
    if isinstance(errors, (int, float)) and errors > LIMIT:
        traffic.append({
            "id": pod["id"],
            "verdict": "withhold",
            "reason": "%.1f%% errors, at most %.1f%% are fine" % (100 * errors, 100 * LIMIT),
            "severity": min(1.0, errors),
        })

print(json.dumps({"traffic": traffic}))
