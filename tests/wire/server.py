"""A master and an agent as the original has them: an unmodified zerorpc server, Python 2.7 or 3.

server.py ADDRESS HEARTBEAT   prints its port; each ping is printed as a line of JSON
"""
from __future__ import print_function

import json
import sys

import gevent
import zerorpc
import zmq.green as zmq


class Original(object):
    def ping(self, raw):
        print(json.dumps({"ping": raw if isinstance(raw, type(u"")) else raw.decode()}))
        sys.stdout.flush()

    def invoke(self, raw):
        request = json.loads(raw)
        if "fail" in request:
            raise ValueError(request["fail"])
        gevent.sleep(request.get("sleep", 0))
        return request.get("cmd")


server = zerorpc.Server(Original(), heartbeat=float(sys.argv[2]))
server.bind("tcp://%s:*" % sys.argv[1])
socket = server._events._socket
endpoint = socket.getsockopt(zmq.LAST_ENDPOINT)
print(endpoint.decode().rstrip("\0").rsplit(":", 1)[1])
sys.stdout.flush()
server.run()
