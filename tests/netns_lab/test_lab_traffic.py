from netns_lab.traffic import Traffic, decode_traffic

TEXT = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multi|bytes    packets errs drop fifo colls carrier compressed
    lo:       0       0    0    0    0     0          0     0        0       0    0    0    0     0       0          0
flannel.1:  2016      24    0    0    0     0          0     0     4032      48    0    0    0     0       0          0
  a:b:       1       2    0    0    0     0          0     0        3       4    0    0    0     0       0          0
"""


def test_counters_by_device():
    assert decode_traffic(TEXT) == {
        "lo": Traffic(0, 0, 0, 0),
        "flannel.1": Traffic(2016, 24, 4032, 48),
        "a:b": Traffic(1, 2, 3, 4),
    }
