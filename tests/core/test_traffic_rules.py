import pytest

from flanneld_py.core.prefix import parse_prefix
from flanneld_py.core.traffic_rules import Match, Place, RuleWish, Verdict, desired_rules

NETWORK, OWN = parse_prefix("10.5.0.0/16"), parse_prefix("10.5.2.0/24")
NETWORK6, OWN6 = parse_prefix("fd42::/48"), parse_prefix("fd42:0:0:2::/64")


def rules_of(wish, place, nets=((NETWORK, OWN),)):
    (rule_set,) = desired_rules(nets, wish)
    return next((chain.rules for chain in rule_set.chains if chain.place is place), None)


def test_masquerade_is_go_flannels_in_its_order():
    rules = rules_of(RuleWish(masquerade=True, random_ports=True, forward=False), Place.POSTROUTING)
    within, ours, outside = Match(NETWORK), Match(OWN), Match(NETWORK, outside=True)
    assert [tuple(rule) for rule in rules] == [
        (Verdict.RETURN, None, None, 0x4000),
        (Verdict.RETURN, ours, within, 0),
        (Verdict.RETURN, within, ours, 0),
        (Verdict.RETURN, outside, ours, 0),
        (Verdict.MASQUERADE_RANDOM, within, Match(parse_prefix("224.0.0.0/4"), outside=True), 0),
        (Verdict.MASQUERADE_RANDOM, outside, within, 0),
    ]


def test_random_ports_can_be_had_off():
    rules = rules_of(RuleWish(masquerade=True, random_ports=False, forward=False), Place.POSTROUTING)
    assert [rule.verdict for rule in rules][-2:] == [Verdict.MASQUERADE] * 2


@pytest.mark.parametrize("masquerade", [True, False])
@pytest.mark.parametrize("forward", [True, False])
def test_there_is_only_what_is_wished_for(masquerade, forward):
    (rule_set,) = desired_rules([(NETWORK, OWN)], RuleWish(masquerade, random_ports=True, forward=forward))
    wanted = {Place.POSTROUTING: masquerade, Place.FORWARD: forward}
    assert {chain.place for chain in rule_set.chains} == {place for place, on in wanted.items() if on}


def test_each_network_has_a_rule_set_with_its_familys_multicast():
    wish = RuleWish(masquerade=True, random_ports=True, forward=True)
    first, second = desired_rules([(NETWORK, OWN), (NETWORK6, OWN6)], wish)
    assert (first.family, second.family) == (4, 6)
    assert second.chains[0].rules[4].destination == Match(parse_prefix("ff00::/8"), outside=True)
