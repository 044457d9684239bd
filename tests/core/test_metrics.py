import pytest
from prometheus_client.parser import text_string_to_metric_families

from flanneld_py.core.histogram import Histogram
from flanneld_py.core.metrics import Family, encode_families


def parse(*families):
    """What Prometheus' own parser reads out of our page: name → [(sample, labels, value)]."""
    text = encode_families(families)
    return {
        found.name: [(sample.name, sample.labels, sample.value) for sample in found.samples]
        for found in text_string_to_metric_families(text)
    }


def test_a_number():
    text = encode_families([Family("flanneld_peers", "gauge", "Peers.", (), 3)])
    assert text == "# HELP flanneld_peers Peers.\n# TYPE flanneld_peers gauge\nflanneld_peers 3\n"


@pytest.mark.parametrize("text", ["plain", 'quo"te', "back\\slash", "new\nline", "ünï", "", "{a=b}"])
def test_any_label_comes_back_as_it_was(text):
    family = Family("flanneld_drift_total", "counter", f"Of {text}", ("kind",), {text: 2.5})
    assert parse(family) == {"flanneld_drift": [("flanneld_drift_total", {"kind": text}, 2.5)]}


def test_several_labels():
    family = Family("flanneld_bytes_total", "counter", "Bytes.", ("device", "direction"), {("flannel.1", "receive"): 7})
    assert parse(family)["flanneld_bytes"] == [
        ("flanneld_bytes_total", {"device": "flannel.1", "direction": "receive"}, 7)
    ]


def test_a_histogram_adds_up():
    histogram = Histogram()
    for seconds in (0.0005, 0.001, 0.3, 99.0):
        histogram.observe(seconds)
    samples = parse(Family("flanneld_pass_seconds", "histogram", "Passes.", ("call",), {"Range": histogram}))
    found = samples["flanneld_pass_seconds"]
    buckets = {labels["le"]: value for name, labels, value in found if name.endswith("_bucket")}
    assert (buckets["0.001"], buckets["0.25"], buckets["0.5"], buckets["10.0"], buckets["+Inf"]) == (2, 2, 3, 3, 4)
    assert ("flanneld_pass_seconds_count", {"call": "Range"}, 4) in found
    assert ("flanneld_pass_seconds_sum", {"call": "Range"}, pytest.approx(99.3015)) in found
    assert histogram.count == 4


def test_what_is_not_known_yet_is_left_out_and_an_empty_family_has_no_samples():
    assert encode_families([Family("flanneld_lease_seconds", "gauge", "Left.", (), None)]) == ""
    assert parse(Family("flanneld_drift_total", "counter", "Drift.", ("kind",), {})) == {"flanneld_drift": []}


def test_labels_that_do_not_fit_are_a_mistake():
    with pytest.raises(ValueError, match="argument"):
        encode_families([Family("flanneld_drift_total", "counter", "Drift.", ("a", "b"), {"one": 1})])
