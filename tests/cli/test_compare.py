"""Comparing optimizers: equal work for all, equal results for any number of processes, honest memory and failures."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from halfstep.cli.main import main
from halfstep.cli.programs.arms import Arm, ArmResults, run_arm
from halfstep.cli.programs.compare import SWEEP, metrics_of, verdicts
from halfstep.cli.programs.compare import Comparison as Found
from halfstep.cli.programs.curves import curves_chart, mean_with_band
from halfstep.cli.programs.episodes import episodes_folder
from halfstep.cli.programs.market import Market, load_market
from halfstep.cli.programs.processes import Failure
from halfstep.cli.programs.run import collect
from halfstep.cli.programs.study import study_policy
from halfstep.cli.programs.study_encoder import study_encoder
from halfstep.cli.programs.timing import MemoryFigures, count_memory
from halfstep.config.load import merged
from halfstep.config.recipes import smoke
from halfstep.config.tables import Config
from halfstep.experience.store import EpisodeStore
from halfstep.progress import SILENT
from halfstep.training import loop, optimizers
from halfstep.training.settings import OptimizerSettings

CODE = '''
import torch
from halfstep.training.optimizers import register_optimizer

class Hiding(torch.optim.SGD):
    """Keeps a copy of every gradient outside its state, and says that it keeps momentum alone."""

    def step(self, closure=None):
        self._kept = [p.grad.clone() for group in self.param_groups for p in group["params"] if p.grad is not None]
        return super().step(closure)

    def state_bytes(self):
        return sum(4 * p.numel() for group in self.param_groups for p in group["params"])

class Diverging(torch.optim.SGD):
    """Sets its first parameter to infinity."""

    def step(self, closure=None):
        with torch.no_grad():
            self.param_groups[0]["params"][0].fill_(float("inf"))

register_optimizer("hiding", lambda model, s: Hiding(model.parameters(), lr=s.sgd_lr, momentum=0.9))
register_optimizer("diverging", lambda model, s: Diverging(model.parameters(), lr=s.sgd_lr))
'''


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Forget what a test registers; one thread, as in the processes of arms."""
    before, threads = dict(optimizers._FACTORIES), torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    optimizers._FACTORIES.clear()
    optimizers._FACTORIES.update(before)


@pytest.fixture(scope="module")
def config() -> Config:
    changes = {
        "data": {"made_up": 1500},
        "study": {"updates": 6, "eval_every": 3},
        "study_encoder": {"epochs": 1, "patience": 1},
        "research": {"passes": 4},
        "run": {"jobs": 1},
    }
    return merged(smoke(), changes, source="test")


@pytest.fixture(scope="module")
def market(config: Config) -> Market:
    return load_market(config)


class Spy:
    """Wraps `make_optimizer`: keeps initial weights, the first gradients and every step's share of the peak rate."""

    def __init__(self) -> None:
        self.weights: list[list[Tensor]] = []
        self.first_gradients: list[list[Tensor]] = []
        self.shares: list[list[float]] = []

    def __call__(self, name: str, model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
        optimizer = optimizers.make_optimizer(name, model, settings)
        params = list(model.parameters())
        peak = optimizer.param_groups[0]["lr"]
        self.weights.append([param.detach().clone() for param in params])
        shares: list[float] = []
        self.shares.append(shares)

        def before_step(_optimizer: Any, _arguments: Any, _options: Any) -> None:
            if not shares:
                self.first_gradients.append([p.grad.clone() for p in params if p.grad is not None])
            shares.append(round(optimizer.param_groups[0]["lr"] / peak, 12))

        optimizer.register_step_pre_hook(before_step)
        return optimizer


@pytest.mark.pitfall("T26")
def test_arms_differ_only_in_the_optimizer(
    config: Config, market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EpisodeStore.open(episodes_folder(collect(config, market, tmp_path, SILENT)))
    encoder, contexts = study_encoder(config, market, tmp_path / "shared", SILENT, optimizer="adamw", seed=1)
    assert encoder.updates > 0
    spies: dict[str, Spy] = {}
    for name in ("sgd", "adam", "adamw", "adam_mini"):
        spies[name] = Spy()
        monkeypatch.setattr(loop, "make_optimizer", spies[name])
        run_arm(config, market, Arm(name, 1), store.folder, tmp_path / name, scope="encoder")
        study_policy(
            config, market, tmp_path / f"{name}-policy", SILENT, encoder_folder=tmp_path / "shared",
            contexts=contexts, store=store, optimizer=name, seed=1,
        )  # fmt: skip
    first = spies["adamw"]
    assert [len(shares) for shares in first.shares] == [encoder.updates, 6, 6]
    for name in ("sgd", "adam", "adam_mini"):
        other = spies[name]
        assert other.shares == first.shares, name  # schedule and number of updates
        assert_equal(other.weights, first.weights, name)  # of encoder, critic and actor
        # clipped gradients of the first batch; the actor's goes through the critic, which has made a step before
        assert_equal(other.first_gradients[:2], first.first_gradients[:2], name)


def assert_equal(ours: list[list[Tensor]], theirs: list[list[Tensor]], name: str) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True)), name


def run_compare(tmp_path: Path, jobs: int) -> Path:
    (tmp_path / "code.py").write_text(CODE)
    folder = tmp_path / f"jobs-{jobs}"
    status = main(
        [
            "compare", "--recipe", "smoke", "--scope", "encoder", "--jobs", str(jobs), "--data.made-up", "1500",
            "--study-encoder.epochs", "1", "--seeds", "1", "--optimizers", "adamw", "hiding", "diverging", "--compare.headline", "adamw",
            "--code", str(tmp_path / "code.py"), "--out", str(folder),
        ]
    )  # fmt: skip
    assert status == 3  # incomplete: an arm diverged
    return folder


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    found.pop("clock")
    for failure in found["failed"].values():
        failure["log"] = Path(failure["log"]).relative_to(folder).as_posix()
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    names = ("**/*.safetensors", "**/metrics.jsonl", "tables/*.parquet", "report/*.svg")
    paths = sorted(path for pattern in names for path in folder.glob(pattern))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.pitfall("T26", "T27")
def test_results_do_not_depend_on_the_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    one, two = run_compare(tmp_path, 1), run_compare(tmp_path, 2)
    assert results(one) == results(two)
    assert files_of(one) == files_of(two)
    assert len(files_of(one)) >= 2 * 2 + 2
    found, screen = results(one), capsys.readouterr().err

    # a diverged arm is told with its log, and stops nobody
    assert found["complete"] is False
    assert list(found["failed"]) == ["diverging-s1"]
    assert found["failed"]["diverging-s1"]["error"].startswith("DivergenceError: update 2: loss ")
    assert "DivergenceError" in (one / found["failed"]["diverging-s1"]["log"]).read_text()
    assert found["optimizers"]["diverging"]["verdicts"]["validation_loss"].endswith(
        "no verdict, diverging-s1 failed."
    )
    assert "FAILED diverging-s1" in screen
    assert "The result is incomplete." in screen
    assert "1 seeds allow no verdict, 5 are needed." in screen

    # an optimizer that keeps a buffer outside its state is found out
    hiding, adamw = (found["optimizers"][name]["memory"] for name in ("hiding", "adamw"))
    assert hiding["elsewhere"] == hiding["state"] == hiding["says"] == hiding["parameters"]
    assert hiding["complaint"] == f"{hiding['parameters']:,} bytes are kept outside its state"
    assert (adamw["elsewhere"], adamw["complaint"]) == (0, "")
    assert adamw["state"] - adamw["step_counts"] == adamw["formula"] == 2 * adamw["parameters"]

    # continuing redoes what is missing only
    lost = one / "50-arms" / "hiding-s1"
    before, kept = files_of(one), (one / "50-arms" / "adamw-s1" / "arm.json").stat().st_mtime_ns
    for path in sorted(lost.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert main(["compare", "--resume", str(one)]) == 3
    assert files_of(one) == before
    assert (one / "50-arms" / "adamw-s1" / "arm.json").stat().st_mtime_ns == kept

    # every arm is in the registry once for each run, also those that failed; seeds are no trials of their own
    lines = [json.loads(line) for line in (tmp_path / "runs" / "registry.jsonl").read_text().splitlines()]
    assert len(lines) == 2 * 3
    assert len({line["configuration"] for line in lines}) == 3


def test_state_bytes_are_measured(config: Config) -> None:
    def model() -> nn.Module:
        module = nn.Linear(100, 50)
        for param in module.parameters():
            param.grad = torch.ones_like(param)
        return module

    class Says(torch.optim.SGD):
        def state_bytes(self) -> int:
            return 4 * 5050

    class InState(Says):
        def step(self, closure: Any = None) -> Any:
            loss = super().step(closure)
            for state in self.state.values():
                state["more"] = state["momentum_buffer"].clone()
            return loss

    class InClosure(Says):
        def step(self, closure: Any = None) -> Any:
            if not hasattr(self, "recall"):
                kept = [torch.zeros(5050)]
                self.recall = lambda: kept
            return super().step(closure)

    for name, kind in {"honest": Says, "in_state": InState, "in_closure": InClosure}.items():
        optimizers.register_optimizer(
            name, lambda m, s, kind=kind: kind(m.parameters(), lr=s.lr, momentum=0.9)
        )
    found = {
        name: count_memory(name, config, model())
        for name in ("honest", "in_state", "in_closure", "adam_mini")
    }
    assert (found["honest"].state, found["honest"].complaint) == (4 * 5050, "")
    assert found["in_state"].complaint == "state_bytes() says 20,200, 40,400 are there"
    assert found["in_closure"].complaint == "20,200 bytes are kept outside its state"
    mini = found["adam_mini"]
    assert mini.says == mini.formula == mini.state - mini.step_counts == 4 * (5050 + 50 + 50)
    assert mini.complaint == ""


def record(name: str, seed: int, loss: float, growth: float) -> dict[str, Any]:
    return {
        "optimizer": name, "seed": seed, "clock": {"encoder_seconds": 1.0},
        "encoder": {"validation_loss": loss, "skill": [0.1], "updates": 40},
        "test": {"log_growth": growth, "net_profit": 1.0, "sharpe": {}},
    }  # fmt: skip


def found_with(records: list[dict[str, Any]], failures: dict[str, Failure], seeds: int) -> Found:
    memory = MemoryFigures(
        implementation="torch AdamW", parameters=4, state=8, step_counts=0, says=None, formula=8, elsewhere=0,
        peak_resident=1,
    )  # fmt: skip
    changes = {"compare": {"seeds": seeds, "optimizers": ("adamw", "adam_mini"), "few_seeds": seeds < 5}}
    return Found(
        config=merged(smoke(), changes, source="test"), arms=ArmResults(records, failures),
        memory={"adamw": memory, "adam_mini": memory}, step_ms={"adamw": (1.0, 1.0, 1.0), "adam_mini": (1.0, 1.0, 1.0)}, sweep=None, openings=1,
    )  # fmt: skip


@pytest.mark.pitfall("T26")
def test_verdicts_are_paired_by_seed() -> None:
    differences = [-0.002, 0.001, 0.003, -0.001, 0.000]
    adamw = [0.38, 0.39, 0.40, 0.41, 0.42]
    records = [record("adamw", seed + 1, loss, -0.01) for seed, loss in enumerate(adamw)]
    records += [
        record("adam_mini", seed + 1, loss + d, 0.01 + d)
        for seed, (loss, d) in enumerate(zip(adamw, differences, strict=True))
    ]
    said = verdicts(found_with(records, {}, 5))["adam_mini"]
    assert said["validation_loss"] == (
        "adam_mini - adamw: +0.00020 (95 % -0.00219 … +0.00259), 5 seeds; within ±1 % (±0.00400): shown, p = 0.0058"
    )
    assert said["test_log_growth"].startswith("adam_mini - adamw: +0.02020 (95 %")
    assert said["test_log_growth"].endswith("; better")
    # one failed arm of AdamW: nobody can be compared with it
    failure = Failure(error="DivergenceError: update 3", exit_status=3, log=Path("log.txt"))
    lost = found_with(
        [r for r in records if (r["optimizer"], r["seed"]) != ("adamw", 3)], {"adamw-s3": failure}, 5
    )
    assert verdicts(lost)["adam_mini"]["validation_loss"] == "adam_mini - adamw: no verdict, adamw-s3 failed."
    assert metrics_of(lost)["complete"] is False


def test_band_by_hand() -> None:
    import numpy as np

    mean, half = mean_with_band(np.array([[1.0, 4.0], [3.0, 4.0]]))
    assert mean.tolist() == [2.0, 4.0]
    assert half.tolist() == pytest.approx([12.7062 * 1.0, 0.0], rel=1e-4)  # t(0.975, 1) * sqrt(2) / sqrt(2)
    assert curves_chart({"adamw": []}).count("<svg") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds", "3"], "seeds: 3, must be at least 5 for a verdict. Add --compare.few-seeds"),
        (["--optimizers", "adamw", "adamini", "--compare.headline", "adamw"], "'adamini', must be one of sgd, adam, adamw, adam_mini"),
        (["--optimizers", "sgd", "--compare.headline", "sgd"], "must hold adamw"),
        (["--episodes", "nowhere"], "no trajectories in"),
        (["--code", "nowhere.py"], "--compare.code: no file at"),
    ],
)  # fmt: skip
def test_wrong_input_leaves_nothing_behind(
    flags: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    recipe = ["--recipe", "quick", "--data.made-up", "1500"]
    assert main(["compare", *recipe, *flags]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.pitfall("T25")
def test_a_sweep_chooses_by_validation_loss_and_is_counted(
    config: Config, market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from halfstep.cli.programs import compare as program

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(program, "SWEEP", {"adamw": ("lr", (1e-3, 10.0))})
    found = program.run_sweep(config, market, tmp_path / "run", SILENT)
    assert found.chosen == {"lr": 1e-3}
    assert found.losses["lr"][1e-3] < found.losses["lr"][10.0]  # type: ignore[operator]
    assert "stands at its edge" in found.remarks[0]
    assert found == program.run_sweep(config, market, tmp_path / "run", SILENT)  # continued
    lines = [json.loads(line) for line in (tmp_path / "runs" / "registry.jsonl").read_text().splitlines()]
    assert [(line["seed"], line["figure"]) for line in lines] == [(0, "validation_loss")] * 2
    assert len({line["configuration"] for line in lines}) == 2
    assert SWEEP["adamw"] == ("lr", (3e-4, 1e-3, 3e-3))
    assert SWEEP["sgd"] == ("sgd_lr", (0.01, 0.05, 0.2))
