"""What lies behind a URL such as ``s3://bucket/folder/x.pcap``: a filesystem of pyarrow and a path in it, and words for its errors.

Credentials may stand in a URL. They reach pyarrow and nothing else: no name, message or metadata shows them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

FILE, FOLDER = "file", "folder"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SHOWN_OPTIONS = ("endpoint_override", "region", "scheme")  # they say which store it is, and are no secrets
_AZURE = ("abfs", "abfss")  # what stands before the @ names a container there
_WITH_PORTS = ("hdfs", "viewfs")  # elsewhere a colon in the first part begins a password
#: pyarrow would ask a store of Google that does not answer for a quarter of an hour, and not heed Ctrl-C meanwhile.
_PATIENCE = "retry_limit_seconds=30"

_UNREACHABLE = (
    "the store cannot be reached ({found}); check the network, and the region and endpoint that the URL names"
)
#: What an error's text holds -> what it means and what to do. The first that fits; {found} is what fitted.
_MEANINGS = (
    (r"Could not resolve host: [\w.-]+|Failed to connect to [\w.:-]+", _UNREACHABLE),
    (r"Could not (?:resolve hostname|connect to server)|NETWORK_CONNECTION|CURL error \[\d+\]", _UNREACHABLE),
    (r"NO_SUCH_BUCKET|Bucket '[^']*' not found|bucket does not exist",
     "there is no such bucket; check its name and region"),
    (r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN_ID|EXPIRED_TOKEN|HTTP status 40[13]|PERMISSION_DENIED|UNAUTHENTICATED|OAuth2|AuthenticationException|Failed to get token",
     "the store refuses access ({found}); check the credentials that the environment gives, and what they allow"),
    (r"PermanentRedirect|HTTP status 30[17]|AuthorizationHeaderMalformed",
     "the bucket lies in another region; name it in the URL: ?region=REGION"),
    (r"libjvm|libhdfs", "HDFS needs Java and Hadoop's libraries, and they are not found; set JAVA_HOME and HADOOP_HOME"),
)  # fmt: skip


class StoreError(OSError):
    """What a store could not do; `strerror` says why, in words without secrets."""

    def __init__(self, reason: str, errno: int | None = None):
        super().__init__(errno, reason)

    def __str__(self) -> str:
        return self.strerror or ""


class Url(str):
    """A URL as it may be shown, without credentials.

    Attributes
    ----------
    store : the filesystem.
    path : of the file or folder in it.
    """

    store: FileSystem
    path: str

    @classmethod
    def of(cls, text: str, store: FileSystem, path: str) -> Url:
        """The URL with the place that it stands for."""
        url = cls(text)
        url.store, url.path = store, path
        return url

    def below(self, path: str) -> Url:
        """The URL of a path in the same store that lies below this one."""
        base, mark, options = self.partition("?")
        return Url.of(f"{base.rstrip('/')}/{path[len(self.path) :].lstrip('/')}{mark}{options}", self.store, path)

    def beside(self, name: str) -> Url:
        """The URL of a file in the folder of this one."""
        base, mark, options = self.partition("?")
        folders = (base.rstrip("/").rpartition("/")[0], self.path.rpartition("/")[0])
        return Url.of(f"{folders[0]}/{name}{mark}{options}", self.store, f"{folders[1]}/{name}")


def is_url(name: str) -> bool:
    """True for ``scheme://...``."""
    return _URL.match(name) is not None


def shown(text: str) -> str:
    """A word of a command line with the credentials taken out of the URL in it, if there is one."""
    found = _URL.search(text)
    if not found:
        return text
    scheme = found[0].removesuffix("://").lower()
    place, _, options = text[found.end() :].partition("?")
    first, at, rest = place.partition("@")
    if at and "/" not in first:
        place = f"{first.partition(':')[0]}@{rest}" if scheme in _AZURE else rest
    elif at and ":" in first.partition("/")[0] and scheme not in _WITH_PORTS:
        place = rest  # a password with a slash that should have been written %2F
    kept = [o for o in options.split("&") if o.partition("=")[0] in _SHOWN_OPTIONS and "@" not in o]
    return text[: found.end()] + place + ("?" + "&".join(kept) if kept else "")


def located(name: str) -> str:
    """A file's name as it is, but for URLs: the path that ``file://`` names, and a `Url` for all others.

    Raises StoreError for a URL that pyarrow does not take, or a bucket whose region cannot be found.
    """
    if isinstance(name, Url) or not is_url(name):
        return name
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem, LocalFileSystem

    asked_for = name
    if name.startswith(("gs://", "gcs://")) and "retry_limit_seconds=" not in name:
        asked_for += ("&" if "?" in name else "?") + _PATIENCE
    try:
        store, path = asked(FileSystem.from_uri, asked_for)
    except StoreError as error:
        if isinstance(error.__cause__, ArrowInvalid):
            raise StoreError(_refusal(name, str(error.__cause__))) from None  # which holds the URL
        raise
    path = path.rstrip("/") or path
    if isinstance(store, LocalFileSystem):
        return f"{path}/" if name.endswith("/") else path  # an output's last slash says that it is a folder
    return Url.of(shown(name), store, path)


def _refusal(name: str, text: str) -> str:
    if "Unrecognized filesystem type" in text:
        scheme = name.partition("://")[0]
        return f"pyarrow opens no {scheme}:// URLs; it takes s3://, gs://, abfs://, hdfs:// and file://, in lower case"
    if "Cannot parse" in text:
        return "the URL is malformed; characters such as spaces, and slashes in a password, are written %20 and %2F"
    if option := re.search(r"[Uu]nexpected query parameter.*'(\w+)'", text):
        return f"the URL has an option {option[1]!r} that its store does not know"
    return "pyarrow does not take the URL; see pyarrow.fs.FileSystem.from_uri"


def asked(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What a call of pyarrow's filesystems returns. Raises StoreError where it fails."""
    import pyarrow as pa

    try:
        return call(*arguments, **options)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(words(error), getattr(error, "errno", None)) from error


def kind_of(url: Url) -> str | None:
    """FILE, FOLDER (also where keys of a store of objects begin like one), or None for neither. Raises StoreError."""
    return {"File": FILE, "Directory": FOLDER}.get(asked(url.store.get_file_info, url.path).type.name)


def files_below(url: Url) -> list[Url]:
    """The files in a folder and in those within. Raises StoreError."""
    from pyarrow.fs import FileSelector

    infos = asked(url.store.get_file_info, FileSelector(url.path, recursive=True))
    return [url.below(info.path) for info in infos if info.type.name == "File"]


def words(error: BaseException) -> str:
    """What pyarrow says of a failure, as one clause: what it means where that is known, else the first line of its text."""
    text = str(error)
    if isinstance(error, StoreError):
        return text
    if isinstance(error, FileNotFoundError):
        return "no such file or folder"
    for pattern, meaning in _MEANINGS:
        if found := re.search(pattern, text):
            return meaning.format(found=found[0])
    first = re.sub(r"\S*://\S*", "(URL)", text.partition("\n")[0])
    return first[:300] or type(error).__name__
