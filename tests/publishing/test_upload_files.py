"""The files that go up: copies without paths of this machine, and a whole merge of this run's adapter."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hub_uploads import written
from medtune.errors import MedtuneError
from medtune.pipeline.merge import merge_stage
from medtune.publishing.publish import publish
from medtune.run_dir.directory import RunDir
from medtune.run_dir.lock import release_locks
from medtune.storage.reading import describe_file

REPO = "owner/tiny-medical"


def test_paths_under_the_home_directory_stay_at_home(hub, reconfigured, tiny, tmp_path, monkeypatch):
    base = Path(shutil.copytree(tiny.path, tmp_path / "base"))
    run = reconfigured(model={"base": str(base)})
    for file in (base / "config.json", run.adapter_dir / "adapter_config.json"):
        values = json.loads(file.read_text())
        file.write_text(json.dumps({**values, "note": "/home/alice/secret/base", "other": "/home/alice"}))
    run.complete("train", {})
    # Its stages had the base elsewhere, and before the notes.
    run.provenance_file.write_text(run.provenance_file.read_text().replace("base_identity", "older"))
    run = RunDir(run.path)
    merge_stage(run, tmp_path / "merged", measure=False)
    release_locks()
    monkeypatch.setenv("HOME", "/home/alice")
    publish(run, "owner/whole", merged=tmp_path / "merged", options=["without-evaluation"])
    publish(run, REPO, options=["without-evaluation"])
    for repo, name in (("owner/whole", "config.json"), (REPO, "adapter_config.json")):
        published = json.loads(hub.head(repo)[name])
        assert (published["note"], published["other"]) == ("~/secret/base", "~")
    # What describes the files is true of them as they are there.
    head = hub.head("owner/whole")
    for name, described in json.loads(head["merge.json"])["files"].items():
        assert described == {"bytes": len(head[name]), "sha256": hashlib.sha256(head[name]).hexdigest()}, name


def test_a_merged_folder_that_is_not_this_runs_or_not_whole(hub, copied_run, merged, tmp_path):
    def refused(folder: Path) -> str:
        with pytest.raises(MedtuneError) as caught:
            publish(copied_run, "owner/whole", merged=folder)
        return str(caught.value)

    assert "no such folder; make it with `medtune merge" in refused(tmp_path / "nothing")
    assert "no such folder; make it with `medtune merge" in refused(merged / "merge.json")
    shard = sorted(merged.glob("*.safetensors"))[0]
    content = shard.read_bytes()
    weights = load_file(shard)
    name = sorted(weights)[0]
    save_file({**weights, name: torch.full_like(weights[name], float("nan"))}, shard, {"format": "pt"})
    assert f"its {shard.name} is not as it was written; delete it, and merge again" in refused(merged)
    record = json.loads((merged / "merge.json").read_text())
    files = {**record["files"], shard.name: describe_file(shard)}
    (merged / "merge.json").write_text(json.dumps(record | {"files": files}))
    assert f"{name} holds NaN" in refused(merged)
    (merged / "merge.json").write_text(json.dumps(record))
    shard.unlink()
    assert f"its {shard.name} is missing; delete it, and merge again" in refused(merged)
    shard.write_bytes(content)
    (merged / "tokenizer.json").rename(merged / "elsewhere")
    assert "its tokenizer.json is missing; delete it, and merge again" in refused(merged)
    (merged / "elsewhere").rename(merged / "tokenizer.json")
    (merged / "merge.json").write_text(json.dumps(record | {"adapter": "of another"}))
    assert "merged from another adapter" in refused(merged)
    (merged / "merge.json").unlink()
    assert f"{merged}: no merged model; make one with `medtune merge" in refused(merged)
    assert (copied_run.path / "merge.json").is_file()  # which is of a merge elsewhere
    assert f"{copied_run.path}: no merged model; make one with `medtune merge" in refused(copied_run.path)
    assert written(hub) == []


def test_the_record_of_an_earlier_adapters_merge_stays_at_home(hub, copied_run, tmp_path):
    merge_stage(copied_run, tmp_path / "merged", measure=False)
    release_locks()
    publish(copied_run, REPO)
    assert "merge.json" in hub.head(REPO)
    record = json.loads(copied_run.merge_file.read_text())
    copied_run.write_json(copied_run.merge_file, record | {"adapter": "an earlier one"})
    publish(copied_run, REPO)
    assert "merge.json" not in hub.head(REPO)
