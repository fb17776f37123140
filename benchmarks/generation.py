"""Answers and reference losses of one arm; prints one JSON line. Each arm is a process of its own.

    generation.py MODEL [key=value …]

MODEL: a model's folder. Prompts are random tokens, 40 to 90 of them; every answer takes all its new tokens, greedily.
Keys: arm=medtune (the default), one_by_one or batch32 (transformers' generate over the weights as they are stored) ·
n (questions) · new (tokens an answer) · batch (questions at once; 0 takes what medtune chooses, or the arm's own) ·
losses=1 (medtune's reference losses as well, over `tokens` answer tokens of rows as long as MedQuAD's) · dtype.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from contextlib import redirect_stdout
from typing import Any

from reporting import forget_peaks, parse_options, peaks, print_measurement, synchronize

DEFAULTS: dict[str, Any] = {
    "arm": "medtune", "n": 256, "new": 128, "batch": 0, "losses": False, "tokens": 100_000, "dtype": "auto",
}  # fmt: skip
PROMPT_TOKENS = (40, 90)
# Special tokens come first in some vocabularies: random prompts hold none.
FIRST_TOKEN = 16
# MedQuAD's rows: the prompt, and a log-normal answer with its median and spread.
ROW_PROMPT, ANSWER_MEDIAN, ANSWER_SIGMA, ROW_LIMIT = 60, 190, 0.85, 1024
BATCHES = {"one_by_one": 1, "batch32": 32}


def main() -> None:
    """One arm, one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("options", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    options = parse_options(arguments.options, DEFAULTS)
    if options["arm"] != "medtune" and options["arm"] not in BATCHES:
        parser.error(f"arm={options['arm']}: must be medtune, {' or '.join(BATCHES)}")
    run = medtune_arm if options["arm"] == "medtune" else plain_arm
    with redirect_stdout(sys.stderr):
        figures = run(arguments.model, options)
    print_measurement(benchmark="generation", options=options, **figures)


def medtune_arm(path: str, options: dict[str, Any]) -> dict[str, Any]:
    """Through medtune's own loading, batching and decoding."""
    from medtune.runtime.process import keep_freed_memory, prepare_process

    keep_freed_memory()
    prepare_process()
    from medtune.config.schema import parse_config
    from medtune.inference.decoders.greedy import Greedy
    from medtune.inference.fused_model import prepare_inference
    from medtune.inference.generation import choose_batch_size, generate_tokens
    from medtune.model.loaded import load_model
    from medtune.runtime.gpus import this_gpu

    began, gpu = time.monotonic(), this_gpu()
    values = {
        "model": {"base": path, "dtype": options["dtype"]},
        "data": {"source": "none"},
        "generation": {"max_new_tokens": options["new"]},
    }
    config = parse_config(values, origin="benchmark")
    loaded = load_model(config, for_training=False)
    weights = prepare_inference(loaded.model, loaded.dtype)
    synchronize()
    load_seconds = time.monotonic() - began
    vocabulary, tokenizer = loaded.model.config.vocab_size, loaded.renderer.tokenizer
    prompts = random_prompts(options["n"], len(tokenizer))
    longest = max(map(len, prompts))
    fits = choose_batch_size(loaded.model, longest_prompt=longest, max_new_tokens=options["new"])
    batch = options["batch"] or min(fits, len(prompts))

    # No token of that number: no answer ends early.
    greedy = Greedy.of(tokenizer, [vocabulary], options["new"])

    def answer(chosen: list[list[int]]) -> None:
        answers = generate_tokens(loaded.model, chosen, greedy, batch_size=batch, on_rows=lambda rows: None)
        assert all(len(tokens) == options["new"] for tokens in answers)

    figures = timed_answers(answer, prompts, batch, options["new"])
    figures |= {"load_seconds": round(load_seconds, 1), "weights": weights.value, "dtype": loaded.dtype}
    if gpu is not None:
        figures["planned_peak_gib"] = planned_peak(config, gpu, longest, batch)
    if options["losses"]:
        figures |= timed_losses(loaded, options["tokens"])
    return figures


def planned_peak(config: Any, gpu: Any, longest_prompt: int, batch: int) -> float:
    """GiB that `medtune plan` predicts for these answers, from the model's config.json."""
    from medtune.pipeline.plan import RowSizes, base_folder, forecast
    from medtune.pipeline.plan_tables import answer_parts

    generation = config.generation.model_copy(update={"batch_size": batch})
    rows = RowSizes(largest_step=1024, longest_row=1024, longest_prompt=longest_prompt, origin="prompts")
    found = forecast(config.model_copy(update={"generation": generation}), base_folder(config), gpu, rows)
    return round(sum(answer_parts(found).values()) / 2**30, 2)


def plain_arm(path: str, options: dict[str, Any]) -> dict[str, Any]:
    """Through transformers' generate, left-padded, as tutorials do it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if options["dtype"] == "auto" else getattr(torch, options["dtype"])
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, device_map={"": device}).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    pad, batch = tokenizer.pad_token_id, options["batch"] or BATCHES[options["arm"]]
    model.generation_config.eos_token_id = None

    @torch.inference_mode()
    def answer(chosen: list[list[int]]) -> None:
        for start in range(0, len(chosen), batch):
            group = chosen[start : start + batch]
            longest = max(map(len, group))
            ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in group], device=device)
            mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in group], device=device)
            output = model.generate(
                input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=options["new"], pad_token_id=pad
            )
            assert output.shape[1] == longest + options["new"]

    return timed_answers(answer, random_prompts(options["n"], len(tokenizer)), batch, options["new"])


def timed_answers(answer: Any, prompts: list[list[int]], batch: int, new: int) -> dict[str, Any]:
    """Answer one batch to warm up, then all prompts against the clock."""
    began = time.monotonic()
    answer(prompts[:batch])
    synchronize()
    warm = time.monotonic()
    forget_peaks()
    answer(prompts)
    synchronize()
    seconds = time.monotonic() - warm
    return {
        "ms_per_question": round(1000 * seconds / len(prompts), 1),
        "tok_s": round(len(prompts) * new / seconds),
        "batch": batch,
        "seconds": round(seconds, 2),
        "warm_up_seconds": round(warm - began, 2),
        **peaks(),
    }


def timed_losses(loaded: Any, answer_tokens: int) -> dict[str, Any]:
    """Seconds that the reference losses of at least so many answer tokens take, after a first pass over a few rows."""
    from medtune.inference.scoring import answer_losses, scoring_tokens

    rows = random_rows(answer_tokens, len(loaded.renderer.tokenizer), loaded.positions)
    budget = scoring_tokens(loaded.model, "auto")

    def score(chosen: list[Any]) -> int:
        losses = answer_losses(loaded.model, chosen, tokens_per_batch=budget)
        assert all(math.isfinite(loss.nll) for loss in losses)
        return sum(loss.tokens for loss in losses)

    score(rows[: max(1, len(rows) // 10)])
    synchronize()
    began = time.monotonic()
    answered = score(rows)
    synchronize()
    seconds = time.monotonic() - began
    return {
        "losses_seconds": round(seconds, 2),
        "losses_answer_tokens": answered,
        "losses_tokens": sum(len(row.input_ids) for row in rows),
        "losses_tokens_per_pass": budget,
    }


def random_prompts(count: int, vocabulary: int) -> list[list[int]]:
    """The same prompts for every arm."""
    source = random.Random(0)
    lengths = [source.randint(*PROMPT_TOKENS) for _ in range(count)]
    return [[source.randrange(FIRST_TOKEN, vocabulary) for _ in range(length)] for length in lengths]


def random_rows(answer_tokens: int, vocabulary: int, positions: int | None) -> list[Any]:
    """Rows of MedQuAD's lengths until their answers hold `answer_tokens`."""
    from medtune.records import IGNORED, EncodedRow

    source = random.Random(0)
    limit = min(ROW_LIMIT, positions or ROW_LIMIT)
    rows: list[EncodedRow] = []
    held = 0
    while held < answer_tokens:
        length = max(1, int(source.lognormvariate(math.log(ANSWER_MEDIAN), ANSWER_SIGMA)))
        length = min(length, limit - ROW_PROMPT)
        ids = [source.randrange(FIRST_TOKEN, vocabulary) for _ in range(ROW_PROMPT + length)]
        rows.append(EncodedRow(str(len(rows)), ids, [IGNORED] * ROW_PROMPT + ids[ROW_PROMPT:]))
        held += length
    return rows


if __name__ == "__main__":
    main()
