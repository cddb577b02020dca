from __future__ import annotations

import logging

import pytest

from server.registry import RoundReport
from shared import asking, records
from simulations.benchmarks.noop_server import Clock, adapter
from simulations.benchmarks.overhead import measure, no_op, timed
from simulations.harness import Config, run_in_process


def test_both_engines_have_a_figure_or_none() -> None:
    found = measure(platforms=3, rounds=2, ray=False)
    assert list(found) == ["in_process_s_per_round", "ray_s_per_round"]
    assert found["ray_s_per_round"] is None
    assert found["in_process_s_per_round"] is not None
    assert found["in_process_s_per_round"] > 0


def test_the_adapter_that_travels_has_one_mebibyte() -> None:
    assert records.size(asking.request(adapter())) == 2**20


def test_a_benchmark_leaves_the_logs_as_they_were(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "atoll"):
        measure(platforms=1, rounds=1, ray=False)
        assert logging.getLogger("atoll").level == logging.INFO


def test_what_is_timed_is_the_real_server_with_every_platform_in_every_round() -> None:
    class Book(Clock):
        def __init__(self) -> None:
            super().__init__()
            self.reports: list[RoundReport] = []

        def record(self, state: object, report: RoundReport) -> None:
            super().record(state, report)
            self.reports.append(report)

    book = Book()
    nodes: dict[str, Config] = {f"p{number}": {"partition-id": number} for number in range(3)}
    run_in_process(timed(book, 2), no_op(), run_config={}, nodes=nodes)
    assert [report.round for report in book.reports] == [0, 1, 2]
    for report in book.reports[1:]:
        assert report.replied == ("p0", "p1", "p2")
        assert (report.bytes_up, report.bytes_down) == (3 * 2**20, 6 * 2**20)
    assert book.seconds == [report.seconds for report in book.reports]
