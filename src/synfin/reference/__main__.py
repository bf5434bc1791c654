"""``python -m synfin.reference CAPTURE...``: the flow table as JSON Lines."""

import json
import sys

from . import read, track

if __name__ == "__main__":
    for flow in track(read(sys.argv[1:])).flows:
        print(json.dumps(flow))
