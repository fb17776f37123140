"""Where a base model is put, for training and for answers."""

import pytest
from transformers import AutoModelForCausalLM

from medtune.config.schema import Config
from medtune.model.loaded import load_model


@pytest.mark.parametrize(("for_training", "placed"), [(True, {"": "cpu"}), (False, "auto")])
def test_a_device_map_is_for_answers_and_training_stays_on_one_device(tiny, monkeypatch, for_training, placed):
    """A 4-bit model that is spread out or offloaded cannot be trained."""
    load, asked = AutoModelForCausalLM.from_pretrained, []

    def watched(*args, **options):
        asked.append(options["device_map"])
        return load(*args, **options)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", watched)
    config = Config.model_validate(
        {"model": {"base": str(tiny.path), "device_map": "auto", "dtype": "float32"}, "data": {"source": "x"}}
    )
    loaded = load_model(config, for_training=for_training)
    assert asked == [placed]
    assert {parameter.device.type for parameter in loaded.model.parameters()} == {"cpu"}
