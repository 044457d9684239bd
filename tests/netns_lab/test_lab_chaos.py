"""Faults in a whole lab of five nodes, with an etcd of three members that wants certificates and users."""

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.kernel, pytest.mark.etcd, pytest.mark.full, pytest.mark.timeout(400)]


def test_members_of_etcd_are_killed_one_after_the_other_and_no_packet_is_lost(lab):
    told = lab.run("chaos", "--minutes", "0.5", "--seed", "3", "--only", "a member is killed").stdout
    assert ", 0 where none had" in told
    assert "; 0 lost where a fault had hit one end" in told
    assert told.rstrip().endswith("all held")


def test_random_faults_and_all_held(lab):
    told = lab.run("chaos", "--minutes", "1", "--seed", "1").stdout
    assert told.rstrip().endswith("all held")


def test_a_fault_that_there_is_not(lab):
    told = lab.run("chaos", "--only", "earthquake", status=2).stderr
    assert "no fault has 'earthquake' in its name; there are store: a member is killed, " in told
