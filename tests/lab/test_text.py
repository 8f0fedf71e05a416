import pytest

from mesocosm.lab.text import effect, flops, number, size


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"),
        (0.12345, "0.123"),
        (-2, "-2"),
        (999.4, "999"),
        (999.6, "1000"),
        (12345.6, "12346"),
        (2.5e6, "2.5e+06"),
        (1.2e-5, "1.2e-05"),
    ],
)
def test_number(value, words):
    assert number(value) == words


def test_effect():
    assert effect(1.2, [1.1, 1.3], "steps") == "1.2 [1.1, 1.3] steps"
    assert effect(1.0034, [1.0017, 1.0051], "times") == "1.003 [1.002, 1.005] times"
    assert effect(1.0, (1.0, 1.2)) == "1 [1, 1.2]"
    assert effect(1.0, (1.0, 1.0)) == "1"
    assert effect(1.0, (None, None), "bits") == "1 bits"
    assert effect(None, (None, None), "bits") == "not measured"


def test_units():
    assert flops(3.2e15) == "3.2 PFLOP"
    assert flops(5) == "5 FLOP"
    assert size(341_266_432) == "341 MB"
    assert size(999_900) == "1 MB"
    assert size(5e16) == "50000 TB"
