"""How an instance was started, whatever its record says."""

from hypothesis import given
from hypothesis import strategies as st

from bema.core.instance import Instance
from bema.core.start_report import KINDS, StartReport


def report(**data: object) -> StartReport:
    return StartReport.of(Instance(id=1, namespace="demo", component="worker", data=data))


def test_it_is_the_sum_of_the_phases():
    assert report(start={"kind": "zygote"}, phases={"fork": 3, "import": 30}) == ("zygote", 33)
    assert report(start={"kind": "exec", "why": "its first"}, phases={"interpreter": 285}) == ("exec", 285)


def test_what_does_not_say_how_was_started_from_its_file():
    assert report() == ("exec", 0)


anything = st.recursive(
    st.none() | st.integers() | st.text() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.fixed_dictionaries({"start": anything | st.fixed_dictionaries({"kind": anything}), "phases": anything}))
def test_no_record_makes_another_kind_or_a_negative_time(data):
    kind, milliseconds = report(**data)
    assert kind in KINDS
    assert milliseconds >= 0
