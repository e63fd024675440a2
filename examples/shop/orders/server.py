"""The orders of the shop, as JSON."""

import json
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ORDERS = [
    {"id": 1, "item": "Brick, red", "amount": 120},
    {"id": 2, "item": "Mortar, 25 kg", "amount": 8},
    {"id": 3, "item": "Trowel", "amount": 2},
]


class Handler(BaseHTTPRequestHandler):
    # Connections are kept open, so that the edge need not make a new one for each request.
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/healthz":
            self.answer(200, {"status": "ok"})
        elif self.path == "/orders":
            self.answer(200, {"orders": ORDERS})
        else:
            self.answer(404, {"error": f"there is nothing at {self.path}"})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        if self.path != "/healthz":
            print(self.command, self.path, *args[1:2], flush=True)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    # Python's own 5 would refuse connections under load.
    request_queue_size = 512


def main():
    # Nothing is in flight when Kiln asks to stop: requests were drained before.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = Server(("0.0.0.0", 8000), Handler)
    print("orders: listening on 8000", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
