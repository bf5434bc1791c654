"""`synfin live` where no code can be read once privileges are dropped, as from a home that is closed to others."""

import sys
from importlib.abc import MetaPathFinder

from synfin.cli.main import main
from synfin.sidecar import privileges


class Closed(MetaPathFinder):
    """Finds nothing, and says what was looked for."""

    def find_spec(self, name, path, target=None):
        raise ModuleNotFoundError(f"{name} is loaded late")


def drop(user=None, drop=privileges.drop):
    """As it is, and then nothing can be loaded."""
    threads = drop(user)
    sys.meta_path.insert(0, Closed())
    return threads


privileges.drop = drop
main(["live", *sys.argv[1:]])
