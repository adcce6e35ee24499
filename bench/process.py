"""Commands and children, each with a time limit.

Children are written to a file of pids with their start times as soon as they run, so that a later run can end what a killed one
left, and nothing else.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class Failed(Exception):
    """Something did not work; the text is one line for people."""


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def run(argv: Sequence[str], seconds: float = 20, env: Mapping[str, str] | None = None, stdin: str = "") -> str:
    """Standard output of a command that must succeed in time."""
    told = " ".join(argv)[:120]
    try:
        # Apart from the terminal, as children below: Ctrl-C must not break off what removes things.
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=seconds, env=env, check=False, start_new_session=True
        )
    except FileNotFoundError as why:
        raise Failed(f"{argv[0]} is not installed") from why
    except subprocess.TimeoutExpired as why:
        raise Failed(f"no end after {seconds:.0f} s: {told}") from why
    if done.returncode != 0:
        raise Failed(f"{told}: {last_line(done.stderr) or last_line(done.stdout) or f'exit status {done.returncode}'}")
    return done.stdout


def until(what: str, seconds: float, true: Callable[[], bool], pause: float = 0.05) -> None:
    """Waits for a condition."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise Failed(f"not within {seconds:.0f} s: {what}")
        time.sleep(pause)


def start_time(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; none if it is not there. A pid is given out again, the pair is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return None


class Child:
    """A process in the background; what it prints is kept in two files."""

    def __init__(self, label: str, argv: Sequence[str], where: Path, env: Mapping[str, str] | None) -> None:
        self.label, self.out, self.err = label, where / f"{label}.out", where / f"{label}.err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env, start_new_session=True
            )
        self.pid = self.process.pid

    def runs(self) -> bool:
        return self.process.poll() is None

    def why(self) -> str:
        """What it said last."""
        told = last_line(self.err.read_text(errors="replace")) or last_line(self.out.read_text(errors="replace"))
        return f"{self.label} ended with status {self.process.returncode}: {told}" if not self.runs() else told

    def wait(self, seconds: float) -> str:
        """Its standard output when it ends."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired as why:
            raise Failed(f"{self.label}: no end after {seconds:.0f} s") from why
        return self.out.read_text(errors="replace")

    def stop(self) -> None:
        for how, patience in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0)):
            if self.runs():
                self.process.send_signal(how)
                try:
                    self.process.wait(patience)
                except subprocess.TimeoutExpired:
                    continue


class Children:
    """All processes of a run. `where` holds their output and the file of pids."""

    def __init__(self, where: Path) -> None:
        self.where, self.list = where, list[Child]()

    def start(self, label: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Child:
        try:
            child = Child(label, argv, self.where, env)
        except FileNotFoundError as why:
            raise Failed(f"{argv[0]} is not installed") from why
        self.list.append(child)
        with (self.where / "pids").open("a") as pids:
            pids.write(f"{child.pid} {start_time(child.pid)}\n")
        return child

    def stop(self) -> None:
        for child in reversed(self.list):
            child.stop()
        self.list.clear()
        (self.where / "pids").unlink(missing_ok=True)


def end_leftovers(pids: Path) -> int:
    """Ends what the file of pids names and still is the same process. Returns how many."""
    if not pids.exists():
        return 0
    alive = []
    for line in pids.read_text().splitlines():
        pid, _, started = line.partition(" ")
        if pid.isdigit() and started.isdigit() and start_time(int(pid)) == started:
            alive.append((int(pid), started))
    for how in (signal.SIGTERM, signal.SIGKILL):
        for number, begun in alive:
            if start_time(number) == begun:
                os.kill(number, how)
        end = time.monotonic() + 3
        while time.monotonic() < end and any(start_time(number) == begun for number, begun in alive):
            time.sleep(0.05)
    pids.unlink(missing_ok=True)
    return len(alive)
