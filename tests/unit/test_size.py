from __future__ import annotations

from contextlib import suppress
from fractions import Fraction

import pytest
from ansible.module_utils.cow.errors import CowError
from ansible.module_utils.cow.size import GIB, UNITS, Size
from hypothesis import given
from hypothesis import strategies as st

sizes = st.integers(min_value=0, max_value=2**70).map(Size)
percents = st.decimals(min_value=0, max_value=100, places=2).map(str)


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        (0, 0),
        (4096, 4096),
        ("4096", 4096),
        ("4096B", 4096),
        ("500MB", 500_000_000),
        ("500MiB", 524_288_000),
        ("1GB", 10**9),
        ("1GiB", 2**30),
        ("50 GiB", 50 * 2**30),
        (" 1.5GiB ", 3 * 2**29),
        ("1gib", 2**30),
        ("0.3B", 0),
        ("2.9999kB", 2999),
    ],
)
def test_parse(text: str | int, bytes_: int) -> None:
    assert Size.parse(text) == Size(bytes_)


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1", "1.GiB", ".5GiB", "1e3", "1,5GiB", "1  GiB", "50G", "50 Gi B", "10%", "٣GiB", "9" * 5000]
)
def test_parse_refuses(text: str) -> None:
    with pytest.raises(CowError, match=r"not a size|percentage"):
        Size.parse(text)


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (14388243660, "13.4 GiB")])
def test_rounded(size: int, text: str) -> None:
    assert Size(size).rounded() == text


@given(sizes)
def test_parse_reads_back_what_str_gives(size: Size) -> None:
    assert Size.parse(str(size)) == size


@given(sizes, sizes)
def test_order_is_that_of_the_bytes(one: Size, other: Size) -> None:
    assert (one < other) == (one.bytes < other.bytes)


@given(st.decimals(0, 10**6, places=3), st.decimals(0, 10**6, places=3), st.sampled_from(sorted(UNITS)))
def test_parse_is_monotonic(one: object, other: object, unit: str) -> None:
    smaller, larger = sorted([Fraction(str(one)), Fraction(str(other))])
    text = {Fraction(str(number)): f"{number}{unit}" for number in (one, other)}
    assert Size.parse(text[smaller]) <= Size.parse(text[larger])


@given(percents, sizes)
def test_percentage_is_a_part_of_the_whole(percent: str, whole: Size) -> None:
    part = Size.parse(f"{percent}%", whole)
    assert Size(0) <= part <= whole
    assert abs(part.bytes - Fraction(percent) * whole.bytes / 100) < 1


@given(sizes)
def test_percentage_is_at_most_the_whole(whole: Size) -> None:
    assert Size.parse("100%", whole) == whole
    with pytest.raises(CowError, match="more than the whole"):
        Size.parse("100.01%", whole)


@given(sizes, sizes.filter(lambda size: size.bytes > 0))
def test_floor_is_the_nearest_multiple_below(size: Size, granularity: Size) -> None:
    floor = size.floor(granularity)
    assert floor.bytes % granularity.bytes == 0
    assert 0 <= size.bytes - floor.bytes < granularity.bytes


@given(st.text() | st.from_regex(r"[0-9.]*[ ]?[KMGTPEkib%B]*", fullmatch=True), st.none() | sizes)
def test_any_text_is_a_size_or_refused(text: str, whole: Size | None) -> None:
    with suppress(CowError):
        assert Size.parse(text, whole).bytes >= 0


def test_units_differ() -> None:
    assert Size.parse("1GiB") == GIB
    assert Size.parse("1GB") < GIB
