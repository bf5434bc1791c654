"""`python -m synfin` is the same as `synfin`."""

from synfin.cli.main import main

main()
