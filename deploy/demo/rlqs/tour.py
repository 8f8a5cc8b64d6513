"""The tour of RLQS: two Envoys enforce one limit by themselves, and who holds what is shown as it goes."""

import http.client
import re
import threading
import time

LIMIT = 600
SECONDS = 18
# Requests a second at each Envoy: most of the demand is at the first.
RATES = (60, 20)


def now_you(front):
    """What to try by hand."""
    return f"""
        Now you:
          curl -i -H 'x-user: ben' {front}     # the first is denied: no quota yet; the next has one
          for i in $(seq 12); do curl -s -o /dev/null -w '%{{http_code}} ' -H 'x-user: ben' {front}; done; echo
        """


class Load(threading.Thread):
    """Sends requests to one Envoy at a steady rate."""

    def __init__(self, port, rate):
        super().__init__(daemon=True)
        self.port, self.rate = port, rate
        self.allowed = self.denied = self.others = 0
        self.ending = threading.Event()

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        start, sent = time.monotonic(), 0
        while not self.ending.is_set():
            connection.request("GET", "/", headers={"x-user": "anna"})
            answer = connection.getresponse()
            answer.read()
            self.allowed += answer.status == 200
            self.denied += answer.status == 429
            self.others += answer.status not in (200, 429)
            sent += 1
            self.ending.wait(max(0.0, start + sent / self.rate - time.monotonic()))
        connection.close()


class Tour:
    """Runs both loads and prints what the Envoys and the server say."""

    def __init__(self, fronts, admin):
        self.fronts, self.admin = fronts, admin
        self.surprises = 0

    def hits(self):
        """`sluicegate_rlqs_hits_total`, by result."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=10)
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
        connection.close()
        line = re.compile(r'^sluicegate_rlqs_hits_total\{.*result="(\w+)".*\} (\d+)', re.MULTILINE)
        return {result: int(count) for result, count in line.findall(page)}

    def run(self):
        print(f"\nOne limit of {LIMIT} requests in any minute for the user anna, at two Envoys that ask nobody: {RATES[0]} and"
              f" {RATES[1]}\nrequests a second. Each reports every 5 s; the server leases to each what it needs.\n"
              "(A server whose counters are in memory leases nothing in its first six seconds: docs/rlqs.md.)\n")
        print("   s   Envoy 1: passed denied   Envoy 2: passed denied   leased  reported  returned")
        loads = [Load(port, rate) for port, rate in zip(self.fronts, RATES)]
        for load in loads:
            load.start()
        for second in range(1, SECONDS + 1):
            time.sleep(1)
            hits = self.hits()
            first, other = loads
            print(f"  {second:>2} {first.allowed:>16} {first.denied:>6} {other.allowed:>16} {other.denied:>6}"
                  f" {hits.get('granted', 0):>10} {hits.get('used', 0):>9} {hits.get('returned', 0):>9}", flush=True)
        for load in loads:
            load.ending.set()
        for load in loads:
            load.join()
        passed = sum(load.allowed for load in loads)
        print(f"\n{passed} passed at both together, of {LIMIT}: never more, and no request waited for the server.")
        self.surprises = sum(load.others for load in loads) + (passed > LIMIT) + (passed < LIMIT // 4)
