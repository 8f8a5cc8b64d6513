#!/usr/bin/env python3
"""The application behind Envoy: greets whoever comes through. Python's standard library only."""

import argparse
import http.client
import http.server
import signal
import sys


class Greeter(http.server.BaseHTTPRequestHandler):
    """Answers every request with the caller's name."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"hello {self.headers.get('x-user-id', 'stranger')}\n".encode()
        self.send_response(200)
        self.send_header("content-type", "text/plain")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Envoy logs requests; a second log would only be noise."""


def probe(host, port):
    """0 when the server answers."""
    connection = http.client.HTTPConnection("127.0.0.1" if host == "0.0.0.0" else host, port, timeout=2)
    connection.request("GET", "/")
    return 0 if connection.getresponse().status == 200 else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="0.0.0.0", help="where to listen: the address")
    parser.add_argument("--port", type=int, default=8000, help="where to listen: the port")
    parser.add_argument("--probe", action="store_true", help="ask a running one; exit 0 if it answers")
    options = parser.parse_args()
    if options.probe:
        return probe(options.host, options.port)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    http.server.ThreadingHTTPServer((options.host, options.port), Greeter).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
