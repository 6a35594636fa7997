"""What a push leaves out by default is what the pinned truss leaves out."""

from kingpost.build import truss_env
from kingpost.client import ignore


def test_the_default_patterns_are_those_of_truss() -> None:
    (found,) = truss_env.ensure().root.glob("lib/python*/site-packages/truss/util/.truss_ignore")
    assert set(ignore.DEFAULT_PATTERNS) == set(ignore.parse_patterns(found.read_text()))
