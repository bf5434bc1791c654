"""URLs taken apart, and what is said where they fail: in one line, and never a credential."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from storing import SECRET

from synfin.stores import StoreError, Url, located, shown, words


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://bucket/a/x.pcap", "s3://bucket/a/x.pcap"),
        (f"s3://AKIA:{SECRET}@bucket/a/x.pcap", "s3://bucket/a/x.pcap"),
        (f"s3://AKIA:a/{SECRET}@bucket/x.pcap", "s3://bucket/x.pcap"),
        ("s3://bucket/a@b/c:d@e.pcap", "s3://bucket/a@b/c:d@e.pcap"),
        (f"s3://b/x?region=eu-north-1&secret={SECRET}&scheme=http", "s3://b/x?region=eu-north-1&scheme=http"),
        (f"s3://b/x?endpoint_override=http://me:{SECRET}@host:1", "s3://b/x"),
        (
            f"abfs://box:{SECRET}@account.dfs.core.windows.net/x?account_key={SECRET}",
            "abfs://box@account.dfs.core.windows.net/x",
        ),
        ("hdfs://name:8020/a@b/x", "hdfs://name:8020/a@b/x"),
        (f"--output=s3://k:{SECRET}@b/x.csv", "--output=s3://b/x.csv"),
        ("host 10.0.0.1 or port 80", "host 10.0.0.1 or port 80"),
    ],
)
def test_what_is_shown_of_a_url(url, expected):
    assert shown(url) == expected


@pytest.mark.parametrize("name", ["-", "x.pcap", "/a/b", "s3:/b", "*.pcap", "a://b"])
def test_what_is_no_url_stays_as_it_is(name):
    assert located(name) is name


def test_a_file_url_is_a_path(tmp_path):
    assert located(f"file://{tmp_path}/a%20b.pcap") == f"{tmp_path}/a b.pcap"
    assert located(f"file://{tmp_path}/") == f"{tmp_path}/"
    assert not isinstance(located(f"file://{tmp_path}"), Url)


def test_credentials_reach_pyarrow_and_no_name():
    url = located(f"s3://AKIA:{SECRET}@bucket/a/x.pcap?region=eu-north-1")
    assert (url, url.path) == ("s3://bucket/a/x.pcap?region=eu-north-1", "bucket/a/x.pcap")
    assert SECRET in str(url.store.__reduce__())
    assert url.below("bucket/a/x.pcap/y") == "s3://bucket/a/x.pcap/y?region=eu-north-1"
    beside = url.beside(".y")
    assert (beside, beside.path) == ("s3://bucket/a/.y?region=eu-north-1", "bucket/a/.y")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nope://x/y", "opens no nope:// URLs; it takes s3://"),
        (f"s3://k:a/{SECRET}@bucket/x", "slashes in a password"),
        (f"s3://bucket/x?secret={SECRET}", "an option 'secret' that its store does not know"),
        ("file://elsewhere/x", "does not take the URL"),
    ],
)
def test_a_url_that_cannot_be_used_is_a_wrong_call(synfin, tmp_path, url, expected):
    with pytest.raises(StoreError) as refused:
        located(url)
    assert expected in str(refused.value) and SECRET not in str(refused.value)
    for arguments in ([url], [tmp_path, "-o", url]):
        code, out, err = synfin("track", *arguments)
        assert code == 2 and expected in err and not out and len(err.splitlines()) == 1


class _Refusing(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(403)
        self.end_headers()

    do_GET = do_PUT = do_POST = do_HEAD

    def log_message(self, *_):
        """Nothing on standard error."""


def test_a_store_that_refuses(synfin, aws, monkeypatch, tmp_path):
    with HTTPServer(("127.0.0.1", 0), _Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
            code, _, err = synfin("track", f"s3://AKIA:{SECRET}@bucket/x.pcap")
            assert code == 2 and "s3://bucket/x.pcap" in err and "refuses access" in err and "credentials" in err
            code, _, err = synfin("track", tmp_path, "-o", "s3://bucket/rows.csv")
            assert code == 1 and "cannot write s3://bucket/rows.csv: the store refuses access" in err
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow  # pyarrow tries again for some seconds
def test_a_store_that_is_not_there(synfin, aws, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    code, out, err = synfin("track", "s3://bucket/x.pcap")
    assert (
        code == 2
        and not out
        and "s3://bucket/x.pcap" in err
        and "cannot be reached (Failed to connect to 127.0.0.1:1" in err
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("When resolving region for bucket 'b': AWS Error NETWORK_CONNECTION during HeadBucket operation: curlCode: 6, Could not "
         "resolve hostname; Details: Could not resolve host: b.s3.mars-1.amazonaws.com", "reached (Could not resolve host: b.s3.mars-1"),
        ("Bucket 'b' not found", "no such bucket"),
        ("AWS Error UNKNOWN (HTTP status 301) during HeadObject operation: No response body.", "?region=REGION"),
        ("google::cloud::Status(UNAUTHENTICATED: no token", "refuses access (UNAUTHENTICATED)"),
        (f"first line of https://host/{SECRET}\nsecond", "first line of (URL)"),
    ],
)  # fmt: skip
def test_words_for_what_stores_say(text, expected):
    assert (
        expected in words(OSError(text)) and SECRET not in words(OSError(text)) and "second" not in words(OSError(text))
    )
