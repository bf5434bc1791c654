"""Captures from S3 and rows to it, with moto's server."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import FileSystem
from storing import EXAMPLES, SECRET, begun

import synfin as package
from synfin.output.writer import Target

pytestmark = pytest.mark.slow  # moto comes with `make test-slow`
NAMES = ["01-unanswered.pcap", "04-refused.pcap"]


@pytest.fixture
def urls(s3):
    """Two examples, one of them compressed, in a folder of the bucket."""
    plain, packed = ((EXAMPLES / name).read_bytes() for name in NAMES)
    return [s3.put(f"caps/{NAMES[0]}", plain), s3.put(f"caps/{NAMES[1]}", gzip.compress(packed))]


def rows_of(*paths) -> list[dict]:
    rows = package.scan(list(paths)).to_pylist()
    return [row | {"first_file": row["first_file"].rpartition("/")[2]} for row in rows]


def test_the_same_rows_as_from_files(s3, urls):
    expected = rows_of(*(EXAMPLES / name for name in NAMES))
    assert len(expected) >= 2
    assert rows_of(f"s3://{s3.bucket}/caps/") == rows_of(*urls) == expected
    for url, name in zip(urls, NAMES, strict=True):
        assert package.read(url).num_rows == package.read(EXAMPLES / name).num_rows > 0


def test_rows_go_to_a_bucket(s3, urls, synfin):
    folder = f"s3://AKIA:{SECRET}@{s3.bucket}/new/rows"
    code, out, _ = synfin("track", f"s3://AKIA:{SECRET}@{s3.bucket}/caps", "-o", folder, "--json")
    summary = json.loads(out)
    assert code == 0
    parts = [f"new/rows/{table}/part-00000.parquet" for table in ("flows", "intervals")]
    assert summary["outputs"] == [f"s3://{s3.bucket}/{part}" for part in parts]
    assert [key for key in s3.names() if not key.endswith("/")] == [
        *(url.partition(f"{s3.bucket}/")[2] for url in urls),
        *parts,
    ]
    table = pq.read_table(pa.BufferReader(s3.get(parts[0])))
    assert table.num_rows == len(rows_of(*urls))
    metadata = pq.read_metadata(pa.BufferReader(s3.get(parts[0]))).metadata
    assert json.loads(metadata[b"inputs"]) == urls
    assert metadata[b"command"].decode() == f"synfin track s3://{s3.bucket}/caps -o s3://{s3.bucket}/new/rows --json"
    code, _, err = synfin("track", urls[0], "-o", folder)
    assert code == 2 and "already holds" in err
    code, _, _ = synfin("track", urls[0], "-o", folder, "--overwrite", "--format", "csv")
    assert code == 0 and all(key.endswith(("/", ".csv")) for key in s3.names() if key.startswith("new"))


@pytest.mark.parametrize("out", ["x.csv", "a/b/x.parquet", "rows/"])
def test_nothing_appears_after_an_abort(s3, aws, out):
    output = begun(Target.parse(f"s3://{s3.bucket}/{out}"))
    for file in output._files.values():
        file._sink.file.write(bytes(12_000_000))  # so that parts of an upload are sent
    assert s3.names() == [] and s3.uploads()
    output.abort()
    assert s3.names() == [] and s3.uploads() == []


def test_an_abort_spares_what_was_there(s3):
    s3.put("a/x.csv", b"old")
    begun(Target.parse(f"s3://{s3.bucket}/a/x.csv")).abort()
    assert [key for key in s3.names() if not key.endswith("/")] == ["a/x.csv"]
    assert s3.get("a/x.csv") == b"old"


def test_input_that_breaks_leaves_no_rows(s3, urls, synfin):
    s3.put("caps/04-refused.pcap", b"no capture at all")
    code, _, err = synfin("track", f"s3://{s3.bucket}/caps/04-refused.pcap", "-o", f"s3://{s3.bucket}/x.csv")
    assert code == 2 and "is not a capture" in err
    assert "x.csv" not in s3.names()


def test_what_is_not_there(s3, synfin):
    for arguments, code, expected in (
        (["s3://no-such-bucket/x"], 2, "s3://no-such-bucket/x: there is no bucket or folder no-such-bucket"),
        ([f"s3://{s3.bucket}/x"], 2, "no such file or folder"),
        ([EXAMPLES / NAMES[0], "-o", "s3://no-such-bucket/x.csv"], 1, "cannot write s3://no-such-bucket/x.csv: there is no such bucket"),
        ([f"s3://{s3.bucket}/x.csv", "-o", f"s3://k:{SECRET}@{s3.bucket}/x.csv"], 2, "both input and output"),
    ):  # fmt: skip
        left, out, err = synfin("track", *arguments)
        assert (left, out) == (code, "") and expected in err and len(err.splitlines()) == 1


def test_the_endpoint_may_stand_in_the_url(s3, urls, moto_port, monkeypatch, synfin):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    options = f"?scheme=http&endpoint_override=127.0.0.1:{moto_port}&region=us-east-1"
    code, out, _ = synfin("track", f"s3://{s3.bucket}/caps{options}", "-o", f"s3://{s3.bucket}/x.csv{options}")
    assert code == 0 and f"s3://{s3.bucket}/x.csv?scheme=http" in out
    assert "x.csv" in s3.names()


def test_a_large_file_comes_in_several_uploads_and_requests(s3, tmp_path):
    store, path = FileSystem.from_uri(f"s3://{s3.bucket}/big.pcap")
    from dialogue import write_pcap

    capture = write_pcap(
        tmp_path / "big.pcap", [(10**18 + n * 10**6, bytes(12) + b"\x08\x00" + bytes(1400)) for n in range(9000)]
    )
    with store.open_output_stream(path) as file:
        file.write(capture.read_bytes())
    scan = package.scan(f"s3://{s3.bucket}/big.pcap")
    list(scan)
    assert scan.stats["packets"] == 9000
