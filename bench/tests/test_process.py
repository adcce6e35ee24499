"""What ends processes ends those of this program, and no others."""

from __future__ import annotations

import sys
import tempfile
import threading
import unittest
from pathlib import Path

from bench.process import Child, Children, Failed, end_leftovers, run, start_time, until

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]


class Ending(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.where = Path(folder.name)

    def sleeper(self, label: str = "sleeper") -> Child:
        child = Child(label, SLEEPER, self.where, None)
        self.addCleanup(child.stop)
        return child

    def test_leftover_is_ended(self) -> None:
        child = self.sleeper()
        (self.where / "pids").write_text(f"{child.pid} {start_time(child.pid)}\n")
        # In the test it is a child, which must be waited for to be gone.
        self.assertEqual(end_leftovers_reaping(self.where / "pids", child), 1)
        self.assertFalse(child.runs())
        self.assertFalse((self.where / "pids").exists())

    def test_pid_that_another_process_has_by_now_is_let_be(self) -> None:
        child = self.sleeper()
        (self.where / "pids").write_text(f"{child.pid} 1\nnonsense\n{child.pid}\n0 0\n")
        self.assertEqual(end_leftovers(self.where / "pids"), 0)
        self.assertTrue(child.runs())

    def test_nothing_is_left_of_children(self) -> None:
        children = Children(self.where)
        one = children.start("one", SLEEPER)
        self.assertEqual((self.where / "pids").read_text(), f"{one.pid} {start_time(one.pid)}\n")
        children.stop()
        self.assertFalse(one.runs())
        self.assertFalse((self.where / "pids").exists())

    def test_child_that_ended_says_why(self) -> None:
        child = Child("bad", [sys.executable, "-c", "import sys; sys.exit('no key')"], self.where, None)
        child.process.wait(10)
        self.assertEqual(child.why(), "bad ended with status 1: no key")

    def test_commands_fail_in_one_line(self) -> None:
        for argv, why in (
            (["no-such-program-here"], "not installed"),
            ([sys.executable, "-c", "import sys; sys.exit('a\\nb')"], ": b$"),
            ([sys.executable, "-c", "import time; time.sleep(9)"], "no end after"),
        ):
            with self.assertRaisesRegex(Failed, why):
                run(argv, seconds=0.3 if "sleep" in argv[-1] else 10)

    def test_waits_are_bounded(self) -> None:
        with self.assertRaisesRegex(Failed, "not within 0 s: the impossible"):
            until("the impossible", 0.05, lambda: False, pause=0.01)


def end_leftovers_reaping(pids: Path, child: Child) -> int:
    """Ends leftovers while somebody waits for the child, as init would."""

    waiter = threading.Thread(target=child.process.wait)
    waiter.start()
    ended = end_leftovers(pids)
    waiter.join(10)
    return ended


if __name__ == "__main__":
    unittest.main()
