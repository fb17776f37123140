"""What the stages exchange. Plain frozen records: no behaviour beyond their own arithmetic."""

from medtune.records.rows import (
    IGNORED,
    LATER_FIELDS,
    Answer,
    AnswerLoss,
    ControlName,
    EncodedRow,
    FinishReason,
    ModelName,
    Prediction,
    QAPair,
    Role,
    Split,
    SplitName,
    SystemName,
    Turn,
)
from medtune.records.scores import (
    Comparison,
    ComparisonRow,
    Control,
    GroupSizes,
    Lengths,
    MetricTable,
    ReferenceLengths,
    Score,
    Stratum,
    StratumMetric,
    Verdict,
)

__all__ = [
    "IGNORED", "LATER_FIELDS", "Answer", "AnswerLoss", "Comparison", "ComparisonRow", "Control", "ControlName",
    "EncodedRow", "FinishReason", "GroupSizes", "Lengths", "MetricTable", "ModelName", "Prediction", "QAPair",
    "ReferenceLengths", "Role", "Score", "Split", "SplitName", "Stratum", "StratumMetric", "SystemName", "Turn",
    "Verdict",
]  # fmt: skip
