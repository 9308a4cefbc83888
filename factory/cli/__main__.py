"""`python -m factory.cli`, the same as `singfactory`."""

import sys

from factory.cli.main import main

sys.exit(main())
