import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld_py.cli.flags import (
    Flag,
    FlagError,
    HelpRequestedError,
    describe_flags,
    parse_boolean,
    parse_flags,
    parse_integer,
    parse_seconds,
    parse_text,
)

FLAGS = (
    Flag("name", "nobody", parse_text, "a name"),
    Flag("count", 5, parse_integer(-10, 1000), "a count"),
    Flag("loud", False, parse_boolean, "be loud", is_boolean=True),
    Flag("quiet-at-night", True, parse_boolean, "be quiet at night", is_boolean=True),
    Flag("iface", (), parse_text, "an interface", repeatable=True),
    Flag("wait", 5.0, parse_seconds, "a duration"),
)


def parse(*words, **environ):
    return parse_flags(FLAGS, words, environ)


def test_defaults():
    assert parse() == {
        "name": "nobody",
        "count": 5,
        "loud": False,
        "quiet-at-night": True,
        "iface": (),
        "wait": 5.0,
    }


@pytest.mark.parametrize("words", [("-name", "x"), ("--name", "x"), ("-name=x",), ("--name=x",)])
def test_one_dash_or_two_word_or_equals(words):
    assert parse(*words)["name"] == "x"


@pytest.mark.parametrize(
    ("word", "value"), [("--name=", ""), ("--name=a=b", "a=b"), ("--name=-x", "-x"), ("--name= x ", " x ")]
)
def test_text_after_equals_is_taken_as_it_is(word, value):
    assert parse(word)["name"] == value


def test_next_word_is_the_value_whatever_it_looks_like():
    assert parse("--name", "--loud")["name"] == "--loud"
    assert parse("--name", "--")["name"] == "--"


def test_boolean_takes_no_word():
    assert parse("--loud", "--name", "x")["loud"] is True
    values = parse("--loud", "false", "--name", "x")
    assert values["loud"] is True
    # `false` was a bare word and ended parsing.
    assert values["name"] == "nobody"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, True) for text in ("1", "t", "T", "true", "TRUE", "True")),
        *((text, False) for text in ("0", "f", "F", "false", "FALSE", "False")),
    ],
)
def test_words_for_booleans(text, value):
    assert parse(f"--loud={text}")["loud"] is value
    assert parse(f"-quiet-at-night={text}")["quiet-at-night"] is value


@pytest.mark.parametrize(
    ("text", "value"), [("7", 7), ("-7", -7), ("0x1F", 31), ("0b11", 3), ("0o17", 15), ("1_000", 1000), ("+3", 3)]
)
def test_integers(text, value):
    assert parse(f"--count={text}")["count"] == value


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5.0), ("0", 0.0), ("1m30s", 90.0), ("1.5h", 5400.0), ("250ms", 0.25), (".5s", 0.5), ("1h1m1s", 3661.0)],
)
def test_durations(text, seconds):
    assert parse(f"--wait={text}")["wait"] == pytest.approx(seconds)


@pytest.mark.parametrize("words", [("x", "--loud"), ("--", "--loud"), ("-", "--loud"), ("", "--loud")])
def test_bare_word_ends_parsing(words):
    assert parse(*words)["loud"] is False


def test_last_of_several_counts_and_repeatable_ones_all_count():
    assert parse("--count=1", "--count=2")["count"] == 2
    assert parse("--iface=a", "-iface", "b", "--iface=a")["iface"] == ("a", "b", "a")


def test_variables():
    values = parse(FLANNELD_NAME="x", FLANNELD_QUIET_AT_NIGHT="false", FLANNELD_IFACE="eth0", FLANNELD_COUNT="0x10")
    assert (values["name"], values["quiet-at-night"], values["iface"], values["count"]) == ("x", False, ("eth0",), 16)


def test_flag_beats_variable():
    assert parse("--name=flag", FLANNELD_NAME="variable")["name"] == "flag"
    assert parse("--iface=flag", FLANNELD_IFACE="variable")["iface"] == ("flag",)


def test_empty_variable_is_none():
    assert parse(FLANNELD_COUNT="", FLANNELD_NAME="")["count"] == 5


def test_variables_of_others_do_not_matter():
    assert parse(NAME="x", FLANNELD_UNKNOWN="x", FLANNEL_NAME="y") == parse()


@pytest.mark.parametrize("word", ["-h", "--h", "-help", "--help", "--help=1"])
def test_help(word):
    with pytest.raises(HelpRequestedError):
        parse(word, "--nonsense")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--nonsense",), "unknown flag --nonsense; --help lists those there are"),
        (("-nonsense=1",), "unknown flag --nonsense"),
        (("--Name=x",), "unknown flag --Name"),
        (("---name",), "'---name' is no flag"),
        (("--=x",), "'--=x' is no flag"),
        (("-=x",), "'-=x' is no flag"),
        (("--name",), "--name needs a value"),
        (("--loud=maybe",), "--loud: 'maybe' is no boolean; expected true or false"),
        (("--count=many",), "--count: 'many' is no integer; expected -10 to 1000"),
        (("--count", "1001"), "--count: 1001 is out of bounds; expected -10 to 1000"),
        (("--count=",), "--count: '' is no integer"),
        (("--wait=soon",), "--wait: 'soon' is no duration; expected seconds or one like 1m30s"),
        (("--wait=-1s",), "--wait: '-1s' is no duration"),
        (("--wait=1s 2s",), "--wait: '1s 2s' is no duration"),
    ],
)
def test_wrong_use_says_which_flag(words, told):
    with pytest.raises(FlagError) as caught:
        parse(*words)
    assert str(caught.value).startswith(told)


def test_wrong_variable_is_named():
    with pytest.raises(FlagError, match="FLANNELD_COUNT: 'many' is no integer"):
        parse(FLANNELD_COUNT="many")


def test_description_names_every_flag_and_its_default():
    text = describe_flags(FLAGS)
    assert "  --name\n        a name (default nobody)" in text
    assert "  --count\n        a count (default 5)" in text
    assert "  --loud\n        be loud\n" in text
    assert "  --quiet-at-night\n        be quiet at night (default true)" in text
    assert "  --iface\n        an interface\n" in text


@given(st.lists(st.sampled_from(["--name", "-loud", "--count=3", "x", "--", "-", "--iface=a", "=", "--x"]) | st.text()))
def test_any_words_are_read_or_refused(words):
    try:
        values = parse(*words)
    except (FlagError, HelpRequestedError):
        return
    assert values.keys() == parse().keys()
