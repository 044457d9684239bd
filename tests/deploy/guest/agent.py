"""Runs in the guest: a command for each line of its console, and a line with what came of it."""

import json
import subprocess
import sys
import tty

tty.setraw(0)
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    done = subprocess.run(
        json.loads(line), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    print(json.dumps([done.returncode, done.stdout, done.stderr]), flush=True)
