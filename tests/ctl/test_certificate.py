from datetime import UTC, datetime

import pytest
import trustme

from flanneld_py.ctl.certificate import parse_not_after, read_expiry

SOON, LATE = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC), datetime(2061, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.mark.parametrize("end", [SOON, LATE], ids=["UTCTime", "GeneralizedTime"])
def test_the_end_of_a_certificate(authority, tmp_path, end):
    file = tmp_path / "cert.pem"
    authority.issue_cert("node", not_after=end).cert_chain_pems[0].write_to_path(file)
    assert read_expiry(file) == end.timestamp()


def test_of_several_the_first_to_end_counts(authority, tmp_path):
    file = tmp_path / "cert.pem"
    for end in (LATE, SOON):
        authority.issue_cert("node", not_after=end).cert_chain_pems[0].write_to_path(file, append=True)
    assert read_expiry(file) == SOON.timestamp()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it holds no certificate"),
        ("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----", "cannot be read"),
        ("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----", "cannot be read"),
    ],
)
def test_what_is_no_certificate_is_said(tmp_path, text, problem):
    (tmp_path / "cert.pem").write_text(text)
    assert problem in read_expiry(tmp_path / "cert.pem")


def test_a_file_that_is_missing_is_said(tmp_path):
    assert read_expiry(tmp_path / "nothing.pem") == "it cannot be read: No such file or directory"


@pytest.mark.parametrize("size", [0, 1, 5, 50, 200])
def test_a_certificate_that_is_cut_off(authority, size):
    import ssl

    der = ssl.PEM_cert_to_DER_cert(authority.cert_pem.bytes().decode())
    with pytest.raises((ValueError, IndexError)):
        parse_not_after(der[:size])
