"""Which records of a log estimates can use, and as what."""

from collections.abc import Iterable

from msgspec import Struct

from paceline.evidence.estimate import Sample
from paceline.records.record import Record
from paceline.types import Prediction


class LoggedRequest(Struct, frozen=True):
    """A record that estimates can use."""

    record: Record
    sample: Sample
    """What they use of it."""

    @property
    def prediction(self) -> Prediction:
        """Of the lane that served."""
        return self.record.decision.predictions[self.sample.lane]


def usable(records: Iterable[Record]) -> list[LoggedRequest]:
    """Those that were answered whole and timed, with a choice of lanes that the predictions had."""
    return [
        LoggedRequest(record=record, sample=sample) for record in records if (sample := sample_of(record)) is not None
    ]


def sample_of(record: Record) -> Sample | None:
    """``None`` where estimates can't use it."""
    decision, outcome, observed = record.decision, record.outcome, record.outcome.observed
    predictions = decision.predictions
    # 1. Was it answered whole and timed?
    if outcome.error or not observed.decode_tokens or not observed.decode_s:
        return None
    # 2. Did the lane serve that the decision had picked out of several?
    if record.forced or outcome.lane not in predictions or outcome.lane != decision.lane or len(predictions) < 2:
        return None
    # 3. What was predicted, in the unit that was known for all lanes?
    in_seconds = all(prediction.plain_step_s is not None for prediction in predictions.values())
    propensities = decision.propensities or {decision.lane: decision.propensity}
    return Sample(
        task=str(record.task),
        lane=outcome.lane,
        tokens=observed.decode_tokens,
        s_per_token=observed.decode_s / observed.decode_tokens,
        propensities={lane: propensities[lane] for lane in predictions if propensities.get(lane)},
        predicted={lane: _predicted(prediction, in_seconds) for lane, prediction in predictions.items()},
        spread={lane: prediction.spread for lane, prediction in predictions.items()},
        in_seconds=in_seconds,
    )


def _predicted(prediction: Prediction, in_seconds: bool) -> float:
    """Time per token, in seconds or in plain steps."""
    s_per_token = prediction.s_per_token
    return s_per_token if in_seconds and s_per_token is not None else prediction.relative
