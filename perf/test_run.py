#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What perf/run does with figures, in TAP. Nothing is measured here."""
import io
import json
import os
import sys
import tempfile
import unittest
from unittest import mock

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(1, os.path.join(sys.path[0], "lab"))

from harness import compare, hugepages, iperf3, ports, report, ucx  # noqa: E402
from harness.programs import Failure  # noqa: E402
from suites import SUITES, tcp, verbs  # noqa: E402
import verbs_rows  # noqa: E402

UCX_OUTPUT = """\
[1700000000.000000] [host:1 :0]        perftest.c:900  UCX  WARN  CPU affinity is not set
     10000000      0.010     0.012     0.012      614.16     614.16    80499776    80499776
"""


def rounds(*ratios):
    return [{"sluice": ratio * 10, "reference": 10.0, "ratio": ratio, "core_to_core_ns": 50.0}
            for ratio in ratios]


class Ucx(unittest.TestCase):
    """Goal: a changed or failed ucx_perftest must not pass for a figure."""

    def test_final_line_is_read(self):
        self.assertEqual(ucx.parse(UCX_OUTPUT), (0.010, 80499776.0))

    def test_no_result_is_a_failure(self):
        for output in ("", "connect() failed: Connection refused\n", "1 2 3\n"):
            with self.assertRaises(Failure):
                ucx.parse(output)

    def test_listening_port_is_seen(self):
        with ports.socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            port = server.getsockname()[1]
            self.assertFalse(ports.listening(port))
            server.listen()
            self.assertTrue(ports.listening(port))


class Rows(unittest.TestCase):
    """Goal: the verdict is taken from medians, and a floor that is just reached holds."""

    def test_median_and_spread(self):
        row = report.row_of_rounds("r", "GB/s", rounds(0.9, 1.0, 1.2), "memcpy", 1.0)
        self.assertEqual((row.sluice, row.reference, row.ratio), (10.0, 10.0, 1.0))
        self.assertAlmostEqual(row.spread, 0.3)
        self.assertFalse(row.short)

    def test_below_the_floor_is_short(self):
        self.assertTrue(report.row_of_rounds("r", "ns", rounds(0.8, 0.9, 0.99), "x", 1.0).short)

    def test_columns_become_rounds(self):
        line = {"sluice": [1, 2], "reference": [3, 4], "ratio": [5, 6], "core_to_core_ns": [7, 8]}
        self.assertEqual(compare.rounds_of(line)[1],
                         {"sluice": 2, "reference": 4, "ratio": 6, "core_to_core_ns": 8})

    def test_what_a_program_could_not_measure_is_skipped(self):
        bench = mock.Mock()
        bench.lines.return_value = [{"name": "d", "skipped": "only root can be another user"}]
        row, = compare.rows_of(bench, "tcp", "sieges")
        self.assertEqual((row.name, row.skipped, row.short),
                         ("d", "only root can be another user", False))

    def test_foot_counts_each_row_once(self):
        stream = io.StringIO()
        rows = [report.row_of_rounds("a", "ns", rounds(1.0, 1.0, 1.0), "x", 1.0),
                report.row_of_rounds("b", "ns", rounds(0.5, 0.5, 0.5), "x", 1.0),
                report.row_of_limit("c", "GB/s", [1.0], "memcpy", 50.0),
                report.row_skipped("d", "no ucx_perftest")]
        self.assertEqual(report.Table(stream).foot(rows), 1)
        self.assertEqual(stream.getvalue(), "# 1 rows hold their floor, 1 fall short (marked <), "
                                            "1 limits of the machine, 1 skipped\n")

    def test_json_has_the_agreed_keys(self):
        rows = [report.row_of_rounds("a", "ns", rounds(1.0, 1.0, 1.0), "x", 1.0),
                report.row_skipped("d", "no ucx_perftest")]
        with tempfile.NamedTemporaryFile("r", encoding="utf-8") as file:
            report.write_json(file.name, rows)
            written = json.load(file)
        self.assertEqual([list(row) for row in written],
                         [["name", "unit", "sluice", "reference", "reference_name", "ratio",
                           "floor", "spread", "core_to_core_ns"]])


class Comparisons(unittest.TestCase):
    """Goal: a round in which the cores moved is measured again, and not for ever."""

    def sides(self, unit, sluice, reference):
        return compare.Sides("row", unit, 1.0, "other", sluice, reference)

    def compare(self, probes):
        bench = mock.Mock(rounds=3, pairs=1)
        bench.core_to_core_ns.side_effect = probes
        sluice = mock.Mock(return_value=2.0)
        row = compare.compare(bench, self.sides("M/s", sluice, lambda: 1.0))
        return row, sluice.call_count

    def test_still_cores(self):
        row, measured = self.compare([50.0] * 4)
        self.assertEqual((row.ratio, row.core_to_core_ns, measured), (2.0, 50.0, 3))

    def test_moved_cores(self):
        row, measured = self.compare([50.0, 200.0, 200.0, 200.0, 200.0])
        self.assertEqual((row.core_to_core_ns, measured), (200.0, 4))

    def test_restless_cores(self):
        probes = [50.0] + [200.0, 50.0] * (3 * compare.ATTEMPTS_MAX // 2)
        self.assertEqual(self.compare(probes)[1], 3 * compare.ATTEMPTS_MAX)

    def test_latency_ratio_is_turned_round(self):
        for unit in ("ns", "us"):
            sides = self.sides(unit, lambda: 50.0, lambda: 100.0)
            self.assertEqual(compare.measure_pair(sides, True)["ratio"], 2.0)

    def test_round_is_the_median_of_its_pairs(self):
        sides = self.sides("M/s", mock.Mock(side_effect=[1.0, 9.0, 2.0]), lambda: 1.0)
        each = compare.measure_round(mock.Mock(pairs=3), sides)
        self.assertEqual(each["ratio"], 2.0)


def intervals(*gigabytes):
    return json.dumps({"intervals": [{"sum": {"seconds": 0.5, "bytes": each * 1e9}}
                                     for each in gigabytes]})


class Iperf3(unittest.TestCase):
    """Goal: a failed iperf3 must not pass for a figure, nor its warm-up for its rate."""

    def test_warm_up_is_left_out(self):
        self.assertEqual(iperf3.parse(intervals(0, 0, 0, 1, 2)), 3.0)

    def test_no_result_is_a_failure(self):
        for output in ("", "{", '{"error": "unable to connect"}', intervals(1, 1, 1)):
            with self.assertRaises(Failure):
                iperf3.parse(output)

    def test_the_faster_way_is_the_reference(self):
        for slow, fast in (iperf3.ways(2), reversed(iperf3.ways(2))):
            with mock.patch.object(iperf3, "rate", side_effect=lambda _, way, *__, fast=fast:
                                   2.0 if way == fast else 1.0):
                self.assertEqual(iperf3.fastest(["0", "1"], 2, 65536, False), fast)

    def test_one_stream_has_one_way(self):
        self.assertEqual(iperf3.fastest(["0", "1"], 1, 65536, False), iperf3.Way(1, 1))


class Tls(unittest.TestCase):
    """Goal: the limit is made of what was measured in the same run, and says of what."""

    def test_cipher_and_plain_follow_one_another(self):
        bench = mock.Mock()
        bench.lines.side_effect = lambda *_, **__: [{"name": "CIPHER", "value": 6.0}]
        bench.value.return_value = 3.0
        limit = tcp.TlsLimit(bench, "write 1M, 1 stream")
        self.assertAlmostEqual(limit.rate(), 2.0)
        self.assertEqual(limit.note(), "CIPHER 6.0 GB/s on one core, plain 3.0")


PERFTEST_OUTPUT = """\
 #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]
 65536      1800             60.00              57.60              0.000922
"""


class Verbs(unittest.TestCase):
    """Goal: a failed perftest must not pass for a figure; the best way to use it is the reference."""

    def test_line_of_the_size_is_read(self):
        self.assertEqual(verbs_rows.table_line(PERFTEST_OUTPUT, 65536)[3], 57.6)

    def test_no_result_is_a_failure(self):
        for output in ("", "Couldn't connect to 10.77.0.1:18515\n", PERFTEST_OUTPUT):
            with self.assertRaises(verbs_rows.Failure):
                verbs_rows.table_line(output, 64)

    def measure(self, unit, sluice, **references):
        row = verbs_rows.Row("row", unit, 1.0, lambda _: sluice,
                             {name: lambda _, value=value: value
                              for name, value in references.items()})
        return verbs_rows.measure(mock.Mock(arguments=mock.Mock(rounds=3)), row)

    def test_the_best_reference_is_taken(self):
        for unit, name, ratio in (("K/s", "high", 0.5), ("us", "low", 0.2)):
            line = self.measure(unit, 5.0, low=1.0, high=10.0)
            self.assertEqual((line["reference_name"], line["ratio"]), (name, [ratio] * 3))

    def test_a_line_becomes_a_row(self):
        row = verbs.row_of(self.measure("MB/s", 4.0, other=5.0))
        self.assertEqual((row.sluice, row.reference, row.core_to_core_ns, row.short),
                         (4.0, 5.0, None, True))


class Hugepages(unittest.TestCase):
    """Goal: what was reserved is given back, also when the run fails."""

    def reserve(self, counts):
        totals, said = [], []
        with mock.patch.object(hugepages, "counts", side_effect=counts), \
                mock.patch.object(hugepages, "set_total", side_effect=totals.append):
            with self.assertRaises(Failure), hugepages.reserved(100, said.append):
                raise Failure
        return totals, said

    def test_enough_are_free(self):
        self.assertEqual(self.reserve([(120, 110)]), ([], []))

    def test_missing_ones_are_reserved_and_given_back(self):
        totals, said = self.reserve([(50, 20), (130, 100)])
        self.assertEqual(totals, [130, 50])
        self.assertEqual(len(said), 1)

    def test_too_few_is_said(self):
        totals, said = self.reserve([(50, 20), (60, 30)])
        self.assertEqual(totals, [130, 50])
        self.assertIn("only 30 of 100", said[0])


class TapResult(unittest.TestResult):
    """Prints a line of TAP for each test."""

    def startTest(self, test):
        super().startTest(test)
        self.bad = False

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.bad = True

    def addError(self, test, err):
        super().addError(test, err)
        self.bad = True

    def stopTest(self, test):
        super().stopTest(test)
        print(f"{'not ok' if self.bad else 'ok'} {self.testsRun} - {test.id()}")


def main():
    tests = unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__])
    print(f"1..{tests.countTestCases()}")
    result = TapResult()
    tests.run(result)
    for _, text in result.failures + result.errors:
        print(text, file=sys.stderr)
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
