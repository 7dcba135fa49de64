"""What a report says in words: settings, assumptions, and what may be wrong with a test."""

from pathlib import Path
from typing import Any

from halfstep import files
from halfstep.backtest.definitions import row
from halfstep.backtest.figures import Row, percent
from halfstep.backtest.run import TestRun
from halfstep.backtest.verdict import Circumstances
from halfstep.cli.flags import ALL_TABLES, VERB_TABLES
from halfstep.cli.programs.market import Market
from halfstep.cli.programs.models import model_file
from halfstep.cli.run_folder import versions
from halfstep.config.load import FREE, changes_from, to_toml
from halfstep.config.recipes import RECIPES
from halfstep.config.tables import Config
from halfstep.market.calendar import iso
from halfstep.market.check import check_bars
from halfstep.market.instruments import preset_of

HASH_SHOWN = 16


def title(market: Market) -> str:
    """Return symbol, timeframe and span."""
    first, stop = market.split.test
    return f"{market.bars.symbol} {market.bars.timeframe.name}: test from {first} to before {stop}"


def expert(models: Path, name: str) -> str:
    """Return the name of a policy with its folder and the hash of its weights, where the folder holds them."""
    actor = model_file(models, "actor")
    if not actor.exists():
        return name
    return f"{name}, folder {models.parent.name}/{models.name}, weights {files.sha256(actor)[:HASH_SHOWN]}"


def spans(market: Market) -> str:
    """Return the days that were learned from, that chose the weights, and of the test."""
    return "; ".join(
        f"{part} {getattr(market.split, part)[0]} to before {getattr(market.split, part)[1]}, {b - a:,} bars"
        for part in ("train", "validation", "test")
        for a, b in (getattr(market.spans, part),)
    )


def settings(config: Config, market: Market, *, expert: str, spans: str) -> tuple[Row, ...]:
    """Return the settings of the test as the tester lists them; words only.

    Args:
        config, market: of the test.
        expert: the policy that is shown.
        spans: days of training, validation and test.
    """
    bars, rules = market.bars, market.test_rules
    first, stop = market.spans.test
    times = bars.server_time
    source = (
        "made up" if bars.source.path is None else f"{bars.source.path.name}, SHA-256 {bars.source.sha256}"
    )
    texts = {
        "expert": expert,
        "symbol": bars.symbol,
        "period": f"{bars.timeframe.name}, {iso(int(times[first]))} – {iso(int(times[stop - 1]))}, clock {bars.zone.name}",
        "inputs": to_toml(config),
        "company": f"{source}; {bars.source.format}, {bars.side}, {len(bars):,} bars {bars.hash[:HASH_SHOWN]}",
        "currency": rules.currency,
        "leverage": f"1:{rules.leverage:g}",
        "spans": spans,
    }
    rows = {key: row(key, None, text=text) for key, text in texts.items()}
    rows["deposit"] = row("deposit", rules.deposit)
    order = ("expert", "symbol", "period", "inputs", "company", "currency", "deposit", "leverage", "spans")
    return tuple(rows[key] for key in order)


def assumptions(config: Config, market: Market, run: TestRun) -> tuple[str, ...]:
    """Return what the result rests on: data, costs, fills, training."""
    i, rules, bars = market.instrument, market.test_rules, market.bars
    commission = i.commission if rules.commission is None else rules.commission
    slippage = f"{rules.slippage_points} points" + (
        f" and up to {rules.slippage_random_points} more by chance" if rules.slippage_random_points else ""
    )
    rates = (
        "no conversion: the account's currency is a currency of the symbol"
        if rules.currency in (i.base, i.quote)
        else f"converted to {rules.currency} by the last close known at each bar's open of "
        f"{market.rates['profit_rate'].symbol} (profits) and {market.rates['margin_rate'].symbol} (margin)"
    )
    return (
        "A decision at the close of a bar is executed at the open of the next one, with that bar's spread"
        + (f", {rules.delay_bars} bars later." if rules.delay_bars else "."),
        f"The bars show {bars.side} prices; long positions open at the ask and close at the bid, short ones the other way.",
        f"The clock of the bars is {bars.zone.name}, {'assumed from the format' if bars.zone.is_assumed else 'stated'}.",
        f"Spread as stated, at least {_floor(market)} points; slippage {slippage}; commission {commission:g} {rules.currency} per lot and side; swap {i.swap_long:g} (long) and {i.swap_short:g} (short) a night, {i.swap_mode}.",
        _origin_of_costs(config, market),
        f"Where one bar touches stop and target: {rules.intrabar}; it decided {run.ambiguous} positions. Levels jumped over: {rules.gap_fill}.",
        f"Money: {rates}. Margin by leverage 1:{rules.leverage:g}, stop-out at {percent(rules.stop_out)}; at most {rules.lot_cap:g} lots a side.",
        f"Targets and stops are fractions of {i.level_scale_points:,} points.",
        f"Feature set {market.features.set_id}; each window is normalised by its own mean and deviation, the reference comes from the training span.",
        "Networks, settings and the number of updates were fixed before the test span was opened; the validation span chose the weights.",
        *(f"Reader: {note}." for note in (*bars.report.notes, *bars.report.repairs, *market.features.notes)),
    )  # fmt: skip


def _origin_of_costs(config: Config, market: Market) -> str:
    """Return whose figures the contract and its costs are."""
    symbol, stated = market.bars.symbol, config.instrument.stated
    for name in ("spread_floor_points", "commission"):
        if getattr(config.broker, name) is not None:
            stated[name] = getattr(config.broker, name)
    rest = f"round figures of the profile {config.instrument.profile!r}, of no particular broker"
    if preset_of(symbol) is None:
        rest = f"what is usual for a symbol of this name; there is no preset of {symbol}"
    if not stated:
        return f"The costs are {rest}."
    figures = ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in stated.items())
    return f"Stated for this run: {figures}. Everything else of contract and costs is {rest}."


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def command_line(verb: str, config: Config, *inputs: str) -> str:
    """Return the command line that does it again: the recipe, and every setting that differs from it, quoted for a shell.

    The same for a run and its continuation, whatever folders and processes they use; the words as they were typed stand
    in ``manifest.json``. Settings that decide nothing of the program's work, for which it has no flag, are left out.

    Args:
        verb: the program.
        config: of the run.
        inputs: further words, before the settings.
    """
    changes = changes_from(RECIPES[config.recipe](), config)
    read = VERB_TABLES.get(verb, ALL_TABLES)
    values = {f"{table}.{key}": value for table in read for key, value in changes.settings.get(table, {}).items() if (table, key) not in FREE}  # fmt: skip
    values |= {name: None for name in changes.emptied if name.partition(".")[0] in read}
    settings = (word for name, value in values.items() for word in _flag(name.replace("_", "-"), value))
    return files.as_words("halfstep", verb, "--recipe", config.recipe, *inputs, *settings)


def _flag(name: str, value: Any) -> list[str]:
    """Return a setting as words of the command line."""
    if isinstance(value, bool):
        table, key = name.split(".")
        return [f"--{name}" if value else f"--{table}.no-{key}"]
    return [f"--{name}", *map(str, value if isinstance(value, list) else [value])]


def provenance(config: Config, command: str) -> tuple[tuple[str, str], ...]:
    """Return what made a report: the command line, the root seed, and the version of everything that computed."""
    found = sorted((key, str(value)) for key, value in versions().items())
    return (("command line", command), ("root seed", str(config.run.seed)), *found)


def history(market: Market) -> tuple[float | None, tuple[float, ...]]:
    """Return the history quality of the test span as a fraction, and of its equal parts in percent."""
    grid = check_bars(market.bars.slice(*market.spans.test)).grid
    return (None, ()) if grid is None else (grid.quality / 100, grid.spans)


def circumstances(config: Config, market: Market, *, quality: float | None, openings: int) -> Circumstances:
    """Return what may be wrong with a test besides its result."""
    first, stop = market.spans.test
    floor = _floor(market)
    return Circumstances(
        made_up=config.data.made_up > 0,
        openings=openings,
        quality=quality,
        floored_spreads=float((market.bars.spread[first:stop] < floor).mean()),
        floor_points=floor,
        unsettled=max(0, min(stop, market.features.settled) - first),
    )


def _floor(market: Market) -> int:
    given = market.test_rules.spread_floor_points
    return market.instrument.spread_floor_points if given is None else given
