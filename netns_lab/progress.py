"""What has been reached so far, for whoever waits."""

import time


class Progress:
    """Prints what has been reached, with the seconds since the start."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def __call__(self, text: str) -> None:
        """Print one line."""
        print(f"{time.monotonic() - self.start:5.1f} s  {text}", flush=True)
