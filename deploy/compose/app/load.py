#!/usr/bin/env python3
"""Three users send requests through Envoy: two keep to their limit, one does not. Python's standard library only.

alice browses, bob browses and checks out, mallory hammers. Every few seconds a table says what each of them got.
"""

import argparse
import collections
import http.client
import signal
import sys
import threading
import time
import urllib.parse

# user: (path, requests a second). The limits are in rules/rules.yaml: 2 a second for each user.
USERS = {
    "alice": [("/", 1.0)],
    "bob": [("/", 0.5), ("/checkout", 0.5)],
    "mallory": [("/", 20.0)],
}
REPORT_EVERY_S = 5.0


class Counts:
    """What each user got: status code (or "failed") -> number."""

    def __init__(self):
        self.lock = threading.Lock()
        self.by_user = collections.defaultdict(collections.Counter)

    def add(self, user, what):
        with self.lock:
            self.by_user[user][what] += 1

    def table(self):
        with self.lock:
            rows = [(user, sum(c.values()), c[200], c[429], sum(c.values()) - c[200] - c[429])
                    for user, c in sorted(self.by_user.items())]
        lines = [f"{'user':<10}{'sent':>8}{'200':>8}{'429':>8}{'other':>8}"]
        lines += [f"{user:<10}{sent:>8}{ok:>8}{limited:>8}{other:>8}" for user, sent, ok, limited, other in rows]
        return "\n".join(lines)


def send(address, user, path, period_s, counts, end):
    """One user's requests to one path, one every `period_s`, on one connection."""
    connection = None
    due = time.monotonic()
    while not end.wait(max(0.0, due - time.monotonic())):
        due += period_s
        try:
            if connection is None:
                connection = http.client.HTTPConnection(*address, timeout=5)
            connection.request("GET", path, headers={"x-user-id": user})
            answer = connection.getresponse()
            answer.read()
            counts.add(user, answer.status)
        except (OSError, http.client.HTTPException) as error:
            counts.add(user, f"failed: {type(error).__name__}")
            connection = None


def probe(address):
    """0 when the target listens."""
    connection = http.client.HTTPConnection(*address, timeout=2)
    connection.connect()
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="http://127.0.0.1:10000", help="Envoy's front door")
    parser.add_argument("--seconds", type=float, default=0, help="end by itself after this time (0: never)")
    parser.add_argument("--probe", action="store_true", help="exit 0 if the target listens")
    options = parser.parse_args()
    target = urllib.parse.urlsplit(options.target)
    address = (target.hostname, target.port or 80)
    if options.probe:
        return probe(address)

    counts, end = Counts(), threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: end.set())
    senders = [
        threading.Thread(target=send, args=(address, user, path, 1 / rate, counts, end), daemon=True)
        for user, paths in USERS.items() for path, rate in paths
    ]
    for sender in senders:
        sender.start()
    stop_at = time.monotonic() + options.seconds if options.seconds else float("inf")
    while not end.wait(min(REPORT_EVERY_S, max(0.0, stop_at - time.monotonic()))):
        print(counts.table(), end="\n\n", flush=True)
        if time.monotonic() >= stop_at:
            break
    end.set()
    for sender in senders:
        sender.join(timeout=6)
    print(counts.table(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
