"""YAML as recipes are written in it: plain values, read within bounds, written with every key."""

from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, DuplicateKeyError, SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scanner import Scanner

from medtune.config.schema import Config
from medtune.errors import ConfigError, Text

MAX_RECIPE_BYTES = 1 << 20
# A recipe has some sixty keys.
MAX_MERGED_KEYS = 10_000


def dump_config(config: Config) -> str:
    """The configuration as YAML, every key written out."""
    stream = StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.width = 2**31 - 1  # where ruamel folds a line beside an escape, a blank comes or goes
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    values = config.model_dump(mode="json")
    # ruamel writes U+0085 as it is and reads it back as a blank; escaped it survives.
    yaml.allow_unicode = "\\x85" not in repr(values)
    yaml.dump(values, stream)
    return stream.getvalue()


def read_recipe_text(path: Path, origin: str) -> str:
    """The text of a recipe's file. Raises ConfigError, naming `origin`, if it is too large or not UTF-8."""
    if path.stat().st_size > MAX_RECIPE_BYTES:
        raise ConfigError(origin, f"larger than {MAX_RECIPE_BYTES} bytes", "a recipe is a short YAML file")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        reason = f"{error.reason} at byte {error.start}"
        raise ConfigError(origin, f"not UTF-8 text ({reason})", "save it as UTF-8") from None


def parse_yaml(text: str, origin: str) -> dict[str, Any]:
    """The mapping that a recipe is. Raises ConfigError, naming `origin`, the line and the fix."""
    values = load_yaml(text, origin)
    if not isinstance(values, dict):
        raise ConfigError(origin, f"must be a mapping of sections such as model and data, got {type(values).__name__}")
    return values


def load_yaml(text: str, origin: Text) -> Any:
    """Any YAML value. Raises ConfigError, naming `origin`, the line and the fix."""
    # The pure loader speaks YAML 1.2, in which 2e-4 is a number and `no` a string, and refuses duplicate keys.
    try:
        yaml = YAML(typ="safe", pure=True)
        yaml.Scanner = _TaglessScanner
        yaml.Constructor = _BoundedConstructor
        yaml.composer.warn_double_anchors = False  # which YAML 1.2 allows
        return yaml.load(text)
    except DuplicateKeyError as error:
        problem = str(error.problem or "a key is given twice").split(" with")[0]
        raise ConfigError(origin, f"{problem}{_at(error)}", "keep one of them") from None
    except ConstructorError as error:
        problem = str(error.problem)
        problem = "YAML tags are not allowed" if "tag" in problem else f"not valid YAML: {problem}"
        raise ConfigError(origin, f"{problem}{_at(error)}", "write plain values") from None
    except YAMLError as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(origin, f"not valid YAML: {problem}{_at(error)}") from None
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        # The constructors' own: a date of month 99, an integer of 5,000 digits, a list as a key, `!!int` of nothing.
        raise ConfigError(origin, f"not valid YAML: {error}") from None
    except RecursionError:
        raise ConfigError(origin, "nested too deeply", "a recipe has sections and keys only") from None


class _TaglessScanner(Scanner):
    """Refuses any tag: the safe ones make sets, whose order is another in every process, and pairs of one key."""

    def fetch_tag(self) -> None:
        """Raises ConstructorError."""
        raise ConstructorError(problem="a tag", problem_mark=self.reader.get_mark())


class _BoundedConstructor(SafeConstructor):
    """Counts the keys that `<<` brings in: a few lines of it, each merging the last one nine times, make millions."""

    merged = 0

    def flatten_mapping(self, node: Any) -> Any:
        """As the parent class. Raises ConstructorError for more than `MAX_MERGED_KEYS`."""
        super().flatten_mapping(node)
        self.merged += len(getattr(node, "merge", None) or ())
        if self.merged > MAX_MERGED_KEYS:
            raise ConstructorError(problem=f"merges more than {MAX_MERGED_KEYS:,} keys", problem_mark=node.start_mark)


def _at(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
