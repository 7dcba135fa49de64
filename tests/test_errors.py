"""Messages name the place, the thing and the way out."""

from halfstep import errors


def test_a_data_error_reads_as_one_line_with_place_and_way_out() -> None:
    error = errors.PriceError(
        "high 1.0712 is below close 1.0714",
        file="EURUSD.csv",
        row=118,
        column="<HIGH>",
        value=1.0712,
        hint='Re-export the file, or pass repair=("widen",).',
    )
    assert str(error) == (
        "EURUSD.csv:118: column '<HIGH>': high 1.0712 is below close 1.0714. "
        'Re-export the file, or pass repair=("widen",).'
    )
    assert isinstance(error, ValueError)
    assert (error.row, error.column, error.value) == (118, "<HIGH>", 1.0712)


def test_exit_statuses_follow_the_kind_of_error() -> None:
    assert errors.ConfigError("x").exit_status == 2
    assert errors.DivergenceError("x").exit_status == 3
