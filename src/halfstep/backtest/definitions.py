"""What every row of the report is called and how it is computed: the help text of the page and of docs/report.md."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from halfstep.backtest.figures import UNDEFINED, Row, Unit, text_of


@dataclass(frozen=True, slots=True)
class Definition:
    """One row of the report.

    Attributes:
        key, label, unit: as `Row`.
        meaning: how it is computed, in a sentence.
        absent: when there is no value; shown as the note of such a row.
        second: unit of the figure in brackets, if there is one.
    """

    key: str
    label: str
    unit: Unit
    meaning: str
    absent: str = ""
    second: Unit | None = None


Number = float | int | np.integer[Any]


def row(
    key: str,
    value: Number | None,
    second: Number | None = None,
    *,
    interval: tuple[float, float] | None = None,
    text: str | None = None,
    note: str = "",
) -> Row:
    """Return a row by its definition.

    Args:
        key: of a `Definition`.
        value, second, interval: the figures.
        text: in place of what value and second give.
        note: in place of the definition's words on a missing value.
    """
    d = DEFINITIONS[key]
    value, second = (None if each is None else float(each) for each in (value, second))
    if text is None:
        text = text_of(value, d.unit)
        if d.second is not None and value is not None:
            text += f" ({text_of(second, d.second)})"
        if interval is not None:
            text += f" (95 % {text_of(interval[0], d.unit)} … {text_of(interval[1], d.unit)})"
    if not note and text == UNDEFINED:
        note = d.absent
    return Row(
        key=key, label=d.label, value=value, text=text, unit=d.unit,
        definition=d.meaning, note=note, second=second, interval=interval,
    )  # fmt: skip


NO_TRADES = "no trades"
SIDE_SHARE = (
    "count of all trades of that side and the share of them that won; a long trade closes a long position"
)

SETTINGS = (
    Definition("expert", "Expert", "text", "policy, the folder of its networks and the hash of its weights"),
    Definition("symbol", "Symbol", "text", "what was traded"),
    Definition("period", "Period", "text", "timeframe, first and last bar of the test, and the clock its times are read on"),
    Definition("inputs", "Inputs", "text", "the resolved configuration, in the form of a file for --config"),
    Definition("company", "Company", "text", "where the bars came from: file, format and SHA-256"),
    Definition("currency", "Currency", "text", "of the account; all money is in it"),
    Definition("deposit", "Initial Deposit", "money", "balance before the first deal"),
    Definition("leverage", "Leverage", "text", "contract value per unit of margin"),
    Definition("spans", "Spans", "text", "days the networks learned from, days that chose the weights, days of the test"),
)  # fmt: skip

TESTER = (
    Definition("history_quality", "History Quality", "share", "share of the bars that the sessions of the test span should have and that are there and right", "the sessions of the symbol are not known"),
    Definition("bars", "Bars", "count", "bars stepped"),
    Definition("ticks", "Ticks", "count", "prices simulated: 4 per bar, and 4 per finer bar where those decide"),
    Definition("symbols", "Symbols", "count", "instruments traded"),
    Definition("net_profit", "Total Net Profit", "money", "gross profit + gross loss, after swap and commission"),
    Definition("gross_profit", "Gross Profit", "money", "sum of the nets of won trades; net of a trade = profit + swap - its commission - its share of the entry commissions; won means net > 0"),
    Definition("gross_loss", "Gross Loss", "money", "sum of the nets of lost trades; a net of 0 is lost"),
    Definition("balance_dd_absolute", "Balance Drawdown Absolute", "money", "deposit - lowest balance; 0 if it was never below"),
    Definition("balance_dd_maximal", "Balance Drawdown Maximal", "money", "largest fall in money from a running peak of the balance, and its percent of that peak", second="share"),
    Definition("balance_dd_relative", "Balance Drawdown Relative", "share", "largest fall in percent of a running peak of the balance, and its money; may be another episode than the maximal one", second="money"),
    Definition("equity_dd_absolute", "Equity Drawdown Absolute", "money", "deposit - lowest equity; per bar the worst equity inside it, then the one at its close. MetaTrader looks at every tick, so its peaks may be higher"),
    Definition("equity_dd_maximal", "Equity Drawdown Maximal", "money", "largest fall in money from a running peak of the equity, and its percent of that peak", second="share"),
    Definition("equity_dd_relative", "Equity Drawdown Relative", "share", "largest fall in percent of a running peak of the equity, and its money; may be another episode than the maximal one", second="money"),
    Definition("profit_factor", "Profit Factor", "ratio", "gross profit / |gross loss|", "gross loss is 0"),
    Definition("expected_payoff", "Expected Payoff", "money", "net profit / trades", NO_TRADES),
    Definition("recovery_factor", "Recovery Factor", "ratio", "net profit / maximal equity drawdown in money. MetaQuotes calls values above 3 good", "no drawdown"),
    Definition("ahpr", "AHPR", "growth", "mean of balance / balance before, over trades; in brackets minus 1", "no trades, or the balance fell to 0", "share"),
    Definition("ghpr", "GHPR", "growth", "(last balance / deposit)^(1 / trades); in brackets minus 1", "no trades, or the last balance is not above 0", "share"),
    Definition("sharpe_ratio", "Sharpe Ratio", "ratio", "mean / deviation (population) of the log returns of bar closes on which equity changed, times the root of their number per year by the time stamps; risk-free rate 0. Older builds of MetaTrader showed a per-trade value. MetaQuotes calls values below 0 bad, above 1 good, above 3 very good", "fewer than two bars on which equity changed, all by the same factor, or equity at or below 0"),
    Definition("lr_correlation", "LR Correlation", "ratio", "Pearson correlation of the balance after each trade with the number of the trade, deposit included", "fewer than two trades, or a constant balance"),
    Definition("lr_standard_error", "LR Standard Error", "money", "root of the sum of squared residuals about the least-squares line of the balance / (points - 2)", "fewer than two trades"),
    Definition("margin_level", "Margin Level", "share", "lowest worst equity / margin over the bars that ended with a position", "no bar ended with a position"),
    Definition("z_score", "Z-Score", "ratio", "runs test of won and lost trades: Z = (N (R - 0.5) - P) / root(P (P - N) / (N - 1)), P = 2 W L, R runs; in brackets erf(|Z| / root 2)", "all won, all lost, or too few trades", "share"),
    Definition("on_tester", "OnTester result", "text", "what the weights were chosen by, named", "no criterion was set"),
    Definition("total_trades", "Total Trades", "count", "deals that take volume off a position; partial closes count"),
    Definition("total_deals", "Total Deals", "count", "all fills"),
    Definition("short_trades", "Short Trades (won %)", "count", SIDE_SHARE, second="share"),
    Definition("long_trades", "Long Trades (won %)", "count", SIDE_SHARE, second="share"),
    Definition("profit_trades", "Profit Trades (% of total)", "count", "won trades and their share of all trades", second="share"),
    Definition("loss_trades", "Loss Trades (% of total)", "count", "lost trades and their share of all trades", second="share"),
    Definition("largest_profit", "Largest profit trade", "money", "largest net of a won trade", "no won trade"),
    Definition("largest_loss", "Largest loss trade", "money", "smallest net of a lost trade", "no lost trade"),
    Definition("average_profit", "Average profit trade", "money", "mean net of won trades", "no won trade"),
    Definition("average_loss", "Average loss trade", "money", "mean net of lost trades", "no lost trade"),
    Definition("max_consecutive_wins", "Maximum consecutive wins ($)", "count", "longest run of won trades and its sum; of equal ones the first", "no won trade", "money"),
    Definition("max_consecutive_losses", "Maximum consecutive losses ($)", "count", "longest run of lost trades and its sum; of equal ones the first", "no lost trade", "money"),
    Definition("max_consecutive_profit", "Maximal consecutive profit (count)", "money", "run of won trades with the largest sum, and its length", "no won trade", "count"),
    Definition("max_consecutive_loss", "Maximal consecutive loss (count)", "money", "run of lost trades with the smallest sum, and its length", "no lost trade", "count"),
    Definition("average_consecutive_wins", "Average consecutive wins", "count", "mean length of the runs of won trades, rounded half up", "no won trade"),
    Definition("average_consecutive_losses", "Average consecutive losses", "count", "mean length of the runs of lost trades, rounded half up", "no lost trade"),
    Definition("corr_profit_mfe", "Correlation (Profits,MFE)", "ratio", "Pearson correlation over positions of the net with the largest profit reached on the way, in money at closing quotes", "fewer than three positions, or all alike"),
    Definition("corr_profit_mae", "Correlation (Profits,MAE)", "ratio", "Pearson correlation over positions of the net with the smallest profit reached on the way, in money at closing quotes", "fewer than three positions, or all alike"),
    Definition("corr_mfe_mae", "Correlation (MFE,MAE)", "ratio", "Pearson correlation over positions of the largest with the smallest profit reached on the way", "fewer than three positions, or all alike"),
    Definition("holding_min", "Minimal position holding time", "seconds", "from the first opening of a position to its full close", "no position"),
    Definition("holding_max", "Maximal position holding time", "seconds", "from the first opening of a position to its full close", "no position"),
    Definition("holding_mean", "Average position holding time", "seconds", "from the first opening of a position to its full close", "no position"),
)  # fmt: skip

OURS = (
    Definition("growth_annual", "Growth per year", "share", "(equity at the end / deposit)^(1 / years) - 1, years of 365.25 days by the time stamps", "less than a quarter of a year, or equity at or below 0"),
    Definition("risk_free", "The same time in a deposit", "money", "risk-free rate per year × years × deposit; in brackets the net profit", second="money"),
    Definition("sharpe_daily", "Sharpe Ratio, daily", "ratio", "mean / deviation (n - 1) of the simple returns of the last equity of each server day, the deposit first, × root 252. Not MetaTrader's", "fewer than 20 days, no change, or equity at or below 0"),
    Definition("exposure", "Bars with a position", "share", "share of the bars that ended with a position", "no bars"),
    Definition("turnover", "Turnover", "lots", "sum of the lots of all deals"),
    Definition("win_rate", "Won trades", "share", "won trades / trades, with its Wilson 95 % interval", NO_TRADES),
    Definition("coin", "So few won by a coin", "share", "P(X <= won trades) if each trade were a fair coin", NO_TRADES),
    Definition("one_sided", "Larger side", "share", "share of trades of the side traded more; from 95 % on the policy is called one-sided", NO_TRADES),
    Definition("constant", "Constant elements", "count", "elements of the action that vary by less than 1 % of their range over the test"),
    Definition("outside_data", "Actions outside the data", "share", "share of actions farther from the nearest of 1,000 recorded ones than 99 % of those are from each other", "no recorded actions to compare with"),
)  # fmt: skip

UNCERTAINTY = (
    Definition("net_profit_interval", "Net profit, bars resampled", "money", "equity at the end - deposit, with the percentile interval of a stationary bootstrap of the per-bar log returns: geometric blocks of mean length max(a day of bars, twice the mean holding), at most a quarter of the bars", "fewer than 20 bars, or equity at or below 0"),
    Definition("net_profit_interval_80", "The same, 80 % interval", "money", "the same draws between their 10 % and 90 % quantiles", "fewer than 20 bars, or equity at or below 0"),
    Definition("share_not_positive", "Draws that earn nothing", "share", "share of the same draws with a net profit of 0 or less", "fewer than 20 bars, or equity at or below 0"),
    Definition("profit_factor_interval", "Profit factor, positions resampled", "ratio", "gross profit / |gross loss| of positions, with the percentile interval of a stationary bootstrap of the positions, mean block 5, over the draws that have a loss", "fewer than 10 positions, or none lost"),
    Definition("payoff_interval", "Mean net of a position, positions resampled", "money", "with the percentile interval of the same bootstrap", "fewer than 10 positions"),
    Definition("won_interval", "Won positions, positions resampled", "share", "with the percentile interval of the same bootstrap", "fewer than 10 positions"),
    Definition("bootstrap_seed", "Seed of the draws", "count", "root seed of every resampling of this page"),
    Definition("seeds_net", "Net profit over seeds", "money", "interquartile mean: a quarter of the seeds, rounded down, is cut at each end; with the percentile interval of resampled seeds", "one seed says nothing about the spread"),
    Definition("seeds_worst", "Worst seed", "money", "least net profit of a seed", "one seed"),
    Definition("seeds_best", "Best seed", "money", "greatest net profit of a seed; no result by itself", "one seed"),
    Definition("deflated_sharpe", "Deflated Sharpe ratio", "share", "probability that the Sharpe ratio of the returns is above what the best of so many trials shows by luck alone (Bailey and López de Prado 2014); in brackets that threshold, per return", "fewer than 20 returns, no change, or returns too skewed", "growth"),
    Definition("trials", "Trials", "count", "configurations whose validation or test result was looked at, seeds apart"),
    Definition("pbo", "Probability of overfitting", "share", "share of the splits of the test in halves in which the trial that is best in one half is below the middle in the other (combinatorially symmetric cross-validation)", "fewer than two trials, too few bars, or no trade by any"),
)  # fmt: skip

SUMMARY = (
    Definition("walk_growth", "Chained growth", "share", "growth of an account that goes from month to month with what it has: interquartile mean over seeds of ln(equity at the end / deposit), summed over months, as growth; with the percentile interval of resampled seeds"),
    Definition("walk_month", "Log growth of a month", "share", "mean over months of the log growth, seeds averaged; with the t-interval over months, which says whether other months would have grown", "one month gives no interval"),
    Definition("walk_month_seeds", "The same over months and seeds", "share", "interquartile mean of the log growth of every month and seed; with the percentile interval of seeds resampled within each month, which says nothing of other months"),
    Definition("walk_months", "Months and trades", "count", "months traded, each once, by networks trained on earlier ones; months whose log growth, seeds averaged, is above 0; trades of the seed that is shown"),
    Definition("walk_power", "Least mean month that would show", "share", "half the width of the interval over months: a mean log growth nearer to 0 cannot be told from none with so many months", "one month has no deviation"),
    Definition("headline", "Net profit", "money", "interquartile mean over seeds with its 95 % interval; with one seed, its net profit with the interval of its resampled bars"),
    Definition("random_p", "Against random trading", "ratio", "p = (1 + random policies that earn as much or more) / (1 + random policies); each has our number of positions, volumes, distances and planned holding times, its gaps and sides drawn", "no random policies were played"),
    Definition("against_baselines", "Against simple rules", "text", "which rules on the same bars, deposit and costs earned more"),
    Definition("against_deposit", "Against a deposit", "money", "net profit - what the risk-free rate pays in the same time"),
    Definition("seed_spread", "Seeds", "text", "interquartile mean and worst net profit"),
    Definition("traded", "Positions", "count", "closed by the seed that is shown; from fewer than 100 little can be learned"),
    Definition("deepest_fall", "Deepest fall of equity", "money", "largest fall in money from a running peak of the equity, and its percent of that peak, of the seed that is shown; beside it that of the worst seed", second="share"),
    Definition("costs_paid", "Costs", "money", "spread, slippage, commission and swap of all deals of the seed that is shown; a negative sum was paid"),
    Definition("costs_doubled", "At twice the costs", "money", "net profit of the same orders where spread, slippage, commission and negative swaps are doubled", "the orders were not replayed"),
    Definition("forecasts", "Forecasts", "text", "in how many features the encoder forecasts the test bars better than the best naive forecast, counted where the 95 % interval of the skill lies above 0", "no forecast lies wholly inside the test"),
    Definition("trial_count", "Trials so far", "count", "configurations whose validation or test result was looked at, seeds apart; the more, the likelier one looks good by luck"),
    Definition("openings", "Openings of the test span", "count", "how often a run traded these days of these bars; every look makes a good result likelier by luck"),
)  # fmt: skip

GROUPS = {"Settings": SETTINGS, "Summary": SUMMARY, "MetaTrader's rows": TESTER, "Our rows": OURS, "How sure": UNCERTAINTY}  # fmt: skip
DEFINITIONS = {definition.key: definition for group in GROUPS.values() for definition in group}
