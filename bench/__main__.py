"""The runner: `./dev bench compare`, or as root `python3 -m bench` in the top folder of the project."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import measure, plot, table
from .measure import Seen
from .peers.rnet import Rnet
from .process import Failed, run
from .progress import Progress, say, span
from .room import UNDERLAYS, lacking, remove_leftovers
from .rows import QUICK, ROWS, Row, chosen
from .summary import summary

HOME = Path(__file__).resolve().parent
PROJECT = HOME.parent
LOCK = Path("/run/rnet-bench.lock")
FORMAT = 1


def options() -> argparse.Namespace:
    names = ", ".join(row.name for row in ROWS)
    parser = argparse.ArgumentParser(
        prog="./dev bench compare",
        description="Measures rnet beside its peers on this machine. bench/README.md says how and what it means.",
        epilog=f"Rows: {names}.",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"one short round, unless said otherwise of {', '.join(QUICK)} on veth: shows that it works",
    )
    parser.add_argument("--rows", help="comma-separated; default: all that are installed")
    parser.add_argument(
        "--paced",
        action="store_true",
        help="a timer releases each super-packet of TCP, as on machines whose default is bbr; default: no pacing",
    )
    parser.add_argument("--rounds", type=int, help="default 3; every round measures every row")
    parser.add_argument("--underlay", choices=[*UNDERLAYS, "both"], help="line between the hosts; default both")
    parser.add_argument("--binary", type=Path, default=PROJECT / "target/release/rnet", help="the rnet to measure")
    parser.add_argument("--pps", type=Path, default=PROJECT / "target/release/examples/pps", help="the packet generator")
    parser.add_argument(
        "--results",
        type=Path,
        help="folder for the results, default bench/results, or bench/results/paced; only the first one goes into README.md, too",
    )
    told = parser.parse_args()
    told.rounds = told.rounds or (1 if told.quick else 3)
    told.results = told.results or (HOME / "results/paced" if told.paced else HOME / "results")
    told.underlay = told.underlay or ("veth" if told.quick else "both")
    if told.rounds < 1:
        parser.error("--rounds must be at least 1")
    try:
        told.rows = chosen(
            [name.strip() for name in told.rows.split(",")]
            if told.rows
            else list(QUICK)
            if told.quick
            else [row.name for row in ROWS]
        )
    except ValueError as why:
        parser.error(str(why))
    return told


def search_path() -> None:
    """System directories, and where `cargo install` puts programs for whoever called sudo."""
    user = os.environ.get("SUDO_USER", "")
    folders = ["/usr/local/sbin", "/usr/sbin", "/sbin", os.path.expanduser(f"~{user}/.cargo/bin")]
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin"), *folders])


@contextmanager
def alone() -> Iterator[None]:
    """One run at a time: two would measure each other."""
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as why:
            raise Failed("another comparison is running") from why
        yield


def stop(_signal: int, _frame: object) -> None:
    """Once: what removes everything is not interrupted, and does not take long."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def attempt(ask: Callable[[], str | None]) -> str | None:
    """The answer, or why there is none."""
    try:
        return ask()
    except Failed as why:
        return str(why)


def runnable(rows: list[Row]) -> tuple[list[Row], dict[str, str]]:
    """Those that can run here, and why the others cannot."""
    missing = {row.name: attempt(row.peer.missing) for row in rows}
    skipped = {name: why for name, why in missing.items() if why}
    for name, why in skipped.items():
        say(f"skipped {name}: {why}")
    return [row for row in rows if row.name not in skipped], skipped


def machine() -> dict[str, Any]:
    models = [
        line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    memory = int(Path("/proc/meminfo").read_text().split()[1]) * 1024 / 1e9
    return {
        "cpu": models[0] if models else platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory),
        "kernel": f"{platform.system()} {platform.release()}",
    }


def rounds(told: argparse.Namespace, rows: list[Row]) -> list[dict[str, Any]]:
    times = measure.QUICK if told.quick else measure.FULL
    underlays = UNDERLAYS if told.underlay == "both" else (told.underlay,)
    progress = Progress(told.rounds * len(underlays) * len(rows), times.row())
    say(f"{progress.steps} measurements, about {span(progress.left())}")
    runs = []
    for number in range(1, told.rounds + 1):
        for underlay in underlays:
            for row in rows:
                seen: Seen = measure.measure(row, underlay, number, times, told.pps, told.paced)
                progress.step(seen)
                runs.append(asdict(seen))
    return runs


def readme_with(told: argparse.Namespace, text: str) -> dict[Path, str]:
    """The project's page with this text in its place, unless the results go elsewhere."""
    readme = PROJECT / "README.md"
    if told.results.resolve() != HOME / "results":
        return {}
    try:
        return {readme: table.between_markers(readme.read_text(), text)}
    except (OSError, ValueError) as why:
        raise Failed(f"{readme}: {why}") from why


def write(results: dict[str, Any], told: argparse.Namespace) -> None:
    files = {
        told.results / "latest.json": json.dumps(results, indent=1, ensure_ascii=False) + "\n",
        told.results / "latest.md": table.full(results),
        told.results / "throughput.svg": plot.svg(results),
    }
    files |= readme_with(told, table.short(results))
    told.results.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        path.write_text(text)
        # Under sudo they belong to whom the folder belongs.
        if told.results.is_relative_to(PROJECT):
            owner = PROJECT.stat()
            os.chown(path, owner.st_uid, owner.st_gid)
        say(f"wrote {path}")


def compare(told: argparse.Namespace) -> None:
    if os.geteuid() != 0:
        raise Failed("this makes network namespaces: run it as root")
    if lacking():
        raise Failed(f"these programs are missing: {', '.join(lacking())}")
    if not os.access(told.pps, os.X_OK):
        raise Failed(f"no {told.pps} here: cargo build --release --example pps")
    for row in told.rows:
        if isinstance(row.peer, Rnet):
            row.peer.binary = told.binary.resolve()
    rows, skipped = runnable(told.rows)
    if not rows:
        raise Failed("no row is left")
    readme_with(told, "")
    with alone():
        remove_leftovers()
        try:
            date = time.strftime("%Y-%m-%d")
            runs = rounds(told, rows)
        finally:
            remove_leftovers()
    versions = {row.name: attempt(row.peer.version) for row in rows}
    versions["iperf3"] = attempt(lambda: run(["iperf3", "--version"]).partition("\n")[0])
    results = {
        "format": FORMAT,
        "date": date,
        "quick": told.quick,
        "rounds": told.rounds,
        "paced": told.paced,
        "machine": machine(),
        "versions": versions,
        "skipped": skipped,
        "summary": summary(runs),
        "runs": runs,
    }
    write(results, told)
    for rows_seen in results["summary"].values():
        print(f"\n{table.table(rows_seen, table.SHORT)}{table.failures(rows_seen)}", flush=True)


def main() -> int:
    told = options()
    search_path()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        compare(told)
    except Failed as why:
        say(f"bench: {why}")
        return 1
    except KeyboardInterrupt:
        say("bench: interrupted; everything is removed, no results are written")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
