#!/usr/bin/env python3
"""A custom service in a few lines: the pods that a file names, one NAMESPACE/NAME a line, are out of bounds.

usage: detector.py FILE PORT
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FILE, PORT = sys.argv[1], int(sys.argv[2])


class Detector(BaseHTTPRequestHandler):
    def do_GET(self):
        with open(FILE, encoding="utf-8") as lines:
            pods = [line.strip().split("/", 1) for line in lines if "/" in line]
        items = [{"metadata": {"namespace": namespace, "name": name}} for namespace, name in pods]
        body = json.dumps({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """One line for each look would say nothing."""


ThreadingHTTPServer(("127.0.0.1", PORT), Detector).serve_forever()
