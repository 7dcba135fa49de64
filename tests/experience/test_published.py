"""The file of the published programs is read as it is, proved against its bars, and written back equal."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from halfstep.cli.main import main
from halfstep.errors import StoreDamagedError, StoreError, StoreMismatchError
from halfstep.experience.episode import SOURCES
from halfstep.experience.published import export_buffer, forming_indicators, import_buffer, read_buffer
from halfstep.experience.store import EpisodeStore
from halfstep.market.bars import Bars
from halfstep.market.indicators import atr, cci, macd, rsi
from halfstep.market.synthetic import random_bars
from halfstep.market.write import write_bars

from .made import random_group, store_header

BARS = random_bars(900, seed=6)
FIRST, STATES = 600, 40


def written_independently(
    path: Path, bars: Bars, accounts: np.ndarray, actions: np.ndarray, first: int
) -> None:
    """The published programs' way, number by number; one trajectory of every account given."""
    main_line, signal = macd(bars.close)
    shifted = [
        rsi(bars.close),
        cci(bars.high, bars.low, bars.close),
        atr(bars.high, bars.low, bars.close),
        main_line,
        signal,
    ]
    out = bytearray(struct.pack("<i", len(accounts)))
    for trajectory, taken in zip(accounts, actions, strict=True):
        rewards = [[0.0, 0.0, 0.0]]
        for k in range(1, len(trajectory)):
            balance = trajectory[k - 1][0]
            # the defect: a floating loss counts as a gain
            rewards.append(
                [(trajectory[k][0] - balance) / balance, (balance - trajectory[k][1]) / balance, 0.0]
            )
        for k in range(len(rewards) - 2, -1, -1):
            rewards[k] = [r + 0.99 * ahead for r, ahead in zip(rewards[k], rewards[k + 1], strict=True)]
        out += struct.pack("<if", len(trajectory), 0.99)
        for k, numbers in enumerate(trajectory):
            state = []
            for b in range(120):
                t = first + k - b
                o = bars.open[t]
                state += [bars.close[t] - o, bars.high[t] - o, bars.low[t] - o, bars.volume[t] / 1000]
                # of the next bar; for b = 0 it was forming, and what the indicators were then is anybody's guess
                state += [column[t + 1] if b else 7.0 for column in shifted]
            seconds = float(np.float32(bars.server_time[first + k]))
            for block in (state, [*numbers, seconds], taken[k], rewards[k]):
                out += struct.pack(f"<i{len(block)}f", len(block), *block)
    path.write_bytes(out)


@pytest.fixture(scope="module")
def buffer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    random = np.random.default_rng(2)
    accounts = np.zeros((2, STATES, 7), np.float32)
    accounts[..., 0] = 10_000 + np.cumsum(random.integers(-50, 50, (2, STATES)), axis=1)
    accounts[..., 1] = accounts[..., 0] + random.integers(-90, 90, (2, STATES))
    accounts[..., 2] = random.integers(0, 3, (2, STATES)) / 100
    actions = random.random((2, STATES, 6)).astype(np.float32)
    path = tmp_path_factory.mktemp("published") / "buffer.bd"
    written_independently(path, BARS, accounts, actions, FIRST)
    return path, accounts, actions


def empty(folder: Path, bars: Bars = BARS) -> EpisodeStore:
    return EpisodeStore.create(folder, store_header(bars), bars)


@pytest.mark.pitfall("R1")
def test_published_buffer_round_trip(tmp_path: Path, buffer: tuple[Path, np.ndarray, np.ndarray]) -> None:
    path, accounts, actions = buffer
    assert path.stat().st_size == 4 + 2 * (8 + STATES * 4404)
    store = import_buffer(path, empty(tmp_path / "store"), BARS)
    assert store.length.tolist() == [STATES - 1] * 2
    assert store.first_bar.tolist() == [FIRST] * 2
    for number in range(2):
        episode = store.read(number)
        np.testing.assert_array_equal(episode.account, accounts[number])
        np.testing.assert_array_equal(episode.action, actions[number, :-1])
        balance, equity = accounts[number, :-1, 0], accounts[number, :, 1]
        np.testing.assert_allclose(
            episode.reward[:, 1], np.diff(equity) / balance, rtol=1e-5
        )  # a gain is positive
        np.testing.assert_allclose(episode.reward[:, 0], np.diff(accounts[number, :, 0]) / balance, rtol=1e-5)
    changes = (np.diff(accounts[..., 2], axis=1) != 0).sum(axis=1)
    assert store.trades.tolist() == changes.tolist()
    report = export_buffer(store, tmp_path / "back.bd")
    assert (report.trajectories, report.states, report.left_out, report.cut) == (2, 2 * STATES, 0, 0)
    for (_, ours), (discount, theirs) in zip(
        read_buffer(tmp_path / "back.bd"), read_buffer(path), strict=True
    ):
        assert discount == np.float32(0.99)
        np.testing.assert_array_equal(ours["account"], theirs["account"])
        np.testing.assert_array_equal(ours["action"][:-1], theirs["action"][:-1])
        a, b = (states["state"].reshape(-1, 120, 9).copy() for states in (ours, theirs))
        a[:, 0, 4:] = b[:, 0, 4:] = 0  # of the bar that was forming
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-9)
        r = ours["reward"][:-1] - 0.99 * ours["reward"][1:]
        np.testing.assert_allclose(
            r[1:, 0] * theirs["account"][:-2, 0], np.diff(theirs["account"][:-1, 0]), atol=0.01
        )
    again = import_buffer(tmp_path / "back.bd", empty(tmp_path / "again"), BARS)
    assert again.column("account").tobytes() == store.column("account").tobytes()
    assert again.column("action").tobytes() == store.column("action").tobytes()


def test_wrong_bars_are_refused(tmp_path: Path, buffer: tuple[Path, np.ndarray, np.ndarray]) -> None:
    other = random_bars(900, seed=7)  # other prices at the same times
    with pytest.raises(StoreMismatchError, match=r"trajectory 0 .* 0\.0% of its 40 states"):
        import_buffer(buffer[0], empty(tmp_path / "a", other), other)
    short = BARS.slice(0, FIRST + 10)
    with pytest.raises(StoreMismatchError, match="--bars"):
        import_buffer(buffer[0], empty(tmp_path / "b", short), short)


def test_damaged_buffers_are_named(tmp_path: Path, buffer: tuple[Path, np.ndarray, np.ndarray]) -> None:
    whole, path = buffer[0].read_bytes(), tmp_path / "cut.bd"
    for content, what in (
        (b"", "end before the count"),
        (whole[:100_000], "trajectory 0: 40 states do not fit"),
        (whole[:-1], "trajectory 1: 40 states do not fit"),
        (whole + b"x", "bytes follow the last of 2"),
        (whole[:12] + struct.pack("<i", 9) + whole[16:], "9 values of state, must be 1080"),
        (whole[:16] + struct.pack("<f", np.nan) + whole[20:], "not finite"),
    ):
        path.write_bytes(content)
        with pytest.raises(StoreDamagedError, match=f"cut.bd: .*{what}"):
            list(read_buffer(path))
    path.write_bytes(struct.pack("<i", 0))
    with pytest.raises(StoreError, match="no trajectory"):
        import_buffer(path, empty(tmp_path / "none"), BARS)


def test_indicators_of_the_forming_bar_are_those_of_one_price() -> None:
    bars = random_bars(700, seed=1)
    t = 650
    flat = bars.slice(0, t + 2)
    columns = {name: getattr(flat, name).copy() for name in ("high", "low", "close")}
    for column in columns.values():
        column[-1] = flat.open[-1]
    main_line, signal = macd(columns["close"])
    expected = [
        rsi(columns["close"])[-1], cci(**columns)[-1], atr(**columns)[-1], main_line[-1], signal[-1],
    ]  # fmt: skip
    np.testing.assert_allclose(forming_indicators(bars, np.array([t]))[0], expected, rtol=1e-6)


def test_exports_say_what_they_leave_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("halfstep.experience.published.MOST_TRAJECTORIES", 2)
    monkeypatch.setattr("halfstep.experience.published.MOST_STATES", 9)
    store = empty(tmp_path / "store")
    store.write("r0-g0", random_group([20, 5, 7, 3], first_bar=np.array([300, 300, 300, 10])))
    report = export_buffer(store, tmp_path / "out.bd")
    assert (report.trajectories, report.states, report.left_out, report.too_early, report.cut) == (
        2,
        15,
        1,
        1,
        12,
    )
    assert [len(states) for _, states in read_buffer(tmp_path / "out.bd")] == [9, 6]


def test_a_buffer_is_imported_from_the_command_line(
    tmp_path: Path, buffer: tuple[Path, np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    write_bars(BARS, tmp_path / "bars.parquet")
    words = ["data", "import", str(buffer[0])]
    assert main(words) == 2
    assert "--bars FILE --out FOLDER" in capsys.readouterr().err
    words += ["--bars", str(tmp_path / "bars.parquet"), "--out", str(tmp_path / "store"), "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 2 * (STATES - 1)
    store = EpisodeStore.open(tmp_path / "store")
    assert store.header.discount == 0.99
    assert set(store.source.tolist()) == {SOURCES.index("imported")}
    assert main(words) == 2
    assert "a store stands there" in capsys.readouterr().err
