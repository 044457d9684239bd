import os

import pytest

from netns_lab import boundary
from netns_lab.boundary import Holder, run_inside


def test_interrupt_just_when_the_process_inside_has_ended(monkeypatch, capfd):
    def end_and_be_interrupted(child):
        os.waitpid(child, 0)
        raise KeyboardInterrupt

    monkeypatch.setattr(boundary, "exit_status", end_and_be_interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_inside(Holder(0, 0), lambda: 0)  # there is no such process, so that nothing is entered
    assert "No such file" in capfd.readouterr().err
