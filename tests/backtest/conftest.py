"""One made-up report and its page for all tests of a process: charts take seconds to draw."""

import pytest

from halfstep.backtest.content import Report
from halfstep.backtest.html import page

from .made_up import made_up_report


@pytest.fixture(scope="session")
def report() -> Report:
    return made_up_report()


@pytest.fixture(scope="session")
def html(report: Report) -> str:
    return page(report)
