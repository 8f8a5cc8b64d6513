"""How many hits each window admitted, seen from the client."""

from bisect import bisect_right


def read(path):
    """(sent, answered) of each admitted call, in microseconds, by sending time."""
    with open(path) as lines:
        return sorted(tuple(map(int, line.split())) for line in lines)


def worst_window(admitted, window_us):
    """Most calls that were certainly decided within one window.

    A call was decided somewhere between its sending and its answer. Of the calls that were both sent and answered
    within a window, every one was decided in it, so more of them than the limit prove that the limit was passed.
    """
    answered = sorted(answer for _, answer in admitted)
    worst = 0
    for earlier, (sent, _) in enumerate(admitted):
        # All calls sent earlier were answered within a window's length, or they would have failed.
        worst = max(worst, bisect_right(answered, sent + window_us) - earlier)
    return worst


def first_window(admitted, window_us):
    """Calls admitted in the window that begins with the first."""
    start = admitted[0][0]
    return sum(1 for sent, _ in admitted if sent < start + window_us)


def long_run(admitted, window_us, windows):
    """Calls admitted in so many windows from the first on."""
    start = admitted[0][0]
    return sum(1 for sent, _ in admitted if sent < start + window_us * windows)
