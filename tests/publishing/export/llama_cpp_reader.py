"""Run by a Python that has llama_cpp: tokens, logits and greedy answers of a GGUF file, as JSON on stdin asks."""

import json
import sys

import llama_cpp
import numpy as np


def main() -> None:
    asked = json.load(sys.stdin)
    model = llama_cpp.Llama(
        asked["model"], lora_path=asked.get("lora"), n_ctx=512, n_batch=512, n_threads=1, n_threads_batch=1,
        logits_all=True, verbose=False, type_k=0, type_v=0, n_gpu_layers=0,
    )  # fmt: skip
    tokenized = [model.tokenize(text.encode(), add_bos=False, special=False) for text in asked["texts"]]
    prompts = [model.tokenize(text.encode(), add_bos=True, special=True) for text in asked["prompts"]]
    logits, answers = [], []
    for ids in asked["ids"]:
        model.reset()
        model.eval(ids)
        logits.append(np.array(model.scores[: len(ids)]))
        answer: list[int] = []
        while len(answer) < asked["new_tokens"]:
            answer.append(int(np.argmax(model.scores[model.n_tokens - 1])))
            if answer[-1] in asked["end_tokens"]:
                break
            model.eval(answer[-1:])
        answers.append(answer)
    if logits:
        np.savez(asked["logits"], *logits)
    json.dump({"tokenized": tokenized, "prompts": prompts, "answers": answers, "eos": model.token_eos()}, sys.stdout)


main()
