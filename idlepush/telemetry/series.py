"""Numbers told apart by account and by closed sets of labels.

prometheus-client keeps an object with a lock for every series: about 650 octets each and 4 KB for a histogram, which
makes 60 KB for the hundred series of an account, twice of what its idle TLS connection costs. As all label sets here
are closed, one short array for each account and family holds the same numbers in a fiftieth of the space, and every
series is there from the first scrape on, so that `rate()` misses nothing.

Written in the event loop; read by a scrape in a worker thread, which may see an observation half counted.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

LabelValues = tuple[str, ...]
Numbers = Iterable[tuple[LabelValues, float]]
Together = Callable[[Sequence[float]], float]
"""What the numbers of several accounts are, where accounts are not told apart."""

SERVICE: Final = ""
"""The one row of a family that does not tell accounts apart."""


class _Rows:
    """A row of numbers for each account, and what the rows added up to of those that were forgotten."""

    def __init__(self, width: int, *, per_account: bool) -> None:
        self._width = width
        self._rows: dict[str, array[float]] = {}
        self._forgotten = self._blank()
        self.per_account = per_account
        if not per_account:
            self._rows[SERVICE] = self._blank()

    def open(self, account: str) -> None:
        """Begin a row, unless there is one."""
        if self.per_account and account not in self._rows:
            self._rows[account] = self._blank()

    def forget(self, account: str) -> None:
        """Drop the row; its numbers stay in the sum, for a counter never goes back."""
        if self.per_account and account in self._rows:
            self._forgotten = _added(self._forgotten, self._rows.pop(account))

    def of(self, account: str) -> "array[float]":
        """Return the row to count in."""
        return self._rows[account if self.per_account else SERVICE]

    def items(self, *, by_account: bool) -> Iterator[tuple[tuple[str, ...], Sequence[float]]]:
        """Yield the label values that come first, and the row; one row of sums where accounts are not told apart."""
        rows = list(self._rows.items())  # in one step: the loop may begin another row meanwhile
        if self.per_account and by_account:
            yield from (((account,), row) for account, row in rows)
            return
        total = self._forgotten
        for _, row in rows:
            total = _added(total, row)
        yield (), total

    def _blank(self) -> "array[float]":
        return array("d", bytes(8 * self._width))


def _added(one: "array[float]", other: "array[float]") -> "array[float]":
    return array("d", (a + b for a, b in zip(one, other, strict=True)))


class Counter:
    """A family of counters: its name ends in `_total`; `values` are all that `labels` can be together."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        values: Iterable[LabelValues] = ((),),
        *,
        per_account: bool = True,
    ) -> None:
        self.name = name
        self._documentation = documentation
        self._labels = tuple(labels)
        self._values = [tuple(map(str, each)) for each in values]
        self._places: Mapping[LabelValues, int] = {each: place for place, each in enumerate(self._values)}
        self.rows = _Rows(len(self._values), per_account=per_account)

    def add(self, account: str, *labels: str, by: float = 1) -> None:
        """Count *by* more; KeyError where the labels are not of the closed set."""
        self.rows.of(account)[self._places[labels]] += by

    def family(self, *, by_account: bool) -> Metric:
        """Return the numbers as they stand."""
        named = by_account and self.rows.per_account
        found = CounterMetricFamily(
            self.name, self._documentation, labels=["account", *self._labels] if named else self._labels
        )
        for account, row in self.rows.items(by_account=by_account):
            for values, number in zip(self._values, row, strict=True):
                found.add_metric([*account, *values], number)
        return found


class Histogram:
    """A family of histograms with the same buckets."""

    def __init__(
        self,
        name: str,
        documentation: str,
        buckets: Sequence[float],
        labels: Sequence[str] = (),
        values: Iterable[LabelValues] = ((),),
        *,
        per_account: bool = True,
    ) -> None:
        self.name = name
        self._documentation = documentation
        self._bounds = list(buckets)
        self._labels = tuple(labels)
        self._values = [tuple(map(str, each)) for each in values]
        self._width = len(self._bounds) + 2  # one for what is above the last bound, one for the sum
        self._places = {each: place * self._width for place, each in enumerate(self._values)}
        self.rows = _Rows(self._width * len(self._values), per_account=per_account)

    def observe(self, account: str, *labels: str, value: float) -> None:
        """Count a value in."""
        row, place = self.rows.of(account), self._places[labels]
        row[place + bisect_left(self._bounds, value)] += 1
        row[place + self._width - 1] += value

    def family(self, *, by_account: bool) -> Metric:
        """Return the numbers as they stand."""
        named = by_account and self.rows.per_account
        found = HistogramMetricFamily(
            self.name, self._documentation, labels=["account", *self._labels] if named else self._labels
        )
        spelled = [*map(floatToGoString, self._bounds), "+Inf"]
        for account, row in self.rows.items(by_account=by_account):
            for values, place in self._places.items():
                counts = accumulate(row[place : place + self._width - 1])
                found.add_metric(
                    [*account, *values],
                    buckets=list(zip(spelled, counts, strict=True)),
                    sum_value=row[place + self._width - 1],
                )
        return found


class Gauge:
    """A family of gauges that is read, not kept: its numbers are handed over at each scrape."""

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str] = (), *, together: Together | None = None
    ) -> None:
        self.name = name
        self._documentation = documentation
        self._labels = tuple(labels)
        self._together = together

    def family(self, numbers: Numbers, *, by_account: bool) -> Metric:
        """Return a family of *numbers*; those of an account have its name as their first label value."""
        if self._together is None:
            return self._spelled(self._labels, numbers)
        if by_account:
            return self._spelled(("account", *self._labels), numbers)
        groups: dict[LabelValues, list[float]] = {}
        for (_, *values), number in numbers:
            groups.setdefault(tuple(values), []).append(number)
        return self._spelled(self._labels, ((values, self._together(group)) for values, group in groups.items()))

    def _spelled(self, labels: Sequence[str], numbers: Numbers) -> Metric:
        found = GaugeMetricFamily(self.name, self._documentation, labels=labels)
        for values, number in numbers:
            found.add_metric(values, number)
        return found
