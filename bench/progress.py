"""What is told on standard error while it runs."""

from __future__ import annotations

import sys
import time

from .measure import Seen


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def span(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes >= 2 else f"{max(0, round(seconds))} s"


class Progress:
    def __init__(self, steps: int, guess: float) -> None:
        self.steps, self.guess, self.done, self.began = steps, guess, 0, time.monotonic()

    def left(self) -> float:
        """Seconds: as the guess says, and more and more as it went so far."""
        took = time.monotonic() - self.began
        return (self.guess + took) / (1 + self.done) * (self.steps - self.done)

    def step(self, seen: Seen) -> None:
        self.done += 1
        head = f"[{self.done}/{self.steps}] round {seen.round} {seen.underlay:4} {seen.row:13}"
        say(f"{head} {told(seen)}; {span(self.left())} left")


def told(seen: Seen) -> str:
    if "start" in seen.errors:
        return f"failed: {seen.errors['start']}"
    parts = [
        f"{seen.figures[key]:.{digits}f} {unit}"
        for key, digits, unit in (
            ("tcp1", 1, "Gbit/s"),
            ("tcp4", 1, "Gbit/s (4)"),
            ("udp_held", 0, "kpps"),
            ("idle_p50", 0, "µs"),
        )
        if key in seen.figures
    ]
    return ", ".join(parts + [f"{part} failed: {why}" for part, why in seen.errors.items()])
