"""What may not be published is found before anything goes up."""

import pytest
import torch
from safetensors.torch import save_file

from medtune.errors import ModelError, PublishError
from medtune.publishing import upload_checks
from medtune.publishing.upload_checks import require_finite_weights, require_plain_files


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("row", range(5))
def test_one_bad_number_in_any_block_of_a_tensor_is_found(tmp_path, monkeypatch, bad, row):
    monkeypatch.setattr(upload_checks, "_BLOCK_BYTES", 4 * 3 * 2)  # two rows of three numbers, and one row at the end
    weights = {name: torch.zeros(5, 3, dtype=torch.bfloat16) for name in ("a", "b", "c")}
    file = tmp_path / "adapter_model.safetensors"
    save_file(weights, file)
    require_finite_weights([file])
    weights["b"][row, row % 3] = bad
    save_file(weights, file)
    with pytest.raises(PublishError, match=r"adapter_model\.safetensors: b holds NaN or infinite numbers"):
        require_finite_weights([file])


def test_every_file_of_weights_is_looked_at_and_no_other(tmp_path):
    for name, value in (("one", 0.0), ("two", float("nan"))):
        save_file({"w": torch.full((2, 2), value)}, tmp_path / f"{name}.safetensors")
    (tmp_path / "README.md").write_text("nan")
    require_finite_weights([tmp_path / "README.md", tmp_path / "one.safetensors"])
    with pytest.raises(PublishError, match=r"two\.safetensors: w holds"):
        require_finite_weights([tmp_path / "one.safetensors", tmp_path / "two.safetensors"])


def test_torn_weights_are_named(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match=r"model\.safetensors: cannot be read"):
        require_finite_weights([tmp_path / "model.safetensors"])


def test_links_and_programs_are_refused_together(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    require_plain_files(folder)
    (folder / "pytorch_model.bin").write_bytes(b"")
    (folder / "linked.json").symlink_to(folder / "adapter_config.json")
    with pytest.raises(PublishError) as caught:
        require_plain_files(folder)
    assert str(caught.value).splitlines() == [
        f"{folder}/linked.json: a link; put the file itself there",
        f"{folder}/pytorch_model.bin: a pickle or a program, which is never published; delete it",
    ]
