"""What a user can set about the search."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class SearchSettings(BaseModel):
    """Settings of one search. The first block decides the sequence of candidates, the second how long."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    algorithm: str = Field(
        default="nsga2",
        description="nsga2, r-nsga2, age-moea, c-taea, concurrent, full, gp, tpe, random, or module:name",
    )
    population: int = Field(default=24, ge=4, description="candidates per generation")
    crossover_probability: float = Field(default=0.9, ge=0.0, le=1.0, description="of a pair of parents")
    mutation_rate: float | None = Field(
        default=None, gt=0.0, le=1.0, description="per dimension; one dimension of each child if not given"
    )
    reference_points: tuple[dict[str, float], ...] = Field(
        default=(),
        description="r-nsga2, concurrent, full: where to search, by objective; what is left out, as good as can be",
    )
    samples: int = Field(default=100, ge=8, description="full: candidates measured before it predicts")

    max_trials: int = Field(
        default=250, ge=1, description="evaluated candidates in the whole study, failed included"
    )
    max_seconds: float | None = Field(
        default=None, gt=0.0, description="of the whole study, resumed parts included"
    )
    max_failures: int = Field(default=10, ge=1, description="failed candidates in a row that stop the search")

    def sequence(self) -> dict[str, object]:
        """The settings that decide which candidates are proposed: a resumed study must not change them."""
        return self.model_dump(exclude={"max_trials", "max_seconds", "max_failures"}, mode="json")
