"""Launchers get Ctrl-C as at a terminal, whoever runs the tests, and no interpreter of his."""

import os
import signal

os.environ.pop("PYTHON", None)

# A shell's background job ignores SIGINT and so do its children, and bash cannot trap what it was
# started to ignore. With a handler here, what is started from here begins with the default.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
