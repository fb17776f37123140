"""The packages of `medtune[serve]`, which only the server needs."""

from importlib.util import find_spec

from medtune.errors import ConfigError

_PACKAGES = ("starlette", "uvicorn", "prometheus_client")


def require_extra() -> None:
    """Raises ConfigError where one is not installed."""
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        problem = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
        raise ConfigError("serve", problem, 'pip install "medtune[serve]"')
