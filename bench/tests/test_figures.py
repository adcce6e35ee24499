"""From what programs print to medians, ratios, tables and the picture."""

from __future__ import annotations

import unittest
import xml.etree.ElementTree as ElementTree
from typing import Any

from bench import plot, table, usage
from bench.figures import FIGURES
from bench.measure import listening, prefix, transfer
from bench.peers.rnet import offers
from bench.process import Failed, last_line
from bench.progress import Progress, span
from bench.rows import QUICK, REFERENCES, ROWS, chosen
from bench.summary import Spread, summary


def run(row: str, number: int, errors: dict[str, str] | None = None, underlay: str = "veth", **figures: float) -> dict[str, Any]:
    notes = {"others_busy_cpus": 0.02}
    return {"row": row, "underlay": underlay, "round": number, "figures": figures, "notes": notes, "errors": errors or {}}


def results(*runs: dict[str, Any], quick: bool = False, paced: bool = False) -> dict[str, Any]:
    return {
        "date": "2026-01-02",
        "quick": quick,
        "paced": paced,
        "rounds": max(one["round"] for one in runs),
        "machine": {"cpu": "Some <CPU> & more", "cpus": 2, "kernel": "Linux 6.1"},
        "versions": {"rnet": "rnet 0.1.0"},
        "skipped": {"nebula": "no nebula here: apt-get install nebula"},
        "summary": summary(runs),
        "runs": runs,
    }


class Iperf(unittest.TestCase):
    def test_rate_is_the_receivers(self) -> None:
        told = transfer(
            '{"end": {"sum_sent": {"bits_per_second": 9e9, "retransmits": 3}, "sum_received": {"bits_per_second": 8e9}}}'
        )
        self.assertEqual((told.gigabits, told.retransmits), (8.0, 3))

    def test_what_is_no_result_says_why(self) -> None:
        for text, why in (
            ('{"start": {}, "end": {}, "error": "unable to connect: Connection refused"}', "unable to connect"),
            ('{"end": {}}', "no result"),
            ('{"end": {"sum_received": {"bits_per_second": 0}, "sum_sent": {}}}', "nothing"),
            ("", "no JSON"),
        ):
            with self.assertRaisesRegex(Failed, why):
                transfer(text)

    def test_the_most_specific_route_is_told_by_its_prefix(self) -> None:
        routes = ["default via 10.0.0.1 dev eth0", "10.2.0.0/16 dev a scope link", "10.2.1.2 dev c", "10.2.1.0/24 dev b"]
        self.assertEqual([prefix(route) for route in routes], [0, 16, 32, 24])

    def test_listening_port_is_told_from_a_connected_one(self) -> None:
        head = "  sl  local_address rem_address   st tx_queue\n"
        listens = "   0: 00000000:1451 00000000:0000 0A 00000000:00000000\n"
        connected = "   1: 0100007F:1451 0100007F:8000 01 00000000:00000000\n"
        self.assertTrue(listening(head + connected + listens, 5201))
        self.assertFalse(listening(head + connected, 5201))
        self.assertFalse(listening(head + listens, 5202))


class Medians(unittest.TestCase):
    def test_spread_is_median_and_range(self) -> None:
        self.assertEqual(Spread.of([3.0, 9.0, 4.0]), Spread(4.0, 3.0, 9.0, 3))
        self.assertEqual(Spread.of([3.0, 4.0]), Spread(3.5, 3.0, 4.0, 2))
        self.assertIsNone(Spread.of([]))

    def test_ratios_compare_within_a_round_and_an_underlay(self) -> None:
        # The machine is half as fast in the second round: the ratio stays.
        runs = [run("kvxlan", 1, tcp1=16), run("rnet", 1, tcp1=8), run("kvxlan", 2, tcp1=8), run("rnet", 2, tcp1=4)]
        runs += [run("kvxlan", 1, underlay="wire", tcp1=10), run("rnet", 1, underlay="wire", tcp1=6)]
        seen = summary(runs)
        self.assertEqual(seen["veth"]["rnet"]["figures"]["tcp1"]["vs"], {"kvxlan": 0.5})
        self.assertEqual(seen["wire"]["rnet"]["figures"]["tcp1"]["vs"], {"kvxlan": 0.6})
        self.assertEqual(seen["veth"]["rnet"]["figures"]["tcp1"]["median"], 6)

    def test_round_that_failed_is_told_and_does_not_count(self) -> None:
        runs = [
            run("kvxlan", 1, tcp1=16),
            run("rnet", 1, {"start": "no ping"}),
            run("kvxlan", 2, tcp1=16),
            run("rnet", 2, tcp1=4),
        ]
        row = summary(runs)["veth"]["rnet"]
        self.assertEqual((row["rounds"], row["failed"], row["errors"]), (2, 1, ["start: no ping"]))
        self.assertEqual((row["figures"]["tcp1"]["count"], row["figures"]["tcp1"]["vs"]["kvxlan"]), (1, 0.25))

    def test_no_ratio_to_a_zero(self) -> None:
        runs = [run("kvxlan", 1, tcp1_daemons=0.0), run("rnet", 1, tcp1_daemons=1.0)]
        self.assertEqual(summary(runs)["veth"]["rnet"]["figures"]["tcp1_daemons"]["vs"], {})


class Tables(unittest.TestCase):
    def test_digits_that_count_are_shown(self) -> None:
        self.assertEqual([table.number(value, 2) for value in (7.694, 0.004, 0.0, 12.0)], ["7.69", "0.004", "0", "12.00"])
        self.assertEqual([table.times(value) for value in (0.466, 1.02, 5.35, 26.2)], ["0.47", "1.02", "5.3", "26"])

    def test_every_row_is_a_line_and_failures_say_why(self) -> None:
        told = results(run("kvxlan", 1, tcp1=16), run("rnet", 1, {"start": "odd | sign <b>"}))
        page = table.full(told)
        self.assertIn("| kernel VXLAN | 16.00 |", page)
        self.assertIn("| **rnet, encrypted** | – |", page)
        self.assertIn("- rnet, encrypted: start: odd \\| sign &lt;b>", page)
        self.assertIn("- nebula: no nebula here", page)
        widths = {line.count(" | ") for line in table.table(told["summary"]["veth"], table.SHORT).splitlines()}
        self.assertEqual(len(widths), 1)

    def test_range_is_shown_of_several_rounds(self) -> None:
        told = results(run("kvxlan", 1, tcp1=16), run("kvxlan", 2, tcp1=17))
        self.assertIn("16.50 (16.00–17.00)", table.short(told))

    def test_doubtful_results_say_so(self) -> None:
        one = run("kvxlan", 1, tcp1=16)
        self.assertNotIn("**", table.about(results(one)))
        self.assertIn("quick run", table.about(results(one, quick=True)))
        self.assertIn("paced", table.about(results(one, paced=True)))
        self.assertNotIn("paced", table.about(results(one)))
        self.assertIn("1.9 processors", table.about(results(one | {"notes": {"others_busy_cpus": 1.9}})))

    def test_page_is_rewritten_between_its_markers_only(self) -> None:
        page = f"head\n{table.BEGIN}\nold\n{table.END}\ntail\n"
        new = table.between_markers(page, "new\n")
        self.assertEqual(new, f"head\n{table.BEGIN}\nnew\n{table.END}\ntail\n")
        self.assertEqual(table.between_markers(new, "new"), new)
        for bad in ("", table.BEGIN, f"{table.END}{table.BEGIN}", page + table.END):
            with self.assertRaises(ValueError):
                table.between_markers(bad, "new")


class Picture(unittest.TestCase):
    def texts(self, told: dict[str, Any]) -> list[str]:
        return [node.text or "" for node in ElementTree.fromstring(plot.svg(told)).iter("{http://www.w3.org/2000/svg}text")]

    def test_signs_of_xml_are_escaped(self) -> None:
        self.assertTrue(any("Some <CPU> & more" in text for text in self.texts(results(run("kvxlan", 1, tcp1=16)))))

    def test_bars_have_units_values_and_ratios(self) -> None:
        texts = self.texts(results(run("kvxlan", 1, tcp1=16.0), run("wireguard-go", 1, tcp1=4.0), run("rnet", 1, tcp1=8.0)))
        self.assertIn("TCP, 1 stream, Gbit/s", texts)
        self.assertIn("8.00 · 0.50× VXLAN · 2.00× wg-go", texts)
        self.assertIn("16.00 · 4.0× wg-go", texts)

    def test_row_without_a_figure_says_so(self) -> None:
        told = results(run("rnet", 1, {"start": "no"}), run("kvxlan", 1, underlay="wire", tcp1=1.0))
        texts = self.texts(told)
        self.assertIn("failed", texts)
        self.assertIn("not measured", texts)

    def test_nothing_is_drawn_outside(self) -> None:
        figures = {figure.key: 123.456 for figure in FIGURES}
        runs = [
            run(row.name, number, {}, underlay, **figures) for row in ROWS for underlay in ("veth", "wire") for number in (1, 2)
        ]
        image = ElementTree.fromstring(plot.svg(results(*runs)))
        width, height = float(image.attrib["width"]), float(image.attrib["height"])
        for node in image.iter():
            if "x" in node.attrib and "y" in node.attrib:
                # 11 pixels high, at most 6 wide.
                right = float(node.attrib["x"]) + len(node.text or "") * (0 if node.attrib.get("class") == "end" else 5.8)
                self.assertTrue(float(node.attrib["x"]) >= 0 and right <= width and float(node.attrib["y"]) <= height, node.text)


class Reading(unittest.TestCase):
    def test_busy_time_is_neither_idle_nor_stolen(self) -> None:
        ticks = usage.TICKS
        stat = f"cpu  {ticks} 0 {2 * ticks} {50 * ticks} {9 * ticks} {ticks} {ticks} {4 * ticks} 0 0\ncpu0 1 2 3\n"
        self.assertEqual(usage.machine_seconds(stat), (5.0, 4.0))

    def test_load_is_processors_on_average(self) -> None:
        load = usage.between(usage.Moment(10, 1, 5, 0), usage.Moment(12, 2, 8, 1))
        self.assertEqual((load.daemons, load.machine, load.stolen), (0.5, 1.5, 0.5))

    def test_help_tells_which_framings_a_build_has(self) -> None:
        text = "      --framing <F>   How: udp\n              or vxlan [default: udp]\n      --mtu <M>  kernel\n  -h, --help  x\n"
        self.assertTrue(offers(text, "--framing", "vxlan"))
        self.assertFalse(offers(text, "--framing", "kernel"))
        self.assertFalse(offers("      --mtu <M>  vxlan\n", "--framing", "vxlan"))

    def test_last_line_is_the_last_that_says_something(self) -> None:
        self.assertEqual(last_line("one\n two \n\n"), "two")
        self.assertEqual(last_line("\n"), "")


class Lists(unittest.TestCase):
    def test_rows_have_names_of_their_own(self) -> None:
        self.assertEqual(len({row.name for row in ROWS}), len(ROWS))
        for name in (*QUICK, *REFERENCES):
            self.assertEqual([row.name for row in chosen([name])], [name])

    def test_unknown_row_is_refused_with_those_there_are(self) -> None:
        with self.assertRaisesRegex(ValueError, "no row nosuch; there are veth, "):
            chosen(["rnet", "nosuch"])

    def test_plot_and_references_name_figures_and_rows(self) -> None:
        self.assertLessEqual(set(plot.PLOTTED), {figure.key for figure in FIGURES})

    def test_time_left_falls_to_nothing(self) -> None:
        progress = Progress(2, 30)
        self.assertEqual((round(progress.left()), span(29), span(600)), (60, "29 s", "10 min"))
        progress.done = 2
        self.assertEqual(progress.left(), 0)


if __name__ == "__main__":
    unittest.main()
