"""Runs `halfstep` in forked children, so that a hundred starts cost a hundred forks and not a hundred imports.

Reads one JSON object per line from standard input, with ``argv``, ``cwd``, ``kill_after`` (seconds or null), ``is_slow``
and ``log``; writes the exit status of each as a line (-9: killed). Nothing is computed in this process, so no pool of
threads is lost by a fork.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import halfstep.cli.programs.research
import halfstep.cli.programs.run
import halfstep.cli.verbs  # noqa: F401  # the children find everything imported
from halfstep import files
from halfstep.cli.main import main
from halfstep.training import checkpoint


def slow_sync(path: Path) -> None:
    """Sync as a slow disk would: for a while, only half of the file is there."""
    if path.is_file():
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        time.sleep(0.03)
        path.write_bytes(data)
    sync(path)


sync = files._sync


def child(order: dict[str, object]) -> int:
    os.chdir(str(order["cwd"]))
    log = os.open(str(order["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    checkpoint.CHECKPOINT_SECONDS = 0.0  # every update is kept, so that chains of kills come to an end
    if order["is_slow"]:
        files._sync = slow_sync
    return main([str(word) for word in order["argv"]])  # type: ignore[attr-defined]


def serve() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(child(order))
            finally:
                os._exit(99)
        deadline = None if order["kill_after"] is None else time.monotonic() + order["kill_after"]
        while True:
            done, status = os.waitpid(pid, 0 if deadline is None else os.WNOHANG)
            if done:
                break
            if time.monotonic() >= deadline:  # type: ignore[operator]
                os.kill(pid, signal.SIGKILL)
                deadline = None
            time.sleep(0.002)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
