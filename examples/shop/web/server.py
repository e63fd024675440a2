"""The shop's page: it asks `orders` for its data, and says which copy answered and what it was made from."""

import hashlib
import html
import json
import os
import signal
import socket
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GREETING = os.environ.get("GREETING", "Hello")
ORDERS = os.environ.get("ORDERS", "")
# Shorter than what the edge grants to a request, so that the page says what is wrong instead of hanging.
ORDERS_TIMEOUT_SECONDS = 5
# Changes with this file. A revision's number would not do: a copy that did not change lives through many.
with open(__file__, "rb") as source:
    VERSION = hashlib.sha256(source.read()).hexdigest()[:12]

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{greeting}</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }}
  td {{ padding: .2rem 1rem .2rem 0 }} footer {{ color: #777; margin-top: 2rem }}
</style>
<h1>{greeting}</h1>
{orders}
<footer>Answered by {instance}, made from {version}</footer>
</html>
"""


def orders():
    """The rows of the table, or what kept them away."""
    try:
        with urllib.request.urlopen(f"{ORDERS}/orders", timeout=ORDERS_TIMEOUT_SECONDS) as answer:
            rows = json.load(answer)["orders"]
    except (OSError, ValueError, KeyError) as error:
        return 502, f"<p>The orders are not there: {html.escape(str(error))}</p>"
    cells = "".join(f"<tr><td>{int(row['amount'])} ×<td>{html.escape(row['item'])}" for row in rows)
    return 200, f"<table>{cells}</table>"


class Handler(BaseHTTPRequestHandler):
    # Connections are kept open, so that the edge need not make a new one for each request.
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/healthz":
            # Not the health of `orders`: a page that is alive must not be replaced because another service is away.
            self.answer(200, "text/plain", "ok\n")
        elif self.path == "/":
            status, table = orders()
            page = PAGE.format(
                greeting=html.escape(GREETING),
                orders=table,
                instance=html.escape(socket.gethostname()),
                version=VERSION,
            )
            self.answer(status, "text/html; charset=utf-8", page)
        else:
            self.answer(404, "text/plain", f"there is nothing at {self.path}\n")

    def answer(self, status, kind, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
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
    server = Server(("0.0.0.0", 8080), Handler)
    print("web: listening on 8080", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
