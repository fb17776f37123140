"""What a merge records: where it came from, what it wrote and what merging changed."""

from dataclasses import dataclass, field

from medtune.storage.reading import FileRecord


@dataclass(frozen=True, slots=True)
class Divergence:
    """Kullback-Leibler divergence of next-token distributions over the tokens of reference answers, in nats a token."""

    mean: float
    p95: float
    max: float


@dataclass(frozen=True, slots=True)
class MergeMeasurement:
    """The merged model beside the one that was evaluated, on `prompts` test questions and `positions` answer tokens.

    `kl` is of the evaluated model's next tokens from the merged model's. `rounding` is the same of the adapter on the
    base in 16 bit, so what merging by itself changed, and `tuning` of the base without its adapter, so what there was
    to lose; None where it was not measured. `agreement` is the share of answer tokens at which both models think the
    same token the likeliest. For greedy answers of at most `new_tokens` tokens, `same_prefix` is the share of tokens
    before the first at which the two differ, `same_answers` the number of questions with one answer; None where
    nothing was generated.
    """

    prompts: int
    positions: int
    kl: Divergence
    agreement: float
    rounding: Divergence | None
    tuning: Divergence | None
    new_tokens: int | None
    same_prefix: float | None
    same_answers: int | None
    quantization: str
    compute_dtype: str
    bound: float
    rounding_bound: float
    within_bound: bool


@dataclass(frozen=True, slots=True)
class MergeRecord:
    """A merged model: what it is made of and what merging changed, `merge.json`.

    `destination` is the name of its folder, without the way there. `adapter` is the fingerprint of the adapter,
    `identity` tells the base from any other of its name. `bytes` are those of its weights in `shards` files; `files`
    are all that merging wrote, by their names. Without a measurement `not_measured` says why.
    """

    destination: str
    base: str
    revision: str | None
    adapter: str
    dtype: str
    shards: int
    bytes: int
    changed_tensors: int
    seconds: float
    peak_rss_bytes: int
    measured: MergeMeasurement | None = None
    not_measured: str | None = None
    identity: str | None = None
    files: dict[str, FileRecord] = field(default_factory=dict, repr=False)
