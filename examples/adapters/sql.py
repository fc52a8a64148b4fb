#!/usr/bin/env python3
"""Numbers of pods from a database, for `outlier: {customService: HOST:PORT}` or `customService`.

    sql.py PORT DATABASE 'SELECT pod, avg(latency) FROM requests WHERE at > unixepoch() - 60 GROUP BY pod' [LIMIT]

Rows are (pod, number), here of SQLite; another database is another `connect`. A pod above LIMIT is `bad`.
"""
import json
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, DATABASE, QUERY = int(sys.argv[1]), sys.argv[2], sys.argv[3]
LIMIT = float(sys.argv[4]) if len(sys.argv) > 4 else None


def pods():
    with sqlite3.connect(f"file:{DATABASE}?mode=ro", uri=True, timeout=3) as database:
        for name, value in database.execute(QUERY):
            bad = LIMIT is not None and value is not None and value > LIMIT
            reason = f"{value} is above {LIMIT}" if bad else None
            yield {"name": name, "value": value, "bad": bad, "reason": reason}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            status, answer = 200, {"pods": list(pods())}
        except sqlite3.Error as error:  # any status but 200 is no data, which withholds nobody
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
