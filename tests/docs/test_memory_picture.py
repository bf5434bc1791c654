"""The picture of a connection in memory: its offsets are computed from declarations, and the compiler must agree."""

import docs_memory
import pytest

from synfin._core.probe import layout


def test_every_struct_has_the_size_that_the_compiler_gives_it():
    computed = {name: struct.size for name, struct in docs_memory.structs().items()}
    compiled = layout()
    assert {"Flow", "Facts", "Copies", "Trouble", "Closing", "Vlans", "Tunnel"} <= computed.keys()
    assert {name: size for name, size in computed.items() if name in compiled} == {
        name: size for name, size in compiled.items() if name in computed
    }


def test_both_ends_lie_where_the_compiler_puts_them():
    (field,) = (field for field in docs_memory.structs()["Flow"].fields if field.name == "end[2]")
    begin, second = layout()["Flow.end"]
    assert (field.offset, field.size) == (begin, 2 * (second - begin))


def test_a_struct_that_is_compiled_otherwise_is_an_error(monkeypatch):
    monkeypatch.setattr(docs_memory, "layout", lambda: {**layout(), "Facts": layout()["Facts"] + 8})
    with pytest.raises(AssertionError, match="Facts"):
        docs_memory.figure()
