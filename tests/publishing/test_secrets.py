"""Secrets are found by form, by the environment's names and by the user's own token, and never shown."""

import base64
import gzip
import json

import pytest
import torch
from safetensors.torch import save_file

from medtune.errors import spell_out
from medtune.publishing.secrets import find_secrets

FORMS = {
    "a Hugging Face token": "hf_" + "aB3" * 12,
    "an AWS access key": "ASIA" + "ABCDEFGH12345678",
    "an AWS secret key": "aws_secret_access_key = " + "aB3/" * 10,
    "a private key": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "a GitHub token": "ghp_" + "aB3x" * 9,
    "a Weights & Biases key": "wandb_api_key: " + "0a1b2c3d4e" * 4,
    "a key of OpenAI's or Anthropic's form": "sk-ant-" + "aB3-" * 10,
    "a Google API key": "AIza" + "aB3_x" * 7,
    "a Slack token": "xoxb-123456789012-abc",
    "a password in an address": "https://me:pass-word@db.example/x",
}


@pytest.fixture(autouse=True)
def no_secrets_of_this_machine(monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setattr("medtune.publishing.secrets.os.environ", {})


def found(tmp_path, content, name="notes.md"):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return lines_of(file, name)


def lines_of(file, name):
    return [spell_out(problem.line) for problem in find_secrets(name, file)]


@pytest.mark.parametrize(("kind", "secret"), FORMS.items(), ids=FORMS)
def test_by_their_form(tmp_path, kind, secret):
    (line,) = found(tmp_path, f"one\ntwo\nUse {secret} here.\n")
    assert line == f"notes.md: holds {kind} in line 3; take it out, and replace it where it is used"
    assert secret not in line


@pytest.mark.parametrize(
    "text",
    [
        "hf_short", "the hf_token of a user", "https://me@host.example", "a key: value", "sk-learn and sk-image",
        "see https://example.org:8080/path@2", "-----BEGIN PUBLIC KEY-----", "0a1b2c3d4e" * 4,
    ],
)  # fmt: skip
def test_what_looks_like_none_is_none(tmp_path, text):
    assert found(tmp_path, text) == []


def test_every_place_is_told_in_order(tmp_path):
    lines = found(tmp_path, "\n".join([FORMS["a GitHub token"], "", FORMS["a Slack token"], FORMS["a GitHub token"]]))
    assert [line.split(";")[0] for line in lines] == [
        "notes.md: holds a GitHub token in line 1",
        "notes.md: holds a Slack token in line 3",
        "notes.md: holds a GitHub token in line 4",
    ]


def test_a_line_end_of_json_makes_no_word_of_what_follows(tmp_path):
    text = json.dumps({"text": "first\n" + FORMS["a Hugging Face token"]})
    assert len(found(tmp_path, text, "recipe.json")) == 1


def test_values_of_variables_that_are_called_secret(tmp_path, monkeypatch):
    names = {"MY_SERVICE_TOKEN": "open-sesame-and-more", "SHORT_KEY": "abc", "EDITOR": "a-long-enough-editor"}
    monkeypatch.setattr("medtune.publishing.secrets.os.environ", names)
    (line,) = found(tmp_path, " ".join(names.values()))
    assert line.startswith("notes.md: holds the value of MY_SERVICE_TOKEN in line 1;")


def test_the_users_own_token_whatever_its_form(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "token of no form")
    (line,) = found(tmp_path, "x token of no form x")
    assert line.startswith("notes.md: holds this user's token of the Hub in line 1;")


def test_answers_that_the_report_holds_packed(tmp_path):
    packed = base64.b64encode(gzip.compress(f"an answer with {FORMS['a Slack token']} in it".encode())).decode()
    (line,) = found(tmp_path, f"<script>\nconst rows = '{packed}'</script>", "report.html")
    assert line.startswith("report.html: holds a Slack token in line 2, packed;")
    assert found(tmp_path, "H4sI" + "A" * 40, "report.html") == [], "what cannot be unpacked nobody reads"


def test_of_weights_the_header_is_text_and_numbers_are_not(tmp_path):
    secret = FORMS["a Hugging Face token"]
    file = tmp_path / "model.safetensors"
    numbers = torch.frombuffer(bytearray(secret.encode()), dtype=torch.uint8)
    save_file({"w": numbers}, file)
    assert list(find_secrets("model.safetensors", file)) == []
    save_file({"w": numbers}, file, {"note": secret})
    assert len(list(find_secrets("model.safetensors", file))) == 1


def test_a_files_name_stays_on_its_line(tmp_path):
    file = tmp_path / "a.md"
    file.write_text(FORMS["a private key"])
    (line,) = lines_of(file, "a\nb.md")
    assert line.startswith(r"a\nb.md: holds a private key")
