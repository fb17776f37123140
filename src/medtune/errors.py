"""What a user is shown when something of theirs is wrong: one line that names the thing and the fix."""


class MedtuneError(Exception):
    """A problem the user can mend. The command line prints each line of its text and exits with status 2.

    Lines after the first are further problems of the same kind, found together (a config with three wrong fields).
    """


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


class ConfigError(MedtuneError):
    """A recipe, a `--set` override or the pair of them does not make a valid configuration."""


class DataError(MedtuneError):
    """A data source cannot be read, lacks a column, or leaves nothing to train on or to score."""


class ModelError(MedtuneError):
    """A base model, tokenizer or adapter is missing, gated, unreachable or unfit for the job."""


class RunDirError(MedtuneError):
    """A run directory is not empty, is incomplete, or was made with another configuration."""


class DiskError(MedtuneError):
    """A file cannot be written: the disk is full, over a limit, read-only or broken, or permission is lacking.

    Its text ends with what to do first. The command line adds the command that goes on.
    """
