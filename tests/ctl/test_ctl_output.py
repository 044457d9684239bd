import os
import pty
import subprocess
import sys

from flanneld_py.ctl.output import Table, format_table, show

TABLE = Table("peers", ("subnet", "state"), [["10.5.2.0/24", "ok"], ["10.5.103.0/24", "no [route]"]])


def test_plain_tables_have_aligned_columns():
    assert format_table(TABLE).splitlines() == [
        "peers",
        "SUBNET         STATE",
        "10.5.2.0/24    ok",
        "10.5.103.0/24  no [route]",
    ]


def test_what_is_piped_is_plain(capsys):
    show(["first", TABLE])
    assert capsys.readouterr().out == f"first\n{format_table(TABLE)}\n"


def read_terminal(code):
    """What a program prints on a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", code], stdout=theirs, env=os.environ | {"TERM": "xterm"}) as process:
        os.close(theirs)
        text = b""
        try:
            while part := os.read(ours, 4096):
                text += part
        except OSError:  # the other end is closed
            pass
        assert process.wait(20) == 0
    os.close(ours)
    return text.decode()


def test_a_terminal_gets_a_table_with_colours():
    text = read_terminal(
        "from flanneld_py.ctl.output import *\n"
        "show(['[first]', Table('peers', ('subnet', 'state'), [['10.5.2.0/24', 'ok'], ['x', 'no [route]']])])"
    )
    assert "[first]" in text
    assert "\x1b[32mok" in text
    assert "\x1b[1;31mno [route]" in text


def test_a_terminal_gets_a_plain_table_where_rich_is_missing():
    text = read_terminal(
        "import sys; sys.modules['rich.box'] = None\n"
        "from flanneld_py.ctl.output import *\n"
        "show(['first', Table('', ('subnet', 'state'), [['10.5.2.0/24', 'ok']])])"
    )
    assert text.split() == ["first", "SUBNET", "STATE", "10.5.2.0/24", "ok"]
