"""Rows written to a store: a name appears when its file is complete, and after a failure nothing does."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from storing import TABLES, begun, written

from synfin.errors import ConfigError, ExportError
from synfin.output.arrow import Layout
from synfin.output.writer import Output, Target
from synfin.stores import Url


def names(memory) -> list[str]:
    """Files by name, those with hidden names as `.`."""
    return ["." if "/." in name else name for name in memory.files()]


def test_a_file_appears_only_when_complete(memory):
    url = memory.put("b/x.parquet", b"old")
    output = begun(Target.parse(url))
    assert names(memory) == [".", "b/x.parquet"] and output.names == ["mock://b/x.parquet"]
    with memory.store.open_input_file("b/x.parquet") as file:
        assert file.read() == b"old"
    output.commit({"complete": "true"})
    assert names(memory) == ["b/x.parquet"]
    assert pq.read_table("b/x.parquet", filesystem=memory.store).num_rows > 1


def test_abort_leaves_everything_as_it_was(memory):
    memory.put("b/x.csv", b"old")
    begun(Target.parse(memory.url("b/x.csv"))).abort()
    begun(Target.parse(memory.url("b/rows"))).abort()
    assert names(memory) == ["b/x.csv"]
    assert memory.store.get_file_info("b/rows").type.name == "NotFound"


def test_folder_append_and_overwrite(memory):
    memory.store.create_dir("b")
    rows = memory.url("b/rows")
    assert written(Target.parse(rows)).names == [f"mock://b/rows/{table}/part-00000.parquet" for table in TABLES]
    first = [f"b/rows/{table}/part-00000.parquet" for table in TABLES]
    assert names(memory) == first
    with pytest.raises(ConfigError, match="mock://b/rows already holds"):
        begun(Target.parse(rows))
    written(Target.parse(rows, append=True))
    assert names(memory) == sorted([*first, *(name.replace("00000", "00001") for name in first)])
    written(Target.parse(rows, overwrite=True, format="csv"))
    assert names(memory) == [name.replace("parquet", "csv") for name in first]


@pytest.mark.parametrize(
    ("path", "more", "expected"),
    [
        ("b/x.parquet", {}, (False, "parquet", ("flows",))),
        ("b/x.dat", {"format": "csv", "table": "intervals"}, (False, "csv", ("intervals",))),
        ("b/rows", {}, (True, "parquet", TABLES)),
        ("b/run.2024/", {}, (True, "parquet", TABLES)),
        ("b/old.csv", {}, (True, "parquet", TABLES)),
    ],
)
def test_target(memory, path, more, expected):
    memory.store.create_dir("b/old.csv")
    target = Target.parse(Url.of(f"mock://{path}", memory.store, path.rstrip("/")), **more)
    assert (target.folder, target.format, target.tables) == expected


def test_an_ending_that_names_no_format(memory):
    with pytest.raises(ConfigError, match="names no format"):
        Target.parse(memory.url("b/x.dat"))


class Failing:
    """A store one of whose calls fails."""

    def __init__(self, store, call: str, text: str):
        self._store, self._call, self._text = store, call, text

    def __getattr__(self, name):
        return self._fail if name == self._call else getattr(self._store, name)

    def _fail(self, *_, **options):
        raise OSError(self._text)


def test_a_name_that_cannot_be_given(memory):
    memory.store.create_dir("b")
    store = Failing(memory.store, "move", "AWS Error UNKNOWN (HTTP status 400): copy source is larger than allowed")
    output = begun(Target.parse(Url.of("mock://b/x.csv", store, "b/x.csv")))
    with pytest.raises(
        ExportError, match=r"mock://b/x\.csv: it cannot be moved .* larger than allowed; all rows are in mock://b/\.x"
    ):
        output.commit({})
    output.abort()
    assert names(memory) == ["."]  # complete, and told


def test_a_store_that_cannot_be_written(memory):
    store = Failing(
        memory.store, "open_output_stream", "AWS Error NO_SUCH_BUCKET during CreateMultipartUpload operation: The"
    )
    memory.store.create_dir("b")
    for path in ("b/x.csv", "b/rows"):
        with pytest.raises(ExportError, match=f"^cannot write mock://{path}.*there is no such bucket"):
            begun(Target.parse(Url.of(f"mock://{path}", store, path)))
    assert names(memory) == []


def test_a_file_url_is_written_as_a_file(tmp_path):
    written(Target.parse(f"file://{tmp_path}/a%20b.csv"))
    written(Target.parse(f"file://{tmp_path}/run.1/"))
    made = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert made == ["a b.csv", *(f"run.1/{table}/part-00000.parquet" for table in TABLES)]
    with pytest.raises(ExportError, match="create the folder first"):
        Output(Target.parse(f"file://{tmp_path}/missing/x.csv"), {"flows": Layout.choose("flows")})
