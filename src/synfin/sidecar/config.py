"""What can be set about a live run, declared once: each field is an option of `synfin live` and a key of its TOML file."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from synfin.errors import ConfigError
from synfin.schema import TABLES
from synfin.settings import FROM_TEXT, MAX_DURATION_NS, NS_PER_S, Settings, parse_duration, parse_ports, parse_size

FORMATS = ("arrow", "csv", "jsonl", "parquet")
_LOOPBACK = "127.0.0.1"
MOST_SERVICES = 1000  # listed for metrics: each has some twenty series


@dataclass(frozen=True)
class Kind:
    """What values an option takes.

    Parameters
    ----------
    name : what a message calls one.
    types : what the file may hold.
    parse : the value of what stands there; raises ConfigError. None where it is the value.
    least, most : bounds of a number.
    choices : the texts that there are.
    """

    name: str
    types: tuple[type, ...]
    parse: Callable[[Any], Any] | None = None
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()

    def value(self, given: Any) -> Any:
        """The value that the file's means. Raises ConfigError, which says what is expected."""
        if type(given) not in self.types:
            raise ConfigError(f"must be {self.name}, not {_toml(given)}")
        if self.choices and given not in self.choices:
            raise ConfigError(f"must be one of {', '.join(self.choices)}, not {given!r}")
        if self.least is not None and not self.least <= given <= (self.most or given):
            upper = "" if self.most is None else f" and at most {self.most:g}"
            raise ConfigError(f"must be at least {self.least:g}{upper}, not {given:g}")
        return given if self.parse is None else self.parse(given)


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _setting_duration(given: str | int) -> int:
    return given * NS_PER_S if isinstance(given, int) else parse_duration(given)


def _duration(given: str | int) -> int:
    ns = _setting_duration(given)
    if not 0 < ns <= MAX_DURATION_NS:
        raise ConfigError("must be longer than 0 and at most 366d")
    return ns


def _size(given: str | int) -> int:
    return given if isinstance(given, int) else parse_size(given)


def parse_keep(text: str) -> tuple[str, int]:
    """How long, or how much, output is kept: ("ns", nanoseconds) of ``7d``, ("bytes", bytes) of ``10G``.

    Raises ConfigError when the text is neither.
    """
    if not re.fullmatch(r"[\d.]+", text):
        for unit, parse in (("ns", parse_duration), ("bytes", parse_size)):
            try:
                bound = parse(text)
            except ConfigError:
                continue
            if bound == 0:
                raise ConfigError("nothing can be kept for no time or in no space; write it like 7d or 10G")
            return unit, bound
    raise ConfigError(f"{text!r} is neither an age such as 7d nor a size such as 10G")


def parse_address(text: str | int) -> tuple[str, int]:
    """Host and port of ``[HOST:]PORT``; the host is the loopback address where none is named, and empty for ``*``, which is
    every interface. Raises ConfigError.
    """
    match = re.fullmatch(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]:|(?P<host>[^:\s\[\]]+):)?(?P<port>\d{1,5})", str(text))
    if match is None or not 0 <= int(match["port"]) <= 65535:
        raise ConfigError(f"{str(text)!r} is no port or HOST:PORT; write it like 9108, 0.0.0.0:9108 or [::1]:9108")
    host = match["v6"] or match["host"] or _LOOPBACK
    return "" if host == "*" else host, int(match["port"])


def parse_service(text: str) -> tuple[str, int]:
    """Address and port of ``192.0.2.1:443`` or ``[2001:db8::1]:443``, the address as rows and metrics spell it.

    Raises ConfigError.
    """
    match = re.fullmatch(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<v4>[\d.]+)):(?P<port>\d{1,5})", text)
    try:
        address = (IPv6Address if match["v6"] else IPv4Address)(match["v6"] or match["v4"]) if match else None
    except ValueError:
        address = None
    if address is None or int(match["port"]) > 65535:
        raise ConfigError(f"{text!r} is no service; write it like 192.0.2.1:443 or [2001:db8::1]:443")
    return str(address), int(match["port"])


def _key(given: str | list) -> tuple[str, ...]:
    parts = given if isinstance(given, list) else given.split(",")
    return tuple(filter(None, (str(part).strip() for part in parts)))


def _names(given: str | list) -> str:
    return ",".join(map(str, given)) if isinstance(given, list) else given


TEXT = Kind("a text", (str,))
NAMES = Kind("a text, names separated by commas, or a list of names", (str, list), _names)
FLAG = Kind("true or false", (bool,))
DURATION = Kind("a duration such as 75s, 5m or 500ms", (str, int), _duration)
SIZE = Kind("a size such as 512M or 2G", (str, int), _size)
KEEP = Kind("an age such as 7d or a size such as 10G", (str,), parse_keep)
ADDRESS = Kind("a port or HOST:PORT", (str, int), parse_address)
SERVICE = Kind("a service such as 192.0.2.1:443", (str,), parse_service)


def number(least: int, most: int | None = None) -> Kind:
    """A whole number between two bounds."""
    return Kind("a whole number", (int,), least=least, most=most)


def choice(*choices: str) -> Kind:
    """One of these texts."""
    return Kind("a text", (str,), choices=choices)


@dataclass(frozen=True)
class Option:
    """One option.

    Parameters
    ----------
    kind, help : what it takes and does.
    metavar : what the help calls its value; empty for a flag.
    names : on the command line, where they are not the key with two dashes before it.
    key : in the file, where it is not the field's name with dashes.
    several : may be given several times; in the file a list, or a single value.
    reloadable : SIGHUP brings a changed value into force.
    """

    kind: Kind
    help: str
    metavar: str = ""
    names: tuple[str, ...] = ()
    key: str | None = None
    several: bool = False
    reloadable: bool = False


def _option(default: Any, kind: Kind, help: str, metavar: str = "", *names: str, **rest: Any) -> Any:
    return field(default=default, metadata={"option": Option(kind, help, metavar, names, **rest)})


@dataclass(frozen=True)
class LiveConfig:
    """A live run: where packets come from, where rows go, and what is told about it. Durations are nanoseconds.

    Raises
    ------
    ConfigError : options that exclude each other.
    """

    interfaces: tuple[str, ...] = ()
    settings: Settings = field(default_factory=Settings)

    seconds: float | None = _option(None, Kind("a number of seconds", (int, float), least=1e-3, most=MAX_DURATION_NS // NS_PER_S), "End after N seconds.  [default: run until Ctrl-C or SIGTERM]", "N")
    workers: int = _option(1, number(1, 64), "Track on N cores, each with a ring of its own; both directions of a connection reach one of them.  [default: 1]", "N")
    ring: int = _option(64, number(2, 65536), "Kernel memory for packets that wait to be tracked, for each interface and worker.  [default: 64]", "MIB")
    block: int = _option(1024, number(4, 65536), "The ring's memory is handed over in blocks of this size, a power of two.  [default: 1024]", "KIB")
    block_timeout: int = _option(20_000_000, DURATION, "A block that is not full is handed over after so long.  [default: 20ms]", "TIME")
    snaplen: int | None = _option(None, number(1, 262_144), "Let so many bytes of each packet into the ring.  [default: 512; all with --checksum verify]", "BYTES")
    filter: str | None = _option(None, TEXT, "Let only packets into the ring that match a filter expression as tcpdump takes it, or a program as `tcpdump -ddd` prints it; the others are not counted.", "EXPR")
    promiscuous: bool = _option(True, FLAG, "Also see packets that are for others.  [default: promiscuous]", "", "--promiscuous/--no-promiscuous")
    timestamps: str = _option("auto", choice("auto", "hardware", "software"), "Whose clock stamps packets: the card's, the system's, or the card's where it does already and agrees with the system's.  [default: auto]")

    out: str | None = _option(None, TEXT, "Where rows go: a folder, in which files are complete under their names and follow each other (--roll); a file (the ending names the format), the URL of either, or - for standard output. Without it: the summary alone.", "OUT", "-o", "--output", key="output")
    format: str | None = _option(None, choice(*FORMATS), "Format of the rows.  [default: by ending; parquet in a folder; arrow to -]")
    table: str | None = _option(None, choice(*TABLES), "The table that a file holds; in a folder, only this one.  [default: flows; all in a folder]")
    append: bool = _option(False, FLAG, "Add part files to a folder of another format, or in a store, that holds rows of earlier runs; elsewhere a folder is always added to.")
    overwrite: bool = _option(False, FLAG, "Replace what earlier runs left in such a folder, once this run has ended.")
    names: str | None = _option(None, NAMES, "Columns to write, in this order, separated by commas; +NAMES adds to the default ones. `synfin columns` lists all.  [default: all but the optional ones, marked (o)]", "NAMES", "--columns", key="columns")
    profile: str = _option("native", choice("native", "lakehouse"), "lakehouse: microsecond instants beside NAME_ns integers, plain strings, for Spark, Delta and Iceberg.  [default: native]")
    roll: int = _option(300 * NS_PER_S, DURATION, "Begin new files in the folder after so long.  [default: 5m]", "TIME", reloadable=True)
    roll_rows: int = _option(10_000_000, number(1, 1 << 62), "And after so many rows.  [default: 10000000]", "ROWS", reloadable=True)
    interim: int | None = _option(None, DURATION, "Write connections older than this as they stand, again and again, into the table `interim` of the folder.  [default: never]", "TIME", reloadable=True)
    keep: tuple[tuple[str, int], ...] = _option((), KEEP, "Remove files from the folder that are older (7d) or the oldest beyond a size (10G); may be given once for each.  [default: keep all]", "AGE|SIZE", several=True, reloadable=True)

    metrics: tuple[str, int] | None = _option(None, ADDRESS, "Serve Prometheus metrics, /healthz and /readyz over HTTP.  [default host: 127.0.0.1]", "[HOST:]PORT")
    services: tuple[tuple[str, int], ...] = _option((), SERVICE, "Also serve gauges and counters of this server's address and port alone; may be given several times.", "ADDRESS:PORT", several=True)
    log_format: str = _option("text", choice("text", "json"), "How standard error tells what happens while it runs; text tells only what is wrong.  [default: text]")
    user: str | None = _option(None, TEXT, "Go on as this user once the sockets are open.", "NAME")
    json: bool = _option(False, FLAG, "The summary as JSON.")
    head: int | None = _option(None, number(1), "Also show the N connections that began first.", "N")

    def __post_init__(self) -> None:
        if self.seconds is not None and math.isnan(self.seconds):
            raise ConfigError("--seconds takes a number of seconds, not nan")
        if self.settings.max_memory and self.workers > 1:
            raise ConfigError("a cap on memory (--max-memory) needs --workers 1")
        if self.settings.max_flows and self.settings.max_flows < self.workers:
            raise ConfigError("a cap on connections (--max-flows) must be at least the number of workers")
        if len({unit for unit, _ in self.keep}) != len(self.keep):
            raise ConfigError("--keep takes one age and one size")
        if len(self.services) > MOST_SERVICES:
            raise ConfigError(f"at most {MOST_SERVICES} services can have metrics of their own, not {len(self.services)}")
        if twice := {service for service in self.services if self.services.count(service) > 1}:
            raise ConfigError(f"a service is listed twice: {' port '.join(map(str, min(twice)))}")

    @classmethod
    def of(cls, given: Mapping[str, Any], file: str | Path | None = None) -> LiveConfig:
        """The run that a command line means, and below it a file.

        Parameters
        ----------
        given : values by field, of this class and of Settings; what a file says of the same is passed over.
        file : a TOML file.

        Raises
        ------
        ConfigError : one line with the file and the key: no such key, a wrong type, a value out of range; the file
            cannot be read.
        """
        read = {} if file is None else read_file(file)
        return _made(cls, {**read, **{name: value for name, value in given.items() if value is not None}})

    def reloaded(self, other: LiveConfig) -> tuple[LiveConfig, list[str]]:
        """This run with what can change while it goes on taken from another, and the keys that would need a new start."""
        changed = [each for each in fields(self) if getattr(self, each.name) != getattr(other, each.name)]
        safe = {each.name: getattr(other, each.name) for each in changed if each.name in RELOADABLE}
        return replace(self, **safe), [key_of(each) for each in changed if each.name not in RELOADABLE]


def _made(cls: type[LiveConfig], values: dict[str, Any]) -> LiveConfig:
    own = {each.name for each in fields(cls)}
    settings = {name: value for name, value in values.items() if name not in own}
    return cls(**{name: value for name, value in values.items() if name in own}, settings=Settings(**settings))


def option_of(each: Field) -> Option | None:
    """The option that a field of LiveConfig is; None for the two that are none."""
    return each.metadata.get("option")


def key_of(each: Field) -> str:
    """The key of a field in the file."""
    option = option_of(each)
    return (option and option.key) or each.name.replace("_", "-")


def _setting_kind(each: Field) -> Kind:
    if each.name in FROM_TEXT:
        return replace(DURATION, parse=_setting_duration) if FROM_TEXT[each.name] is parse_duration else SIZE
    special = {
        "key": Kind('a list of "vlan" and "tunnel"', (str, list), _key),
        "server_ports": Kind("ports such as 80,443,8000-8999", (str,), parse_ports),
        "max_flows": Kind("a whole number", (int,)),
        "by": Kind('a list of "service" and "client"', (str, list), _key),
        "top": Kind("a whole number", (int,)),
    }
    return special.get(each.name, TEXT)


#: The fields that SIGHUP brings into force.
RELOADABLE = frozenset(each.name for each in fields(LiveConfig) if (option := option_of(each)) and option.reloadable)
_LISTS = Kind("a text or a list of texts", (str, list))


def read_file(path: str | Path) -> dict[str, Any]:
    """Values of a TOML file by field, of LiveConfig and of Settings. Raises ConfigError as `LiveConfig.of` does."""
    import tomllib

    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no TOML: {error}") from error
    known: dict[str, Field] = {key_of(each): each for each in fields(LiveConfig) if each.name != "settings"}
    known |= {each.name.replace("_", "-"): each for each in fields(Settings)}
    values: dict[str, Any] = {}
    for key, given in content.items():
        if key not in known:
            raise ConfigError(f"{path}: there is no key {key!r}{_meant(key, known)}")
        try:
            values[known[key].name] = _value(known[key], given)
            # Of a wrong value that only the whole judges, the file is told as well.
            if known[key] in fields(Settings):
                Settings(**{known[key].name: values[known[key].name]})
        except ConfigError as error:
            raise ConfigError(f"{path}: {key}: {error}") from None
    return values


def _value(each: Field, given: Any) -> Any:
    option = option_of(each)
    if each.name == "interfaces":
        names = _LISTS.value(given)
        return tuple(TEXT.value(name) for name in ([names] if isinstance(names, str) else names))
    if option is None:
        return _setting_kind(each).value(given)
    if option.several:
        return tuple(option.kind.value(one) for one in (given if isinstance(given, list) else [given]))
    return option.kind.value(given)


def _meant(key: str, known: Mapping[str, Field]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(key, known, 1)
    return f"; is {near[0]!r} meant?" if near else f"; there are {', '.join(sorted(known))}"
