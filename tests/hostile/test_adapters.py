"""Adapters of others: pickles, weights that do not fit, settings that name code, links that lead elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from command_line import Medtune
from hostile import inputs
from hostile.cases import MARK, Refused, parametrize, refused, require_refused, snapshot
from hostile.inputs import adapter, adapter_setting

ASK = "ask adapter 'Why ?'"
WEIGHTS, CONFIG = "adapter/adapter_model.safetensors", "adapter/adapter_config.json"
FIRST = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"
NEEDED = "a LoRA adapter in PEFT's format is needed"
CONVERT = (
    'convert it in its folder: python -c "import torch; from safetensors.torch import save_file; w = '
    "torch.load('adapter_model.bin', map_location='cpu', weights_only=True); save_file({k: v.contiguous() for k, v in "
    "w.items()}, 'adapter_model.safetensors')\""
)
RETRY = "name the base that it was trained on, or train or fetch it again"


def _weights(change: Any) -> inputs.Maker:
    return adapter(inputs.edit_weights(WEIGHTS, change))


def _scaled(factor: float) -> Any:
    return lambda weights: {name: weight * (factor if name == FIRST else 1) for name, weight in weights.items()}


def _unfit(problem: str) -> str:
    return f"adapter: this adapter does not fit the base model (adapter_model.safetensors {problem}); {RETRY}"


def _unreadable(why: str) -> str:
    return f"{WEIGHTS}: not a safetensors file (Error while deserializing header: {why}); fetch or save it again"


def _setting(what: str, problem: str, **settings: Any) -> Refused:
    return refused(what, adapter_setting(**settings), ASK, f"{CONFIG}: {problem}")


def _linked(name: str, target: str) -> inputs.Maker:
    def make(workspace: Path) -> None:
        shutil.move(workspace / "adapter" / name, workspace / target)
        inputs.link(f"adapter/{name}", f"../{target}")(workspace)

    return adapter(make)


PICKLES = [
    refused("pickled weights in place of safetensors",
            adapter(inputs.remove(WEIGHTS), inputs.torch_saved("adapter/adapter_model.bin")), ASK,
            "adapter: no adapter_model.safetensors in it, but a pickle (adapter_model.bin), which can run code and is "
            "never loaded; "
            f"{CONVERT}"),
    refused("a pickle called adapter_model.safetensors", adapter(inputs.pickled(WEIGHTS)), ASK,
            _unreadable("header too large")),
    refused("a torch file called adapter_model.safetensors", adapter(inputs.torch_saved(WEIGHTS)), ASK,
            _unreadable("header too large")),
    refused("a pickle called adapter_config.json", adapter(inputs.pickled(CONFIG)), ASK,
            f"{CONFIG}: not UTF-8 text, invalid start byte at byte 0; {NEEDED}"),
]  # fmt: skip

BROKEN = [
    refused("empty weights", adapter(inputs.file(WEIGHTS, "")), ASK, _unreadable("header too small")),
    refused("weights cut off", adapter(inputs.cut(WEIGHTS, 100, first=inputs.both())), ASK,
            _unreadable("incomplete metadata, file not fully covered")),
    refused("a header that claims 2⁶⁴ bytes", adapter(inputs.file(WEIGHTS, b"\xff" * 8 + b"{}")), ASK,
            _unreadable("header too large")),
    refused("weights of another shape",
            _weights(lambda weights: {name: weight[:, :5].contiguous() for name, weight in weights.items()}), ASK,
            _unfit("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight has shape (16, 5), and its place "
                   "(16, 64)")),
    refused("half of the weights", _weights(lambda weights: dict(list(weights.items())[::2])), ASK,
            _unfit(f"lacks 14 of the adapter's 28 weights, such as {FIRST.replace('_A', '_B')}")),
    refused("weights under names that have no place",
            _weights(lambda weights: {**weights, "base_model.model.head.weight": weights[FIRST].clone()}), ASK,
            _unfit("holds weights that have no place in the model, such as base_model.model.head.weight")),
    refused("a head of another model",
            _weights(lambda weights: {**weights, "base_model.model.lm_head.weight": weights[FIRST].clone()}), ASK,
            _unfit("base_model.model.lm_head.weight has shape (16, 128), and its place (400, 64)")),
    refused("NaN in one weight", _weights(_scaled(float("nan"))), ASK,
            _unfit(f"{FIRST} holds NaN, infinite or whole numbers")),
    refused("infinity in one weight", _weights(_scaled(float("inf"))), ASK,
            _unfit(f"{FIRST} holds NaN, infinite or whole numbers")),
    refused("whole numbers for weights",
            _weights(lambda weights: {name: weight.int() for name, weight in weights.items()}), ASK,
            _unfit(f"{FIRST} holds NaN, infinite or whole numbers")),
]  # fmt: skip

FOREIGN = "{} is not of a plain LoRA adapter, and is never followed; give another adapter"
CODE = [
    _setting("a library to import (`megatron_core`)", FOREIGN.format("megatron_config"),
             megatron_config={"a": 1}, megatron_core="planted"),
    _setting("a class to load (`auto_mapping`)", FOREIGN.format("auto_mapping"), task_type=None,
             auto_mapping={"base_model_class": "Model", "parent_library": "planted"}),
    _setting("other adapters to load by their paths (`arrow_config`)", FOREIGN.format("arrow_config"),
             arrow_config={"experts": "../elsewhere"}),
    _setting("layers that are added", FOREIGN.format("layer_replication"), layer_replication=[[0, 1_000_000_000]]),
    _setting("parameters that are no layers", FOREIGN.format("target_parameters"), target_parameters=["x.y"]),
    _setting("first weights that change the base",
             "started by pissa, which changed its base's weights: it does not fit the untouched base; save it again "
             "with PEFT's save_pretrained(…, path_initial_model_for_weight_conversion=START), which makes a plain LoRA "
             "adapter of it",
             init_lora_weights="pissa"),
    _setting("first weights from a path", "init_lora_weights: input should be a valid boolean; " + NEEDED,
             init_lora_weights="../../etc"),
    _setting("a method that nobody knows", f"peft_type: input should be 'LORA'; {NEEDED}", peft_type="NEW"),
    _setting("another method",
             "PROMPT_TUNING, which puts trained vectors before every prompt, which no merged model and no packed row "
             "can hold; medtune reads LoRA, rsLoRA and DoRA; train or fetch a LoRA adapter",
             peft_type="PROMPT_TUNING"),
    _setting("a method that is a list", f"peft_type: input should be 'LORA'; {NEEDED}", peft_type=["LORA"]),
    _setting("another task",
             "an adapter for SEQ_CLS, whose model writes no answers; give one for CAUSAL_LM", task_type="SEQ_CLS"),
    refused("a whole module that the weights lack (`modules_to_save`)", adapter_setting(modules_to_save=["lm_head"]),
            ASK, "adapter: this adapter does not fit the base model (it lacks 'base_model.model.lm_head.weight')"),
]  # fmt: skip

RANGES = [
    _setting("a rank of a billion", f"r: input should be less than or equal to 4096; {NEEDED}", r=10**9),
    _setting("a rank below zero", f"r: input should be greater than or equal to 1; {NEEDED}", r=-8),
    _setting("a rank in words", f"r: input should be a valid integer; {NEEDED}", r="8"),
    _setting("a scale that is NaN", f"lora_alpha: input should be a finite number; {NEEDED}", lora_alpha=float("nan")),
    _setting("a scale of 400 digits", f"lora_alpha: input should be …; {NEEDED}", lora_alpha=10**400),
    _setting("a dropout of 5", f"lora_dropout: input should be less than 1; {NEEDED}", lora_dropout=5),
    _setting("no layers", f"target_modules: input should be a valid list; {NEEDED}", target_modules=None),
    _setting("a path for a layer's name",
             f"target_modules.0: string should match pattern '^[\\w.^$-]{{1,200}}$'; {NEEDED}",
             target_modules=["../../x"]),
    _setting("a pattern that takes forever",
             "target_modules is no pattern, or one that could take forever; list the layers' names",
             target_modules="(([a-z_.])+)+X"),
    _setting("a pattern that is none",
             "target_modules is no pattern, or one that could take forever; list the layers' names",
             target_modules="(("),
    _setting("a rank for a pattern",
             "rank_pattern is no pattern, or one that could take forever; list the layers' names",
             rank_pattern={"(": 3}),
    refused("settings of medtune's own out of range",
            adapter(inputs.file("adapter/medtune.json", '{"max_new_tokens": 10000000}')), ASK,
            "adapter/medtune.json: damaged; delete it to use the default settings"),
    refused("settings of medtune's own nested 100,000 deep",
            adapter(inputs.file("adapter/medtune.json", "[" * 100_000)), ASK,
            "adapter/medtune.json: damaged; delete it to use the default settings"),
]  # fmt: skip

PATHS = [
    refused("weights that are a link out of the folder", _linked("adapter_model.safetensors", "outside"), ASK,
            f"{WEIGHTS}: a link out of its folder, to …/outside; put the file itself there"),
    refused("a configuration that is a link out of the folder",
            adapter(inputs.link(CONFIG, "/etc/passwd")), ASK,
            f"{CONFIG}: a link out of its folder, to /etc/passwd; put the file itself there"),
    refused("settings that are a link to a device", adapter(inputs.link("adapter/medtune.json", "/dev/zero")), ASK,
            "adapter/medtune.json: a link out of its folder, to /dev/zero; put the file itself there"),
    refused("a base model outside of every folder of models",
            inputs.both(inputs.file("../elsewhere/x", ""), adapter_setting(base_model_name_or_path="../elsewhere")),
            ASK,
            "../elsewhere: a folder without config.json; give a model's folder or Hub id in model.base"),
    refused("a Hub id that climbs out of the cache", adapter_setting(base_model_name_or_path="owner/../../x"), ASK,
            "owner/../../x: no such model folder; give an existing folder or a Hub id in model.base"),
    refused("a base model's name with an escape sequence and a line break",
            adapter_setting(base_model_name_or_path="\x1b[31mred\nline"), ASK,
            r"model \x1b[31mred\nline: neither an existing path nor a Hub id of the form owner/name"),
    refused("no base model", adapter_setting(base_model_name_or_path=None), ASK,
            "adapter: its adapter_config.json names no base model; give the run directory instead"),
    refused("a configuration that is a list", adapter(inputs.file(CONFIG, "[]")), ASK,
            f"{CONFIG}: a list, not an object; {NEEDED}"),
    refused("a configuration nested 100,000 deep", adapter(inputs.file(CONFIG, "[" * 100_000)), ASK,
            f"{CONFIG}: not JSON (a number too long, or nested too deeply); {NEEDED}"),
    refused("a configuration of 3 GB", adapter(inputs.huge(CONFIG)), ASK,
            f"{CONFIG}: larger than 67,108,864 bytes; {NEEDED}"),
    refused("a folder that is none", inputs.both(), "ask ./../nowhere 'Why ?'",
            "./../nowhere: no such adapter folder; give an existing folder or a Hub id"),
]  # fmt: skip

CASES: dict[str, list[Refused]] = {
    "Adapters with pickles": PICKLES,
    "Adapters with weights that do not fit": BROKEN,
    "Adapters whose settings name code": CODE,
    "Adapters with settings out of range": RANGES,
    "Adapters with paths that lead elsewhere": PATHS,
}


@parametrize([case for cases in CASES.values() for case in cases])
def test_refused(case: Refused, medtune: Medtune, workspace) -> None:
    require_refused(case, medtune, workspace)


def test_a_run_that_starts_from_one_is_not_begun(medtune: Medtune, workspace) -> None:
    adapter_setting(r=10**9)(workspace)
    result = medtune("run", "recipe.yaml", "--run-dir", "new", "--set", "model.adapter=adapter")
    assert (result.status, result.out) == (2, "")
    assert result.err.splitlines()[-1].startswith(f"medtune: {CONFIG}: r: ")
    assert not (workspace / "new").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"unknown": {"auto_map": "planted"}},
        {"runtime_config": {"ephemeral_gpu_offload": True}},
        {"megatron_core": "planted"},
        {"peft_version": {"planted": 1}},
        {"target_modules": "all-linear"},
        {"target_modules": ".*_proj"},
    ],
    ids=str,
)
def test_settings_without_effect_are_passed_over(settings: dict[str, Any], medtune: Medtune, workspace) -> None:
    adapter()(workspace)
    expected = medtune("ask", "adapter", "Why ?").out
    inputs.edit_json(CONFIG, lambda values: values.update(settings))(workspace)
    result = medtune("ask", "adapter", "Why ?")
    assert (result.status, result.out) == (0, expected)
    assert MARK not in snapshot(workspace)


def test_the_hubs_cache_may_link_to_its_store(medtune: Medtune, workspace) -> None:
    adapter()(workspace)
    snapshots, blobs = (workspace / "models--owner--name" / name for name in ("snapshots", "blobs"))
    blobs.mkdir(parents=True)
    shutil.copytree(workspace / "adapter", snapshots / "commit")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (snapshots / "commit" / name).rename(blobs / name)
        (snapshots / "commit" / name).symlink_to(f"../../blobs/{name}")
    assert medtune("ask", "models--owner--name/snapshots/commit", "Why ?").status == 0
