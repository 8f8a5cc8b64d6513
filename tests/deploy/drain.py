"""A steady load through Envoy that remembers every answer, and the judgement on it."""

import collections
import http.client
import json
import threading
import time

Answer = collections.namedtuple("Answer", "user sent_at got_at status")


class Load:
    """`users` users, each sending `rate_per_user` requests a second on a connection of its own while the block runs."""

    def __init__(self, address, users, rate_per_user):
        self.address, self.period_s = address, 1 / rate_per_user
        self.answers, self.lock, self.end = [], threading.Lock(), threading.Event()
        self.threads = [threading.Thread(target=self.send, args=(f"user-{n}",)) for n in range(users)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.end.set()
        for thread in self.threads:
            thread.join()

    def send(self, user):
        connection = http.client.HTTPConnection(*self.address, timeout=10)
        due = time.monotonic()
        while not self.end.wait(max(0.0, due - time.monotonic())):
            due += self.period_s
            sent_at = time.monotonic()
            try:
                connection.request("GET", "/", headers={"x-user-id": user})
                answer = connection.getresponse()
                answer.read()
                status = answer.status
            except (OSError, http.client.HTTPException) as error:
                status = repr(error)
                connection = http.client.HTTPConnection(*self.address, timeout=10)
            with self.lock:
                self.answers.append(Answer(user, sent_at, time.monotonic(), status))
        connection.close()

    @staticmethod
    def get(address, path):
        """(status, body)."""
        connection = http.client.HTTPConnection(*address, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    @staticmethod
    def counter(admin, name):
        """A counter of Envoy's; 0 while it does not exist."""
        stats = json.loads(Load.get(admin, f"/stats?format=json&filter=^{name}$")[1])["stats"]
        return stats[0]["value"] if stats else 0

    @staticmethod
    def healthy_hosts(admin, cluster):
        """How many hosts of a cluster Envoy would send requests to."""
        return Load.counter(admin, f"cluster.{cluster}.membership_healthy")

    @staticmethod
    def wait_until(condition, seconds=20):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            time.sleep(0.05)


def over_the_limit(answers, limit, window_s):
    """Runs of more than `limit` admitted requests that certainly fell into one window.

    When exactly a request was decided is not known, only that it was between its sending and its answer. So a run counts
    only if it is too short even when the first was decided at once and the last just before its answer.
    """
    admitted = sorted((a for a in answers if a.status == 200), key=lambda a: a.got_at)
    runs = zip(admitted, admitted[limit:])
    return [(first, last) for first, last in runs if last.got_at - first.sent_at < window_s]
