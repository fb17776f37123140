"""What the server needs and is not there is named with the way to get it."""

import pytest

from medtune.errors import ConfigError
from medtune.inference.serving import extra


def test_nothing_is_missing_where_all_is_there(monkeypatch):
    asked = []
    monkeypatch.setattr(extra, "find_spec", lambda name: asked.append(name) or name)
    extra.require_extra()
    assert asked == ["starlette", "uvicorn", "prometheus_client"]


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ({"uvicorn"}, "uvicorn is not installed"),
        ({"starlette", "prometheus_client"}, "starlette and prometheus_client are not installed"),
    ],
)
def test_what_is_missing_is_named_in_one_line(monkeypatch, missing, said):
    monkeypatch.setattr(extra, "find_spec", lambda name: None if name in missing else name)
    with pytest.raises(ConfigError) as caught:
        extra.require_extra()
    assert str(caught.value) == f'serve: {said}; pip install "medtune[serve]"'
