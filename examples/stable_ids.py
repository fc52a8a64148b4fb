#!/usr/bin/env python3
"""Gives each pod a small number of its own, and the number of a lost pod to its successor.

    KONTROL_CALLBACK=examples/stable_ids.py kubervisor run

A pod keeps its number for as long as it lives; the numbers of a role are always 0, 1, 2, ... with as few holes
as the losses leave. STATE holds them, and GET /state of the master serves them: {"redis": {"0": "redis-3621-fnnfp"}}.
"""
import json
import os
import sys

pods = json.load(open(os.environ["PODS_FILE"]))
before = json.load(open(os.environ["STATE_FILE"])) if "STATE_FILE" in os.environ else {}

alive = {}
for pod in pods:
    alive.setdefault(pod["role"], []).append(pod["id"])

numbers = {}
for role, ids in alive.items():
    kept = {number: id for number, id in before.get(role, {}).items() if id in ids}
    free = (str(n) for n in range(len(ids)) if str(n) not in kept)
    newcomers = [id for id in ids if id not in kept.values()]  # in the order of their arrival
    for id, number in zip(newcomers, free):
        heir_of = before.get(role, {}).get(number)
        print("%s %s is %s%s" % (role, number, id, ", after " + heir_of if heir_of else ""), file=sys.stderr)
        kept[number] = id
    numbers[role] = kept

print(json.dumps(numbers, sort_keys=True))
