"""An HTTP server that honours spec.notify: while it is withheld, each answer ends its connection, so that clients with
kept-alive connections go to other pods. POD_UID is from the downward API, NOTIFY_KEY the text of spec.notify.hmacSecret."""

import hashlib
import hmac
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

UID, KEY = os.environ.get("POD_UID", ""), os.environ.get("NOTIFY_KEY", "").encode()
told = {"serial": 0, "traffic": "yes"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200, "hello")

    def do_POST(self):
        body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), 65536))
        signature = "sha256=" + hmac.new(KEY, body, hashlib.sha256).hexdigest()
        if KEY and not hmac.compare_digest(signature, self.headers.get("Kubervisor-Signature", "")):
            return self.answer(403, "wrong signature")
        news = json.loads(body)
        if UID and news["uid"] != UID:
            return self.answer(409, "another pod")
        if news["serial"] > told["serial"]:  # an older one may arrive late
            told.update(serial=news["serial"], traffic=news["traffic"])
        self.answer(200, "thanks")

    def answer(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        if told["traffic"] != "yes":
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(text.encode())


server = ThreadingHTTPServer((os.environ.get("HOST", ""), int(os.environ.get("PORT", "8080"))), Handler)
print(server.server_port, flush=True)
server.serve_forever()
