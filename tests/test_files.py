"""Files are either whole or absent."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from halfstep import files


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    files.write_json(path, {"old": 1})

    def write_half() -> None:
        with files.replacing(path) as temporary:
            temporary.write_text("half of the new fi")
            raise RuntimeError("half written")

    with pytest.raises(RuntimeError, match="half"):
        write_half()
    assert json.loads(path.read_text()) == {"old": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_nan_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not any(tmp_path.iterdir())


def test_a_killed_writer_leaves_only_a_temporary_that_is_swept_away(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    files.write_text(path, "old")
    code = (
        "import os, signal, sys; from pathlib import Path; from halfstep import files\n"
        "with files.replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    files.remove_stale_temporaries(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.txt"]


def test_a_temporary_of_a_living_process_is_kept(tmp_path: Path) -> None:
    mine = tmp_path / f".result.{os.getpid()}{files.TEMPORARY_SUFFIX}"
    mine.write_text("being written")
    files.remove_stale_temporaries(tmp_path)
    assert mine.exists()


def test_sha256_of_known_bytes(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert (
        files.sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )  # FIPS 180-2


def test_words_are_taken_by_a_shell_as_they_are(tmp_path: Path) -> None:
    words = ["plain", "it's  mine", '"$HOME"', "a\\b", str(tmp_path / "my runs")]
    line = files.as_words("printf", "%s\\n", *words)
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == words
    assert files.as_words(Path("runs") / "first") == "runs/first"
