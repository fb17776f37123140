"""`medtune publish`: a run's adapter, or its merged model, on the Hub, with the card and the scores that go with it."""

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from medtune.errors import HubError, HubUnavailableError, Option, PublishError
from medtune.model.loading import DEMO_MODEL
from medtune.model.merging.folder import record_of
from medtune.publishing.differences import MANIFEST, Differences, find_differences, write_manifest
from medtune.publishing.licences import BaseLicence, agreement_files, base_licence
from medtune.publishing.model_card import CardRequest, loading_example
from medtune.publishing.public_names import PublicNames, public_names
from medtune.publishing.upload_checks import require_finite_weights, require_name, require_no_secrets
from medtune.publishing.upload_files import Uploads
from medtune.run_dir.completing import how_to_complete
from medtune.run_dir.directory import RunDir
from medtune.runtime.progress import say
from medtune.runtime.terminal import one_line
from medtune.storage import hub_repositories
from medtune.storage.hub import is_repository_name

# `without-evaluation`: a model of which nothing shows what tuning changed. `without-report`: leave report.html, which
# holds test rows and answers, at home. `overwrite`: replace files that medtune did not put there as they are.
PublishOption = Literal["without-evaluation", "without-report", "overwrite"]
# The file of a model of the other kind: transformers would take one for the other.
_OTHER_KIND = {True: "adapter_config.json", False: "config.json"}


@dataclass(frozen=True, slots=True)
class Published:
    """Where it is, the commit that was made (None where nothing differed, or in a dry run), and what became of files.

    `python` is what loads it, as its card shows it.
    """

    repo: str
    url: str
    private: bool
    commit: str | None
    sent: tuple[str, ...]
    kept: tuple[str, ...]
    deleted: tuple[str, ...]
    python: str


def publish(
    run: RunDir,
    repo: str,
    *,
    private: bool = False,
    merged: Path | None = None,
    base_model: str | None = None,
    dry_run: bool = False,
    options: Collection[PublishOption] = (),
) -> Published:
    """Put the adapter of `run`, or the merged model in the folder `merged`, into the Hub's repository `repo`.

    The repository is made if it is not there, `private` if wanted; of one that is there nobody's access is changed.
    What it holds already is not sent again, all of the rest comes in one commit, and files of a user's own stay. Says
    on stderr what goes up before it does; a `dry_run` ends there, and needs no token. `base_model` is the Hub id of a
    base model that the run read from a folder.

    Raises PublishError for what must not go up, HubError for what the Hub refuses, HubUnavailableError for what may
    work when it is tried again, and RunDirError if the run is not complete.
    """
    _require_known_options(options)
    run.require("train")
    _require_unknown_base(run, base_model)
    names = public_names(run, base_model)
    licence = base_licence(run, names)
    _check_request(run, repo, names, licence, options)
    if not dry_run:
        hub_repositories.require_write_token(repo)
    request = CardRequest(
        repo=repo,
        merged=merged is not None,
        merge=record_of(merged) if merged is not None and merged.is_dir() else None,
        base_model=base_model,
        has_report=run.report_file.is_file() and "without-report" not in options,
    )
    with tempfile.TemporaryDirectory(prefix="medtune-publish-") as folder:
        files = _collect(run, names, licence, request, merged, Path(folder) / "files")
        require_no_secrets(files)
        require_finite_weights(files.values())
        state = _look(repo, dry_run=dry_run)
        _check_repository(repo, state, private=private, merged=merged is not None)
        found = find_differences(repo, state, files, Path(folder))
        _show(repo, state, found, private=private)
        _check_edited(repo, found, options)
        # Where nothing is sent the access is what it is, or what it would be.
        access = state.private if state else private
        url, python = hub_repositories.repository_address(repo), loading_example(run, request)
        done = Published(repo, url, access, commit=None, sent=(), kept=found.names("same"), deleted=(), python=python)
        return done if dry_run else _send(done, state, files, found, private=private)


def _require_known_options(options: Collection[str]) -> None:
    if isinstance(options, str):
        raise PublishError(f"options={options!r}", f"must be a list of names, such as [{options!r}]")
    if unknown := set(options).difference(get_args(PublishOption)):
        raise PublishError("options", f"{', '.join(sorted(unknown))}: must be of {', '.join(get_args(PublishOption))}")


def _require_unknown_base(run: RunDir, base_model: str | None) -> None:
    if base_model is not None and public_names(run).base_on_hub:
        problem = f"the run read {one_line(run.config.model.base)} from the Hub, and that is what is published"
        fix = ("leave ", Option("base_model"), " out")
        raise PublishError(Option("base_model", one_line(base_model)), problem, fix)


def _check_request(
    run: RunDir, repo: str, names: PublicNames, licence: BaseLicence, options: Collection[PublishOption]
) -> None:
    require_name(repo, licence)
    if names.base_on_hub and not is_repository_name(names.base):
        raise PublishError(Option("base_model", one_line(names.base)), "must be a Hub model's id, such as owner/name")
    if "without-evaluation" not in options and not run.is_complete("compare"):
        fix = (how_to_complete(run, "compare"), ", or add ", Option("without_evaluation"))
        raise PublishError(run.path, "not evaluated, so its card would show nothing of what tuning changed", fix)
    if not names.base_on_hub and names.base != DEMO_MODEL:
        say(
            f"{names.base}: not a model of the Hub, so that nobody else can load it by this name; if it is there, name "
            f"it with {Option('base_model', 'owner/name')}"
        )
    if licence.notice and not agreement_files(run):
        say(f"the {licence.title} wants a copy of itself to go along; put LICENSE of {names.base} into the repository")


def _collect(
    run: RunDir, names: PublicNames, licence: BaseLicence, request: CardRequest, merged: Path | None, folder: Path
) -> dict[str, Path]:
    uploads = Uploads(run, names, folder)
    if merged is None:
        uploads.add_adapter()
    else:
        uploads.add_merged(merged)
    uploads.add_evidence(request, licence)
    return {**uploads.files, MANIFEST: write_manifest(uploads.files, folder)}


def _look(repo: str, *, dry_run: bool) -> hub_repositories.RepositoryState | None:
    """The repository as it is. A dry run goes on without it, so that it works on a machine without a network."""
    try:
        return hub_repositories.find_repository(repo)
    except HubError as error:
        if not dry_run:
            raise
        say(f"{error}; shown as if it were new")
        return None


def _check_repository(
    repo: str, state: hub_repositories.RepositoryState | None, *, private: bool, merged: bool
) -> None:
    if state is None:
        return
    if private and not state.private:
        fix = "make it private in its settings, or name another"
        raise PublishError(f"repository {repo}", ("public, and ", Option("private"), " was given"), fix)
    if _OTHER_KIND[merged] in state.files:
        holds, other = ("an adapter", "merged model") if merged else ("a whole model", "adapter")
        raise PublishError(f"repository {repo}", f"holds {holds}", f"name another repository for the {other}")


def _check_edited(repo: str, found: Differences, options: Collection[PublishOption]) -> None:
    if found.edited and "overwrite" not in options:
        problem = f"{', '.join(found.edited)} there {'is' if len(found.edited) == 1 else 'are'} not as medtune put it"
        fix = ("keep a copy and add ", Option("overwrite"), ", or name another repository")
        raise PublishError(f"repository {repo}", problem, fix)


def _send(
    done: Published,
    state: hub_repositories.RepositoryState | None,
    files: Mapping[str, Path],
    found: Differences,
    *,
    private: bool,
) -> Published:
    sent, deleted = found.names("new", "changed"), found.names("delete")
    if state is not None and not sent and not deleted:
        say("nothing to upload: the repository holds all of it")
        return done
    state = state or hub_repositories.make_repository(done.repo, private=private)
    if private and not state.private:  # somebody made it in between
        raise PublishError(f"repository {done.repo}", ("public, and ", Option("private"), " was given"), "name another")
    try:
        commit = hub_repositories.commit_files(
            done.repo,
            {name: files[name] for name in sent},
            deleted=deleted,
            message="Publish with medtune",
            parent=state.commit,
        )
    except HubUnavailableError as error:
        (problem,) = error.problems
        fix = (problem.fix, "; the same command goes on from there, and sends nothing twice")
        raise HubUnavailableError(
            problem.what, problem.problem, fix, reason=error.reason, seconds=error.seconds
        ) from None
    return replace(done, private=state.private, commit=commit, sent=sent, deleted=deleted)


def _show(repo: str, state: hub_repositories.RepositoryState | None, found: Differences, *, private: bool) -> None:
    access = "private" if (state.private if state else private) else "public"
    say(f"repository {repo} ({access}{'' if state else ', new'}):")
    width = max(len(change.name) for change in found.changes)
    for change in found.changes:
        holds_rows = change.name == "report.html" and change.state != "delete"
        note = "  (holds test rows and answers)" if holds_rows else ""
        say(f"  {change.state:<8}{change.name:<{width}}  {_size(change.bytes):>9}{note}")
    every, sent = found.names("new", "changed", "same"), found.names("new", "changed")
    say(
        f"{len(every)} files, {_size(found.bytes('new', 'changed', 'same'))}; to send: {len(sent)}, "
        f"{_size(found.bytes('new', 'changed'))}"
    )


def _size(count: int) -> str:
    for unit, digits in (("B", 0), ("kB", 1), ("MB", 1)):
        if count < 1000:
            return f"{count:.{digits}f} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:.2f} GB"
