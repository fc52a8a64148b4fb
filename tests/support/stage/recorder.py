#!/usr/bin/env python3
import json, os, sys, time
home = os.path.dirname(os.path.abspath(__file__))
note = dict(os.environ)
stdin = sys.stdin.read()
pods = open(os.environ["PODS_FILE"]).read()
fleet = json.load(open(os.environ["FLEET_FILE"]))
state = open(os.environ["STATE_FILE"]).read() if "STATE_FILE" in os.environ else None
run = {"at": time.time(), "by": os.environ["KONTROL_ID"], "env": note, "pods": pods, "stdin": stdin, "state": state,
       "fleet": fleet, "cwd": os.getcwd()}
def told(name):
    try:
        return open(os.path.join(home, name)).read()
    except FileNotFoundError:
        return None
with open(os.path.join(home, "runs"), "a") as out:
    out.write(json.dumps(run) + "\n")
if told("sleep"):
    time.sleep(float(told("sleep")))
if told("fail"):
    sys.exit(3)
answer = told("answer")
if answer is None:
    count = json.loads(state)["runs"] if state and "runs" in json.loads(state) else 0
    answer = json.dumps({"runs": count + 1})
sys.stdout.write(answer)
