from raycsr.reports.looks import COLOURS, INK, Looks, looks_of


def colours(looks, keys):
    return [looks.of_key(key).colour for key in keys]


def test_of_several_runs_each_has_a_colour_and_a_marker_and_their_rules_have_dashes():
    looks = Looks([("a", "costs", "argmax"), ("a", "costs", "r"), ("b", "costs", "argmax")])
    assert [looks.of_key(key)[:3] for key in (("a", "costs", "argmax"), ("a", "costs", "r"), ("b", "costs", "r"))] == [
        (COLOURS[0], "o", "-"),
        (COLOURS[0], "o", "--"),
        (COLOURS[1], "s", "--"),
    ]
    assert looks.of(run="b").line == {"color": COLOURS[1], "marker": "s", "linestyle": "-"}  # what knows no rule
    assert looks.of_key(("a", "costs", "argmax")).hatch != looks.of_key(("a", "costs", "r")).hatch  # of bars


def test_of_one_run_rules_have_colours_and_of_one_rule_matrices():
    of_rules = [("a", "one", "argmax"), ("a", "one", "r"), ("a", "two", "r")]
    assert colours(Looks(of_rules), of_rules) == [COLOURS[0], COLOURS[1], COLOURS[1]]
    of_matrices = [("a", "one", "argmax"), ("a", "two", "argmax")]
    looks = Looks(of_matrices)
    assert colours(looks, of_matrices) == list(COLOURS[:2])
    assert looks.of(run="a", rule="argmax").colour == INK  # certified accuracy knows no costs


def test_what_no_chart_draws_takes_no_colour():
    looks = Looks([("a", "one", "argmax"), ("a", "one", "r")])
    assert looks.of(rule="s")[:2] == (INK, "")


def test_where_colours_are_used_up_markers_tell():
    looks = looks_of(str(i) for i in range(30))
    assert len({(look.colour, look.marker) for look in looks.values()}) == 30
