"""The tour of `make demo MODE=llm`: token budgets of three users, held, used and left as it happens."""

import collections
import concurrent.futures
import http.client
import json
import threading
import time
import urllib.parse

BUDGET = 1000
BURST = 20
PROMPT = "Tell me a story about a sluice gate. " * 10
# The body of a request is some 490 bytes: 122 tokens.
MAX_TOKENS = 350

Answer = collections.namedtuple("Answer", "status tokens body headers")


def ask(port, user, *, path="/v1/chat/completions", stream=False, max_tokens=MAX_TOKENS, **demo):
    """One request to a model, read to its end; `demo` are the model server's `x-demo-…` headers."""
    body = {"model": "demo", "max_tokens": max_tokens, "stream": stream, "messages": [{"role": "user", "content": PROMPT}]}
    if stream and path.endswith("completions"):
        body["stream_options"] = {"include_usage": True}
    headers = {"content-type": "application/json", "x-user": user}
    headers |= {f"x-demo-{name}": str(value) for name, value in demo.items()}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
        return Answer(response.status, tokens_of(text), text, response.headers)
    except (http.client.HTTPException, OSError):
        # The model broke off half-way.
        return Answer(0, 0, "", {})
    finally:
        connection.close()


def tokens_of(text):
    """What the answer says that it cost, JSON or a stream of events, in either protocol."""
    cost = collections.Counter()
    for line in text.splitlines():
        try:
            event = json.loads(line.removeprefix("data: "))
        except ValueError:
            continue
        if not isinstance(event, dict):
            continue
        for usage in (event.get("usage"), (event.get("message") or {}).get("usage")):
            for name, count in (usage or {}).items():
                # A stream tells some numbers twice; the last one holds.
                cost[name] = count
    return cost["total_tokens"] or cost["input_tokens"] + cost["output_tokens"]


class Counters:
    """How counters stand, by the operator's API."""

    def __init__(self, admin_port):
        self.port = admin_port

    def of(self, key, user):
        query = urllib.parse.urlencode({"domain": "llm", "descriptor": f"{key}={user}"})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        connection.request("GET", f"/api/v1/counters?{query}")
        state = json.loads(connection.getresponse().read())
        connection.close()
        return state

    def budget(self, user, key="user"):
        """(held, used, left)."""
        state = self.of(key, user)
        return state.get("held", 0), state["used"], state["remaining"]


class Tour:
    def __init__(self, with_holds, afterwards, admin):
        self.with_holds = with_holds
        self.afterwards = afterwards
        self.counters = Counters(admin)
        self.surprises = 0

    def expect(self, holds, what):
        if not holds:
            self.surprises += 1
            print(f"       ^^^ expected {what}")

    def run(self):
        self.burst()
        self.users()
        self.endings()

    def burst(self):
        print(f"\nA user has {BUDGET} tokens a minute, and asks {BURST} times at once for up to {MAX_TOKENS} tokens"
              "\n(some 470 with the question), streamed:\n")
        print(f"  {'':<28} {'passed':>6} {'denied':>6} {'tokens':>7} {'over the budget':>16}")
        for name, port, key in (("look first, charge afterwards", self.afterwards, "user_afterwards"),
                                ("hold and settle", self.with_holds, "user")):
            with concurrent.futures.ThreadPoolExecutor(BURST) as pool:
                asked = [pool.submit(ask, port, "burst", stream=True, ms=500) for _ in range(BURST)]
                answers = [future.result() for future in asked]
            passed = [answer for answer in answers if answer.status == 200]
            tokens = sum(answer.tokens for answer in passed)
            over = max(0, tokens - BUDGET)
            print(f"  {name:<28} {len(passed):>6} {len(answers) - len(passed):>6} {tokens:>7} {over:>16}")
            if key == "user":
                self.expect(passed and over == 0, "no token over the budget")
                # Envoy settles after it has passed the end on.
                self.expect(self.settled("burst", tokens), f"{tokens} used, none held")

    def settled(self, user, tokens):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            held, used, _ = self.counters.budget(user)
            if (held, used) == (0, tokens):
                return True
            time.sleep(0.05)
        print(f"       held {held}, used {used}")
        return False

    def users(self):
        print("\nThree users, each with a budget, and at most 3 requests in flight; what each holds while answers are on their way:\n")
        plans = {
            "alice": {"path": "/v1/chat/completions", "stream": False, "max_tokens": 100},
            "bob": {"path": "/v1/chat/completions", "stream": True, "max_tokens": 200},
            "carol": {"path": "/v1/messages", "stream": True, "max_tokens": 100},
        }
        answers = {user: [] for user in plans}
        # An answer is shorter than its max_tokens: what was held for the rest comes back.
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            def asks(user, number):
                time.sleep(0.35 * number)
                answers[user].append(ask(self.with_holds, user, **plans[user], tokens=40, ms=1500))

            tasks = [pool.submit(asks, user, number) for user in plans for number in range(4)]
            done = threading.Event()
            watcher = threading.Thread(target=self.watch, args=(list(plans), done))
            watcher.start()
            for task in tasks:
                task.result()
            done.set()
            watcher.join()
        for user, own in answers.items():
            statuses = collections.Counter(answer.status for answer in own)
            told = ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items()))
            print(f"  {user:<6} {told}")
        charged = {user: sum(answer.tokens for answer in own) for user, own in answers.items()}
        for user, tokens in charged.items():
            self.expect(self.settled(user, tokens), f"{user}: {tokens} used, none held")

    def watch(self, users, done):
        print("  " + "   ".join(f"{user:<6} {'held':>5} {'used':>5} {'left':>5}" for user in users))
        last = None
        while not done.wait(0.25):
            line = "  " + "   ".join(
                f"{'':<6} {held:>5} {used:>5} {left:>5}"
                for held, used, left in (self.counters.budget(user) for user in users)
            )
            if line != last:
                print(line, flush=True)
                last = line

    def endings(self):
        print("\nHowever a request ends, its hold goes with it:\n")
        print(f"  {'ending':<34} {'status':>6} {'held then':>10} {'used':>6}")
        cases = (
            ("whole, with usage", {"tokens": 50}),
            ("the model answers 500", {"ending": "error"}),
            ("the stream breaks off", {"ending": "abort", "stream": True}),
            ("no usage in the answer", {"ending": "no-usage"}),
        )
        for number, (name, how) in enumerate(cases):
            user = f"ending-{number}"
            answer = ask(self.with_holds, user, **{"max_tokens": 100, **how})
            deadline = time.monotonic() + 10
            while (state := self.counters.budget(user))[0] and time.monotonic() < deadline:
                time.sleep(0.05)
            held, used, _ = state
            print(f"  {name:<34} {answer.status or 'broken':>6} {held:>10} {used:>6}")
            self.expect(held == 0, "nothing held")
        print("\nA broken stream tells no usage: with status 200 all that was held is charged. A 500 costs nothing.")


def now_you(ports):
    return f"""
        Now you:
          curl -N http://127.0.0.1:{ports['front']}/v1/chat/completions -H 'x-user: me' -H 'content-type: application/json' \\
            -d '{{"model": "demo", "max_tokens": 300, "stream": true, "stream_options": {{"include_usage": true}}, "messages": []}}'
          curl 'http://127.0.0.1:{ports['admin']}/api/v1/counters?domain=llm&descriptor=user=me'
        Change deploy/demo/llm/rules.yaml and ask again: no restart.
        """
