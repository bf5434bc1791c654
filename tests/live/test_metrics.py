"""The metrics of a live run: their declaration, and their values beside the slow tracker's rows."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import time
from collections import Counter

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from replayed import EXAMPLES, Counted, service, tap, worker

from rows import figures_by_service, slow
from synfin import schema
from synfin.settings import Settings
from synfin.sidecar.metrics import BOUNDS, METRICS, OUTCOME, SynfinCollector, service_name, view
from synfin.sidecar.snapshot import STUCK_SECONDS, ServiceSnapshot, alive, ready

DECLARED = [metric for metrics in METRICS.values() for metric in metrics]
SERVICES = [("10.20.0.80", 443), ("10.20.0.80", 7002), ("2001:db8::1", 80)]  # nobody talks to the last one
ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+|[0-9a-f]*:[0-9a-f]*:")


def text_of(snapshot: ServiceSnapshot, services=(), encode=generate_latest) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SynfinCollector(lambda: snapshot, services))
    return encode(registry).decode()


def values_of(snapshot: ServiceSnapshot, services=()) -> dict[tuple, float]:
    """Samples by name and labels (name, value, ...)."""
    found = {}
    for family in read_text(text_of(snapshot, services)):
        for sample in family.samples:
            key = (sample.name, *(part for pair in sorted(sample.labels.items()) for part in pair))
            assert key not in found
            found[key] = sample.value
    return found


@pytest.fixture(scope="module")
def full() -> ServiceSnapshot:
    """A run that has a value for every metric."""
    one = worker(EXAMPLES, settings=Settings(max_flows=100_000), services=SERVICES)
    return service(one, rows_written={"flows": 3}, files_written={"flows": 1}, rows_lost={"intervals": 2})


def test_declarations_keep_to_the_conventions():
    names = [metric.name for metric in DECLARED]
    assert len(names) == len(set(names)) > 40
    for metric in DECLARED:
        assert re.fullmatch(r"synfin_[a-z]+(_[a-z]+)*", metric.name)
        assert not metric.name.endswith(("_total", "_count", "_sum", "_bucket", "_info", "_created"))
        assert metric.kind in ("counter", "gauge", "histogram", "info")
        assert metric.help.endswith(".") and "\n" not in metric.help
        for label in metric.labels:
            assert label.name not in ("le", "quantile", "job", "instance")
            assert label.name in ("interface", "worker", "service") or label.values


def test_a_source_has_a_value_for_every_metric(full):
    found = {name for name, *_ in values_of(full, SERVICES)}
    for metric in DECLARED:
        name = metric.sample_name + ("_count" if metric.kind == "histogram" else "")
        assert name in found, metric


def test_closed_labels_have_all_their_values_from_the_start(full):
    for snapshot in (full, service(worker(EXAMPLES[:1]))):
        values = values_of(snapshot, SERVICES)
        for metric in DECLARED:
            label = metric.labels[-1] if metric.labels else None
            if label is None or label.values is None or metric.name.startswith("synfin_service"):
                continue
            told = {
                key[-1] if len(key) == 3 else dict(zip(key[1::2], key[2::2], strict=True))[label.name]
                for key in values
                if key[0] == metric.sample_name
            }
            assert told == set(label.values), metric
    states = {key[2] for key in values if key[0] == "synfin_ends"}
    assert states == set(schema.STATES) - {"CLOSED", "LISTEN"}


def test_counts_are_those_of_the_slow_trackers_rows(full):
    flows, intervals, result = slow(EXAMPLES)
    values = values_of(full)

    def total(column: str) -> int:
        return sum(row[column] for row in intervals)

    for name, column in {
        "synfin_syns": "syns", "synfin_syn_resends": "syn_resends", "synfin_synacks": "synacks",
        "synfin_record_packets": "packets", "synfin_ip_bytes": "ip_bytes",
        "synfin_retransmitted_segments": "retransmitted_segments",
    }.items():  # fmt: skip
        assert values[f"{name}_total",] == total(column) > 0, name
    for outcome, column in (("complete", "completed"), ("refused", "refused"), ("unanswered", "unanswered"),
                            ("half_open", "half_open_expired"), ("aborted", "aborted"), ("unreachable", "unreachable")):  # fmt: skip
        assert values["synfin_attempts_total", "outcome", outcome] == total(column)
    for end in ("fin", "rst"):
        assert values["synfin_connections_closed_total", "by", end] == total(f"closed_{end}") > 0
    for column, name, label in (
        ("close", "synfin_closes_total", "kind"),
        ("end_reason", "synfin_records_ended_total", "reason"),
    ):
        for kind, count in Counter(row[column] for row in flows if row[column]).items():
            assert values[name, label, kind] == count
    skipped = {key[2]: value for key, value in values.items() if key[0] == "synfin_skipped_packets_total" and value}
    assert values["synfin_packets_total",] == values["synfin_record_packets_total",] + sum(skipped.values())
    assert skipped == {name: count for name, count in result.skips.items() if count}


def test_gauges_are_those_of_the_slow_trackers_last_interval(full):
    values, last = values_of(full), slow(EXAMPLES)[1][-1]
    for state in schema.STATES[2:]:
        assert values["synfin_ends", "state", state] == last[state.lower().replace("-", "_")]
    assert values["synfin_connections",] == last["connections"] > 0
    for name in ("opening", "half_open", "half_closed", "midstream"):
        assert values[f"synfin_connections_{name}",] == last[name]


def test_buckets_hold_exactly_the_round_trips_up_to_their_bound(full):
    flows = slow(EXAMPLES)[0]
    sure = ("clean", "matched")
    server = [row["rtt_server_ns"] for row in flows if row["rtt_server_quality"] in sure]
    client = [row["rtt_client_ns"] for row in flows if row["rtt_client_quality"] in sure]
    whole = [
        row["rtt_handshake_ns"] for row in flows if {row["rtt_server_quality"], row["rtt_client_quality"]} <= set(sure)
    ]
    values = values_of(full)
    for which, samples in (("rtt_server", server), ("rtt_client", client), ("handshake", whole)):
        name = f"synfin_{which}_seconds"
        told = {float(key[2]): value for key, value in values.items() if key[0] == f"{name}_bucket"}
        assert told == {bound / 1e9: sum(value <= bound for value in samples) for bound in BOUNDS} | {
            float("inf"): len(samples)
        }
        assert values[f"{name}_count",] == len(samples) > 20
        assert values[f"{name}_sum",] == pytest.approx(sum(samples) / 1e9, rel=1e-12)


def test_a_bound_is_the_highest_value_of_a_bucket():
    for bound in BOUNDS:
        lower = 1 << (bound.bit_length() - 1)
        assert (bound + 1 - lower) % (lower // 64) == 0  # 64 parts of each power of two (SPEC 5)
    assert list(BOUNDS) == sorted(set(BOUNDS))


def test_workers_are_added_up_and_counters_of_the_host_are_not():
    settings = Settings()
    halves = EXAMPLES[::2], EXAMPLES[1::2]
    counted = dict(
        ring_packets=100, ring_drops=7, ring_freezes=2, interface_rx_dropped=11, interface_rx_missed=13, softnet=17
    )
    two = values_of(service(*(worker(part, number, tap(**counted), settings) for number, part in enumerate(halves))))
    each = [values_of(service(worker(part, 0, tap(**counted), settings))) for part in halves]
    same = ("interface_rx", "softnet", "interface_", "worker", "start_time", "build", "process")
    for key, value in two.items():
        if not key[0].startswith(tuple(f"synfin_{name}" for name in same)):
            assert value == pytest.approx(each[0][key] + each[1][key]), key
    assert two["synfin_ring_dropped_packets_total", "interface", "tap0"] == 14
    assert two["synfin_interface_rx_dropped_packets_total", "interface", "tap0"] == 11
    assert two["synfin_interface_rx_missed_packets_total", "interface", "tap0"] == 13
    assert two["synfin_softnet_dropped_packets_total",] == 17
    for number in range(2):
        assert two["synfin_worker_packets_total", "worker", str(number)] == each[number]["synfin_packets_total",]


def test_the_fields_of_losses_are_those_that_the_source_tells():
    losses = pytest.importorskip("synfin.sources.losses", reason="the source of losses is not there").Losses
    assert {field.name for field in dataclasses.fields(Counted)} <= {field.name for field in dataclasses.fields(losses)}


def test_link_types_that_are_not_decoded_share_one_label_value(full):
    one = full.workers[0]
    stats = {**one.stats, "skips": {"not_ip": 1, "link_type_147": 2, "link_type_9999": 3}}
    values = values_of(service(dataclasses.replace(one, stats=stats)))
    assert values["synfin_skipped_packets_total", "reason", "link_type"] == 5
    assert values["synfin_skipped_packets_total", "reason", "not_ip"] == 1
    assert not any("link_type_" in part for key in values for part in key)


def test_only_listed_services_and_no_client_have_addresses(full):
    values = values_of(full, SERVICES)
    named = {key[key.index("service") + 1] for key in values if "service" in key}
    assert named == {"10.20.0.80:443", "10.20.0.80:7002", "[2001:db8::1]:80"}
    spelled = re.findall(r"[0-9a-f.:\[\]]*(?:\d+\.\d+\.\d+\.\d+|::)[0-9a-f.:\[\]]*", text_of(full, SERVICES))
    assert set(spelled) == named, "of nobody else there is an address anywhere in the text"
    assert not ADDRESS.search(text_of(full))
    assert not any(key[0].startswith("synfin_service") for key in values_of(full))
    # Listed, and nobody counts by service: no values rather than zeros.
    nobody = service(dataclasses.replace(full.workers[0], services=None))
    assert not any(key[0].startswith("synfin_service") for key in values_of(nobody, SERVICES))


def test_figures_of_listed_services(full):
    """Those of the slow tracker's rows by service: gauges of the last interval, counts of all."""
    values = values_of(full, SERVICES)
    truth = figures_by_service(EXAMPLES)
    for listed in SERVICES:
        name, figures = service_name(listed), truth[listed]
        for state in schema.STATES[2:]:
            found = values["synfin_service_ends", "service", name, "state", state]
            assert found == figures[state.lower().replace("-", "_")], (name, state)
        for gauge in ("opening", "half_open", "half_closed"):
            assert values[f"synfin_service_connections_{gauge}", "service", name] == figures[gauge]
        assert values["synfin_service_connections", "service", name] == figures["connections"]
        for count in ("syns", "packets", "ip_bytes"):
            assert values[f"synfin_service_{count}_total", "service", name] == figures[count]
        for outcome, count in OUTCOME.values.items():
            assert values["synfin_service_attempts_total", "outcome", outcome, "service", name] == figures[count], outcome
    assert values["synfin_service_syns_total", "service", "10.20.0.80:443"] == 43
    assert values["synfin_service_connections", "service", "10.20.0.80:443"] == 9


def test_what_is_not_known_is_absent():
    values = values_of(service(worker(EXAMPLES[:1])))
    assert ("synfin_records_limit",) not in values  # no cap
    values = values_of(ServiceSnapshot())  # before the first packet and the first snapshot
    assert {name for name, *_ in values} <= {
        "synfin_output_rows_total", "synfin_output_files_total", "synfin_output_rows_lost_total", "synfin_output_failing",
        "synfin_start_time_seconds",
    }  # fmt: skip
    failing = values_of(ServiceSnapshot(output_error="No space left on device"))
    assert failing["synfin_output_failing",] == 1 and values["synfin_output_failing",] == 0


@pytest.mark.parametrize("kind", ["full", "empty"])
def test_both_formats_read_back_with_the_same_values(full, kind):
    snapshot = full if kind == "full" else ServiceSnapshot()
    plain = {(s.name, *sorted(s.labels.items())): s.value for f in read_text(text_of(snapshot)) for s in f.samples}
    modern = {
        (s.name, *sorted(s.labels.items())): s.value
        for f in read_openmetrics(text_of(snapshot, encode=openmetrics.generate_latest))
        for s in f.samples
    }
    age = "synfin_worker_snapshot_age_seconds"
    assert {k: v for k, v in plain.items() if k[0] != age} == {k: v for k, v in modern.items() if k[0] != age}


def test_units_are_told(full):
    text = text_of(full, encode=openmetrics.generate_latest)
    assert "# UNIT synfin_rtt_server_seconds seconds" in text and "# UNIT synfin_ip_bytes bytes" in text


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian package prometheus)")
@pytest.mark.parametrize("kind", ["full", "services", "empty"])
def test_promtool_finds_nothing_to_say(full, kind):
    text = text_of(ServiceSnapshot() if kind == "empty" else full, SERVICES if kind == "services" else ())
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    wrong = "# TYPE synfin_packets counter\nsynfin_packets 1\n"  # it does complain
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=wrong, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0


def test_a_scrape_asks_for_one_snapshot(full):
    asked = []

    def snapshot() -> ServiceSnapshot:
        asked.append(1)
        return full

    assert list(SynfinCollector(snapshot).collect())
    assert asked == [1]


def test_ages_are_those_of_the_snapshots(full):
    taken = full.workers[0].taken_monotonic
    assert view(full, now=taken + 2.5)["workers"]["age"] == {"0": 2.5}
    assert view(full, now=taken - 1)["workers"]["age"] == {"0": 0.0}


def test_a_run_is_alive_while_every_worker_speaks(full):
    other = dataclasses.replace(full.workers[0], worker=1)
    both, taken = service(full.workers[0], other), other.taken_monotonic
    assert alive(both, taken + STUCK_SECONDS) == (True, "alive")
    late = service(full.workers[0], dataclasses.replace(other, taken_monotonic=taken - 60))
    assert alive(late, taken + 1) == (False, "worker 1 has not moved for 61 s")
    assert ready(late, 2, taken + 1)[0] is False
    assert alive(ServiceSnapshot(), time.monotonic()) == (True, "starting")


def test_a_run_is_ready_when_it_tracks_and_writes(full):
    one, taken = full.workers[0], full.workers[0].taken_monotonic
    assert ready(full, 1, taken) == (True, "ready")
    assert ready(full, 3, taken) == (False, "2 of 3 workers have not begun")
    down = dataclasses.replace(one, interface_up={"tap0": False, "tap1": False})
    assert ready(service(down), 1, taken) == (False, "down: tap0, tap1")
    assert ready(service(dataclasses.replace(one, interface_up={"tap0": False, "tap1": True})), 1, taken)[0]
    assert ready(service(one, output_error="No space left on device"), 1, taken) == (False, "rows cannot be written")
