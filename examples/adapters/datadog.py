#!/usr/bin/env python3
"""Numbers of pods from Datadog, for `outlier: {customService: HOST:PORT}`.

    DD_API_KEY=... DD_APP_KEY=... datadog.py PORT 'avg:shop.latency{kube_namespace:shop} by {pod_name}'

`DD_SITE` (default https://api.datadoghq.com) names another site. The newest point of each series is the pod's number.
"""
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, QUERY = int(sys.argv[1]), sys.argv[2]
SITE = os.environ.get("DD_SITE", "https://api.datadoghq.com")
KEYS = {"DD-API-KEY": os.environ["DD_API_KEY"], "DD-APPLICATION-KEY": os.environ["DD_APP_KEY"]}
WINDOW = 300  # seconds


def pods():
    now = int(time.time())
    asked = urllib.parse.urlencode({"from": now - WINDOW, "to": now, "query": QUERY})
    request = urllib.request.Request(f"{SITE}/api/v1/query?{asked}", headers=KEYS)
    with urllib.request.urlopen(request, timeout=3) as response:
        answer = json.load(response)
    for series in answer["series"]:
        tags = dict(tag.split(":", 1) for tag in series["tag_set"] if ":" in tag)
        points = [value for _, value in series["pointlist"] if value is not None]
        if "pod_name" in tags and points:
            yield {"name": tags["pod_name"], "value": points[-1]}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            status, answer = 200, {"pods": list(pods())}
        except (OSError, ValueError, KeyError) as error:  # any status but 200 is no data, which withholds nobody
            status, answer = 503, {"error": str(error)}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("", PORT), Handler)
    print(f"listening on {server.server_port}", flush=True)
    server.serve_forever()
