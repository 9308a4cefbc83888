"""For all tests."""

from __future__ import annotations

import signal

# A test run that a script started in the background (`make test &`) inherits an ignored SIGINT, and so would the
# programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
