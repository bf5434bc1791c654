"""The core's rows against what the simulated ends of the traffic generator meant."""

import re
import shutil
import subprocess
from pathlib import Path

import compare
import pytest

ROOT = Path(__file__).parents[2]

#: Name of the case: the generator's options.
CASES = {
    "standard": "--packets 50000 --connections-open 400 --span 200",
    "churn": "--packets 20000 --connections-open 200 --span 150 --mix churn --ipv6-share 0.5",
    "flood": "--packets 10000 --connections-open 1000 --span 180 --mix flood",
    "longlived": "--packets 20000 --connections-open 1000 --span 20 --mix longlived",
    "burst": "--packets 20000 --connections-open 1000 --span 1 --payload full --snaplen 96",
    "hours": "--packets 5000 --connections-open 40 --span 30000 --ipv6-share 1",
    "no_payload": "--packets 5000 --connections-open 100 --span 100 --payload none",
    "rotated": "--packets 20000 --connections-open 200 --span 100 --files 7",
}


@pytest.fixture(scope="session")
def traffic(tmp_path_factory):
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    build = tmp_path_factory.mktemp("benchmarks")
    subprocess.run(
        ["make", "-C", ROOT / "benchmarks", f"BUILD={build}", build / "traffic"], check=True, capture_output=True
    )
    return build / "traffic"


def generate(traffic, folder, options):
    """Captures in order, the truth about flows, the truth about intervals."""
    truth, intervals = folder / "truth.tsv", folder / "intervals.tsv"
    command = [traffic, "-o", folder / "out.pcap", "--truth", truth, "--intervals", intervals, *options.split()]
    subprocess.run(command, check=True)
    return sorted(folder.glob("out*.pcap")), compare.load_truth(truth), compare.load_truth(intervals)


def check(truth, tables, captures):
    """Both tables against the truth about both."""
    for label, result in (
        ("flows", compare.compare_flows(truth[0], tables[0], [str(path) for path in captures])),
        ("intervals", compare.compare_intervals(truth[1], truth[0], tables[1])),
    ):
        assert result.rows > 0, label
        assert result.differences == 0, "\n".join([label, *result.lines])


@pytest.mark.parametrize("case", CASES)
def test_every_truth_is_met(traffic, tmp_path, case):
    captures, *truth = generate(traffic, tmp_path, CASES[case])
    check(truth, [compare.read_table(captures, table) for table in ("flows", "intervals")], captures)


def test_slow_tracker_meets_the_truth(traffic, tmp_path):
    pytest.importorskip("dpkt", reason="the slow tracker needs dpkt")
    captures, *truth = generate(traffic, tmp_path, "--packets 8000 --connections-open 100 --span 150")
    check(truth, compare.reference_tables(captures), captures)


#: Captures of a span port: name of the case -> the generator's options.
COPIES = {
    "standard": "--packets 50000 --connections-open 400 --span 200 --duplicates 0.5",
    "every packet, IPv6": "--packets 20000 --connections-open 200 --span 150 --mix churn --ipv6-share 1 --duplicates 1",
    "cut headers": "--packets 20000 --connections-open 1000 --span 1 --payload full --snaplen 96 --duplicates 0.7",
}


@pytest.mark.parametrize("case", COPIES)
def test_copies_are_counted(traffic, tmp_path, case):
    captures, *truth = generate(traffic, tmp_path, COPIES[case])
    assert compare.pc.sum(truth[1]["capture_duplicates"]).as_py() > 10_000
    check(truth, [compare.read_table(captures, table, "count") for table in ("flows", "intervals")], captures)


@pytest.mark.parametrize("case", COPIES)
def test_dropping_copies_leaves_the_capture_without_them(traffic, tmp_path, case):
    options, share = COPIES[case].rsplit(" --duplicates ", 1)
    tables = []
    for name, more in (("with", f" --duplicates {share}"), ("without", "")):
        (tmp_path / name).mkdir()
        captures, *_ = generate(traffic, tmp_path / name, options + more)
        flows, intervals = (compare.read_table(captures, table, "drop") for table in ("flows", "intervals"))
        plain = {column: compare.plain(flows[column]) for column in flows.column_names}
        flows = compare.pa.table(plain).sort_by("flow_id").drop_columns(["first_file", "first_packet"])
        tables.append((flows, intervals))
    assert tables[0][0].num_rows > 0
    assert tables[0][0].equals(tables[1][0])
    assert tables[0][1].equals(tables[1][1])


def test_slow_tracker_counts_copies(traffic, tmp_path):
    pytest.importorskip("dpkt", reason="the slow tracker needs dpkt")
    captures, *truth = generate(
        traffic, tmp_path, "--packets 5000 --connections-open 100 --span 100 --duplicates 0.6 --ipv6-share 0.5"
    )
    check(truth, compare.reference_tables(captures, "count"), captures)


def test_comparison_sees_a_difference(traffic, tmp_path):
    captures, flows, _ = generate(traffic, tmp_path, "--packets 2000 --connections-open 50")
    keyed = compare.sort_by(flows, compare.flow_keys(flows, None))
    column = flows.schema.get_field_index("syn_count")
    changed = keyed.set_column(column, "syn_count", compare.pc.add(keyed["syn_count"], 1)).slice(1)
    result = compare.differences(keyed, changed)
    assert result.differences == keyed.num_rows  # one row is missing, and the others differ in one column
    assert any(line.startswith("syn_count") for line in result.lines)
    assert len(captures) == 1


def test_same_seed_same_bytes(traffic, tmp_path):
    written = set()
    for seed in (7, 7, 8):
        subprocess.run([traffic, "-o", tmp_path / "out.pcap", "--seed", str(seed), "--packets", "3000"], check=True)
        written.add((tmp_path / "out.pcap").read_bytes())
    assert len(written) == 2


def test_floor_counts_the_same(traffic, tmp_path):
    subprocess.run(
        ["make", "-C", ROOT / "benchmarks", f"BUILD={traffic.parent}", traffic.parent / "floor"],
        check=True,
        capture_output=True,
    )
    captures, flows, _ = generate(
        traffic, tmp_path, "--packets 20000 --connections-open 20000 --ipv6-share 0.5 --mix longlived"
    )
    said = subprocess.run(
        [traffic.parent / "floor", captures[0], "4096"], check=True, capture_output=True, text=True
    ).stdout
    counts = [int(number) for number in re.findall(r"(\d+) (?:packets|tcp|flows|payload|syns)", said)]
    payload = sum(compare.pc.sum(flows[f"{end}_payload_bytes"]).as_py() for end in ("client", "server"))
    syns = sum(compare.pc.sum(flows[name]).as_py() for name in ("syn_count", "synack_count"))
    assert counts == [20000, 20000, flows.num_rows, payload, syns]


def test_mix_holds_every_outcome(traffic, tmp_path):
    _, flows, _ = generate(traffic, tmp_path, CASES["standard"])
    held = {
        name: set(flows[name].to_pylist())
        for name in ("handshake", "close", "closer", "end_reason", "rtt_server_quality")
    }
    assert held["handshake"] == {"complete", "refused", "unanswered", "half_open", "aborted", "pending"}
    assert held["close"] == {
        "fin_4way", "fin_3way", "fin_simultaneous", "half_closed", "fin_unanswered", "rst", "rst_after_fin", "open", None,
    }  # fmt: skip
    assert held["closer"] == {"client", "server", "both", None}
    assert held["end_reason"] == {"fin", "rst", "idle", "attempt_timeout", "reuse", "end_of_input"}
    assert held["rtt_server_quality"] == {"clean", "matched", "ambiguous", "none"}
    for name in (
        "retransmitted_segments",
        "out_of_order_segments",
        "missing_bytes",
        "keep_alives",
        "zero_windows",
        "duplicate_acks",
    ):
        for end in ("client", "server"):
            assert compare.pc.sum(flows[f"{end}_{name}"]).as_py() > 0, name
