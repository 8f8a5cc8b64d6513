"""Real processes for the demos and the tests: started in order, watched, stopped in reverse; none is left behind.

Python's standard library only.
"""

import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap
import time

START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 30
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ProcessError(Exception):
    """Something that the user has to know about; the text says what to do."""


class Stack:
    """Processes by name, in the order in which they were started. Their output goes to files in `directory`."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.running = {}

    def start(self, name, command, ready=(), env=None, **popen):
        """Starts a process and waits until it is ready.

        `ready`: addresses, as (host, port) or as a port on loopback, that must accept connections; or a function that
        says whether it is. `env` is added to this process's own environment.
        """
        if name in self.running:
            raise ProcessError(f"{name} runs already")
        environment = {**os.environ, **(env or {})}
        # Appended to, so that a restarted process's log tells the whole story.
        with self.log(name, "out").open("ab") as stdout, self.log(name, "err").open("ab") as stderr:
            # A session of its own: Ctrl-C reaches this script alone, which then stops them in order.
            try:
                process = subprocess.Popen(
                    [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
                    env=environment, start_new_session=True, preexec_fn=die_with_parent, **popen,
                )
            except OSError as error:
                raise ProcessError(f"cannot start {command[0]}: {error.strerror}; run `make setup`") from error
        self.running[name] = process
        is_ready = ready if callable(ready) else lambda: all(listens(address) for address in ready)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not is_ready():
            self.check()
            if time.monotonic() > deadline:
                raise ProcessError(f"{name} did not start within {START_TIMEOUT_S} s:\n{self.tail(name)}")
            time.sleep(0.05)
        # Somebody else may listen there while ours has ended.
        self.check()
        return process

    def check(self):
        """Raises when one of them has ended."""
        for name, process in self.running.items():
            if process.poll() is not None:
                raise ProcessError(f"{name} ended (status {process.returncode}):\n{self.tail(name)}")

    def end(self, name):
        """Sends SIGTERM, waits for the end, and returns the exit status (negative: the signal that ended it)."""
        process = self.running.pop(name)
        process.terminate()
        try:
            return process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            print(f"{name} did not stop within {STOP_TIMEOUT_S} s: killed", file=sys.stderr)
            process.kill()
            return process.wait()

    def stop(self):
        """Stops all of them, last started first; none is left behind."""
        for name in reversed(list(self.running)):
            self.end(name)

    def log(self, name, stream):
        """The file with what a process printed on `out` or `err`."""
        return self.directory / f"{name}.{stream}.log"

    def tail(self, name):
        """The last lines of both."""
        text = "".join(self.log(name, stream).read_text(errors="replace") for stream in ("out", "err"))
        return textwrap.indent("\n".join(text.splitlines()[-15:]) or "(it printed nothing)", "    ")


def end_like_ctrl_c():
    """Whatever asks this script to end raises KeyboardInterrupt: also Ctrl-C itself, which a shell makes background
    jobs ignore."""
    for end in ENDS:
        signal.signal(end, signal.default_int_handler)


def ignore_ends():
    """For the clean-up: nothing interrupts it."""
    for end in ENDS:
        signal.signal(end, signal.SIG_IGN)


def die_with_parent():
    """Runs in the child: the kernel ends it should this script be killed without a chance to clean up."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def listens(address):
    """Whether (host, port), or a port on loopback, accepts connections."""
    host_port = address if isinstance(address, tuple) else ("127.0.0.1", address)
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(host_port) == 0


def free_port():
    """A port of loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
