"""Small trainings of the tiny model, and what of them must be equal."""

import torch

from medtune.config.schema import Config
from medtune.data.prompts import PromptRenderer
from medtune.data.training_rows import encode_for_training
from medtune.model.adapters import attach_adapter, attach_new_adapter
from medtune.model.loading import load_base_model, prepare_for_training, resolve_base
from medtune.records import QAPair
from medtune.run_dir.directory import RunDir
from medtune.training import answer_trainer, sft
from medtune.training.prepared_step import PreparedStep, TrainingJob


def rows(tiny, count=24, start=0):
    renderer = PromptRenderer(tiny.tokenizer, "Be kind.")
    pairs = [
        QAPair(str(i), "causes", f"What causes number {i} ?", f"Nobody knows what causes number {i}. " * (1 + i % 5))
        for i in range(start, start + count)
    ]
    return encode_for_training(renderer, pairs, max_length=512, overlong="cut").rows


def make_config(tiny, *, model=None, lora=None, **training):
    settings = {
        "effective_batch_rows": 8,
        "learning_rate": 1e-2,
        "max_steps": 4,
        "checkpoint_steps": 2,
        "checkpointing": "none",
        **training,
    }
    values = {"model": {"base": str(tiny.path), **(model or {})}, "data": {"source": "x"}, "training": settings}
    return Config.model_validate({**values, "lora": {"rank": 4, **(lora or {})}})


def train(tiny, tmp_path, config, *, resume_from=None, train_rows=None, dtype="float32", adapter=None):
    base = load_base_model(resolve_base(str(tiny.path)), config.model, device="cpu", dtype=dtype)
    base = prepare_for_training(base, config.model.kbit_preparation)
    model = (
        attach_new_adapter(base, config.lora, config.seed)
        if adapter is None
        else attach_adapter(base, adapter, trainable=True)
    )
    encoded = train_rows or rows(tiny)
    prepared = PreparedStep(model, encoded, config, device="cpu", dtype=dtype)
    job = make_job(tiny, tmp_path, config, prepared, encoded, dtype=dtype, resume_from=resume_from)
    model, result = sft.train_adapter(job)
    weights = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    return weights, job.run.read_history(), result


def make_job(tiny, tmp_path, config, prepared, train_rows, *, dtype="float32", resume_from=None):
    return TrainingJob(
        prepared=prepared,
        tokenizer=tiny.tokenizer,
        train_rows=train_rows,
        validation_rows=rows(tiny, 6, start=100),
        seed=config.seed,
        run=RunDir(tmp_path),
        dtype=dtype,
        resume_from=resume_from,
    )


def losses(history, key="loss"):
    return [entry[key] for entry in history if key in entry]


def assert_same(first, second, **tolerance):
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], **tolerance)


def room_for(monkeypatch, tokens):
    """A GPU on which a pass of more than `tokens` tokens runs out of memory."""
    passes, tried = answer_trainer.AnswerTrainer.passes, []

    def limited(self, model, micro_batches, answer_tokens, **options):
        tried.append(max(batch["input_ids"].numel() for batch in micro_batches))
        if tried[-1] > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        return passes(self, model, micro_batches, answer_tokens, **options)

    monkeypatch.setattr(answer_trainer.AnswerTrainer, "passes", limited)
    return tried


def huge_adapter(tiny, tmp_path):
    """Finite, or it would not be loaded; its first step is not."""
    model = attach_new_adapter(tiny.load(), make_config(tiny).lora, 0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.fill_(1e30)
    model.save_pretrained(tmp_path / "huge")
    return tmp_path / "huge"
