"""What a person installs is whole: every file of the package, and it runs outside the source tree."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.pitfall("U14")
def test_wheel_works_outside_the_source_tree(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="builds a wheel; it comes with the test extra")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    [wheel] = tmp_path.glob("halfstep-*.whl")
    source = ROOT / "src"
    expected = {
        path.relative_to(source).as_posix()
        for path in (source / "halfstep").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert any(name.endswith(".jinja") for name in expected)
    with zipfile.ZipFile(wheel) as archive:
        assert expected <= set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    code = (
        "import halfstep, sys\nfrom pathlib import Path\n"
        "assert Path(halfstep.__file__).is_relative_to(Path('installed').resolve()), halfstep.__file__\n"
        "from halfstep.cli.main import main\nsys.exit(main(['run', '--recipe', 'smoke', '--dry-run']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, 'installed')\n{code}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False, env={"HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "# in all about" in done.stdout
