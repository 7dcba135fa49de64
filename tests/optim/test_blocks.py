"""A block specification against index sets written out by hand."""

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from halfstep.optim.blocks import BlockSpec, by_element, by_row, by_sections, by_tensor


def labels(spec: BlockSpec) -> Tensor:
    """Return the number of the block of every element, from the definition: rows in C order, cut into runs."""
    sizes = [size for _, size in runs(spec)]
    of_row = [block for block, size in enumerate(sizes) for _ in range(size)]
    return torch.tensor(of_row, dtype=torch.long).reshape(spec.state_shape).expand(spec.shape)


def runs(spec: BlockSpec) -> Iterator[tuple[int, int]]:
    """Yield the first row and the rows of each block."""
    row = 0
    for rows, per_block in spec.sections or ((spec.rows, 1),):
        for _ in range(rows // per_block):
            yield row, per_block
            row += per_block


SPECS = [
    by_element((3, 2), ""),
    by_element((), ""),
    by_tensor((3, 5), ""),
    by_tensor((), ""),
    by_tensor((7,), ""),
    by_row((5, 3), ""),
    by_row((5, 3), "", axes=(1,)),
    by_row((2, 3, 5), "", axes=(0, 2)),
    by_row((2, 3, 5), "", axes=(0, 1)),
    by_row((4, 3, 2, 2), ""),
    by_sections((12, 5), "", sections=((4, 2), (4, 2), (4, 1)), name="w"),
    by_sections((5, 12), "", sections=((6, 3), (6, 1)), name="w", axes=(1,)),
    by_sections((3, 4, 5), "", sections=((12, 2),), name="w", axes=(0, 1)),
    by_sections((2, 5, 6), "", sections=((12, 3),), name="w", axes=(0, 2)),
    by_sections((6,), "", sections=((6, 3),), name="w"),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.shape}-{spec.row_axes}-{spec.sections}")
def test_mean_square_is_the_mean_over_each_block(spec: BlockSpec) -> None:
    grad = torch.randn(spec.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    block = labels(spec)
    expected = torch.zeros_like(grad)
    for number in block.unique():
        expected[block == number] = grad[block == number].square().mean()
    found = spec.mean_square(grad)
    assert tuple(found.shape) == spec.state_shape
    torch.testing.assert_close(found.expand(spec.shape), expected, rtol=1e-14, atol=0)
    assert spec.blocks == len(block.unique())
    assert spec.state_numbers == math.prod(spec.shape) + spec.rows


@pytest.mark.pitfall("C4", "C20")
def test_every_element_is_in_one_block_of_one_variable() -> None:
    spec = by_sections((3, 4, 5), "", sections=((12, 2),), name="weight", axes=(0, 1))
    block = labels(spec)
    for number in range(6):
        places = (block == number).nonzero()
        assert len(places) == 10
        assert len(places[:, 0].unique()) == 1


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 3), (0, 0)])
def test_empty_tensors_have_blocks(shape: tuple[int, ...]) -> None:
    for spec in (by_element(shape, ""), by_tensor(shape, ""), by_row(shape, "")):
        found = spec.mean_square(torch.zeros(shape))
        assert tuple(found.shape) == spec.state_shape
        assert not found.any()
    rows = by_sections(shape, "", sections=((shape[0], max(shape[0], 1)),), name="w")
    assert rows.mean_square(torch.zeros(shape)).shape == rows.state_shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_mean_square_is_wide(dtype: torch.dtype) -> None:
    grad = torch.full((2, 3), 1e-4, dtype=dtype)
    found = by_row((2, 3), "").mean_square(grad)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found, grad.to(found.dtype).square().mean(1, keepdim=True), rtol=1e-6, atol=0)


@given(st.data())
def test_sections_cut_where_they_say(data: st.DataObject) -> None:
    sections = data.draw(
        st.lists(
            st.tuples(st.integers(1, 4), st.integers(1, 4)).map(lambda s: (s[0] * s[1], s[1])),
            min_size=1,
            max_size=5,
        )
    )
    rows = sum(count for count, _ in sections)
    spec = by_sections((2, rows), "", sections=sections, name="w", axes=(1,))
    assert spec.blocks == sum(count // size for count, size in sections)
    grad = torch.zeros(2, rows, dtype=torch.float64)
    hot = data.draw(st.integers(0, rows - 1))
    grad[1, hot] = 3.0
    start = 0
    for count, size in sections:  # the block that holds the hot row
        if hot < start + count:
            first = start + (hot - start) // size * size
            break
        start += count
    expected = torch.zeros(1, rows, dtype=torch.float64)
    expected[0, first : first + size] = 9 / (2 * size)
    torch.testing.assert_close(spec.mean_square(grad), expected)


@pytest.mark.pitfall("K16", "C19")
@pytest.mark.parametrize(
    "sections", [((10, 4),), ((4, 4), (4, 4)), ((10, 0),), ((12, 4),), ((-2, 1), (12, 4))]
)
def test_rows_that_do_not_divide_are_named(sections: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match=r"layer\.q_proj\.weight: shape \(10, 7\) has 10 rows") as caught:
        by_sections((10, 7), "", sections=sections, name="layer.q_proj.weight")
    assert f"blocks of {sections[0][1]}" in str(caught.value)
