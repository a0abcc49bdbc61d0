"""`sluice up` over stand-ins: up.py DIR [options of up] [--worker-flag=FLAG ...]."""

import functools
import sys

from running_engine import PROCESS

from serving.cli import up
from serving.cli.app import app
from serving.engine.local import Programs

if __name__ == "__main__":
    prefix = "--worker-flag="
    flags = [word.removeprefix(prefix) for word in sys.argv[1:] if word.startswith(prefix)]
    words = [word for word in sys.argv[1:] if not word.startswith(prefix)]
    # Everything is the real command but the programs it starts.
    programs = Programs(worker=(*PROCESS, *flags), control=PROCESS)
    up.run = functools.partial(up.run, programs=programs)
    app(["up", *words])
