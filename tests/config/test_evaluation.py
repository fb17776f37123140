import pytest

from medtune.config.evaluation import EvaluationSection


@pytest.mark.parametrize(
    ("metrics", "primary"),
    [
        (["bleu", "rougeL", "perplexity"], ("perplexity", "rougeL")),
        (["bleu", "rouge1", "rouge2", "exact_match"], ("bleu", "rouge1", "rouge2")),
        (["exact_match"], ("exact_match",)),
    ],
)
def test_a_configuration_states_its_primary_metrics(metrics: list[str], primary: tuple[str, ...]) -> None:
    assert EvaluationSection(metrics=metrics).primary == primary  # type: ignore[arg-type]
    # Written and read back, it is the same.
    stated = EvaluationSection(metrics=metrics)  # type: ignore[arg-type]
    assert EvaluationSection.model_validate(stated.model_dump(mode="json")) == stated
    assert EvaluationSection().primary == ("perplexity", "rougeL", "bertscore_f1")
    named = EvaluationSection(metrics=metrics, primary=[metrics[-1]])  # type: ignore[arg-type]
    assert named.primary == (metrics[-1],)
