"""Questions that are asked of served models, and waiting for what another thread does."""

import time

QUESTIONS = ["What causes " + "gout " * (1 + number * number % 11) + f"{number} ?" for number in range(14)]


def wait_until(holds, seconds=20):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)
