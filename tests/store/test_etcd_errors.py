"""What is said of etcd's and gRPC's errors, given the texts that they were seen to have."""

import pytest

from flanneld_py.core.errors import StoreError
from flanneld_py.store.etcd_errors import EndpointError, HistoryLostError, is_stale_token, translate
from flanneld_py.store.etcd_options import EtcdOptions, parse_endpoints
from flanneld_py.store.grpc_status import CallError, Status

OPTIONS = EtcdOptions(parse_endpoints("https://10.0.0.1:2379"))
USER = EtcdOptions(parse_endpoints("https://10.0.0.1:2379"), username="flannel", password="x" * 8)


def failure(code, details):
    return CallError(code, details)


SEEN = [
    ("UNAVAILABLE", "Connection refused", "is etcd running"),
    ("UNAVAILABLE", "No route to host", "is the network up?"),
    ("UNAVAILABLE", "errors resolving etcd.example: Name or service not known", "does not resolve"),
    ("UNAVAILABLE", "connection lost", "is etcd still running"),
    ("UNAVAILABLE", "etcdserver: no leader", "has no leader"),
    ("UNAVAILABLE", "etcdserver: request timed out", "is a majority of its members up?"),
    ("UNAVAILABLE", "something that nobody has seen", "something that nobody has seen (UNAVAILABLE)"),
    ("DEADLINE_EXCEEDED", "Deadline Exceeded", "no answer in time"),
    ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded", "etcdctl alarm disarm"),
    ("UNKNOWN", "", "no reason given (UNKNOWN)"),
    ("UNKNOWN", "x" * 10_000, "x" * 300),
]


@pytest.mark.parametrize(("code", "details", "expected"), SEEN)
def test_each_is_one_line_that_says_which_and_what(code, details, expected):
    error = translate(failure(Status[code], details), OPTIONS.endpoints[0], OPTIONS)
    assert isinstance(error, StoreError)
    assert isinstance(error, EndpointError) == (code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"})
    text = str(error)
    assert text.startswith("etcd at https://10.0.0.1:2379: ")
    assert expected in text
    assert len(text) < 400


def test_compacted_history_is_told_apart():
    error = failure(Status.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")
    assert isinstance(translate(error, OPTIONS.endpoints[0], OPTIONS), HistoryLostError)


def test_missing_permission_names_user_and_keys():
    error = failure(Status.PERMISSION_DENIED, "etcdserver: permission denied")
    assert "user 'flannel' a role" in str(translate(error, "e", USER))
    assert "our client certificate's user a role" in str(translate(error, "e", OPTIONS))


def test_a_new_token_is_worth_a_try_only_with_a_user():
    for code, details in [
        ("UNAUTHENTICATED", "etcdserver: invalid auth token"),
        ("INVALID_ARGUMENT", "etcdserver: user name is empty"),
        ("INVALID_ARGUMENT", "etcdserver: revision of auth store is old"),
    ]:
        error = failure(Status[code], details)
        assert is_stale_token(error, USER)
        assert not is_stale_token(error, OPTIONS)
    assert not is_stale_token(failure(Status.UNAVAILABLE, "etcdserver: no leader"), USER)
