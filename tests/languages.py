"""Answers and references in scripts other than Latin, with the values of sacrebleu 2.6.0 and rouge-score 0.1.2."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """`bleu` is sacrebleu's with `tokenizer`, `compat` that with 13a; ROUGE is rouge-score's with unicode words."""

    answers: list[str]
    references: list[str]
    tokenizer: str
    bleu: float
    compat: float
    rouge1: list[float]
    rouge2: list[float]
    rouge_l: list[float]


CHINESE = Language(
    ["糖尿病是一种慢性病\uff0c需要长期治疗。", "痛风引起关节疼痛。"],
    ["糖尿病是一种常见的慢性病\uff0c需要终身治疗。", "痛风会引起关节剧烈疼痛。"],
    "zh",
    47.86958232486414,
    0.0,
    [26 / 33, 16 / 19],
    [20 / 31, 10 / 17],
    [26 / 33, 16 / 19],
)
RUSSIAN = Language(
    ["Диабет — хроническое заболевание, которое требует лечения.", "Подагра вызывает боль в суставах."],
    ["Диабет — это хроническая болезнь, которая требует лечения.", "Подагра вызывает сильную боль в суставах."],
    "intl",
    29.581946873995747,
    29.581946873995747,
    [6 / 13, 10 / 11],
    [2 / 11, 6 / 9],
    [6 / 13, 10 / 11],
)
THAI = Language(
    ["โรคเบาหวานเป็นโรคเรื้อรัง"],
    ["โรคเบาหวานคือโรคเรื้อรังชนิดหนึ่ง"],
    "char",
    55.89583387917018,
    0.0,
    [44 / 58],
    [38 / 56],
    [42 / 58],
)
LANGUAGES = {"Chinese": CHINESE, "Russian": RUSSIAN, "Thai": THAI}
