"""A client as users of the original have it: an unmodified zerorpc, Python 2.7 or 3.

client.py ENDPOINT HEARTBEAT METHOD [ARG...]   one call; prints its result as JSON
client.py ENDPOINT HEARTBEAT --pings COUNT     COUNT calls of ping, many at a time
"""
from __future__ import print_function

import json
import sys

import gevent.pool
import zerorpc


def main():
    endpoint, heartbeat, method = sys.argv[1:4]
    args = sys.argv[4:]
    client = zerorpc.Client(heartbeat=float(heartbeat), timeout=30)
    client.connect(endpoint)
    try:
        if method == "--pings":
            pool = gevent.pool.Pool(50)
            answers = pool.map(lambda n: client.ping(json.dumps({"n": n})), range(int(args[0])))
            print(json.dumps(answers.count(None)))
        else:
            print(json.dumps(client(method, *args)))
    except zerorpc.RemoteError as error:
        print(json.dumps({"remote": error.name, "message": error.msg}))
    except zerorpc.LostRemote:
        print(json.dumps({"lost": True}))


main()
