"""What a repository holds is compared with what would go up: edits are found, files of others stay."""

import json
import os
import re

from hub_server import blob_id
from medtune.publishing.differences import MANIFEST
from medtune.publishing.publish import publish

REPO = "owner/tiny-medical"


def test_files_of_others_stay_and_edits_are_not_lost(medtune, hub, copied_run):
    command = ("publish", copied_run.path, "--repo", REPO)
    copied_run.write_text(copied_run.report_file, "<html>rows</html>")
    hub.add("models", REPO, {".gitattributes": b"", "notes.txt": b"mine"})
    assert "holds test rows and answers" in medtune(*command).err
    assert hub.head(REPO)["report.html"] == b"<html>rows</html>"
    # What medtune put there goes when it is no part any more; what somebody put there stays.
    result = medtune(*command, "--without-report")
    assert re.search(r"  delete +report\.html", result.err)
    assert "report.html" not in hub.head(REPO)
    assert hub.head(REPO)["notes.txt"] == b"mine"
    card = hub.head(REPO)["README.md"]
    assert b"save in `report.html`" not in card
    hub.repos["models", REPO].commit({**hub.head(REPO), "README.md": card + b"\nMy own words.\n"})
    refused = medtune(*command, "--without-report")
    assert refused.status == 2
    assert "README.md there is not as medtune put it; keep a copy and add --overwrite" in refused.err
    assert medtune(*command, "--without-report", "--overwrite").status == 0
    assert hub.head(REPO)["README.md"] == card


def test_a_repository_with_a_card_of_its_own(medtune, hub, finished_run):
    hub.add("models", REPO, {"README.md": b"---\nlicense: mit\n---\n"})
    refused = medtune("publish", finished_run.path, "--repo", REPO)
    assert (refused.status, hub.heads) == (2, [])
    assert "add --overwrite" in refused.err
    hub.add("models", REPO, {"README.md": b"x", MANIFEST: b"[1, 2"})  # a damaged list vouches for nothing
    assert medtune("publish", finished_run.path, "--repo", REPO).status == 2


def test_the_manifest_names_what_git_and_the_store_know(hub, finished_run):
    publish(finished_run, REPO)
    head = hub.head(REPO)
    for name, described in json.loads(head[MANIFEST])["files"].items():
        assert described["blob"] == blob_id(head[name])
        assert described["bytes"] == len(head[name])
    assert os.environ["HF_TOKEN"].encode() not in b"".join(head.values())
