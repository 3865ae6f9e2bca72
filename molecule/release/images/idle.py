"""A worker that has nothing to do, and ends when it is asked to."""

import os
import pathlib
import signal
import time

signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
while True:
    pathlib.Path("/tmp/support_desk_worker").touch()
    time.sleep(10)
