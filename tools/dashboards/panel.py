"""What a panel is, whatever draws it: a title, what good looks like, and queries."""

from __future__ import annotations

from dataclasses import dataclass, field

RATE = "[$__rate_interval]"


@dataclass(frozen=True)
class Query:
    """One expression of Prometheus; `legend` names its lines by their labels, as {{label}}."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """`good` is the sentence that tells an operator what this shows when all is well, and what to do when not."""

    title: str
    good: str
    unit: str
    queries: tuple[Query, ...]
    limit: float | None = None  # drawn in red: beyond it an alert will fire
    stacked: bool = False


@dataclass(frozen=True)
class Dashboard:
    """Panels in rows, in the order of a turn's way through the mesh."""

    uid: str
    title: str
    about: str
    rows: dict[str, tuple[Panel, ...]] = field(default_factory=dict)

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for row in self.rows.values() for panel in row)


def quantile(share: float, metric: str, by: str = "", where: str = "") -> str:
    """That quantile of a histogram whose page name is `metric`, without its suffix; `where` as {label="value"}."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share:g}, sum by ({labels}) (rate({metric}_bucket{where}{RATE})))"


def quantiles(metric: str, by: str = "", where: str = "") -> tuple[Query, ...]:
    """p50, p95 and p99."""
    prefix = f"{{{{{by}}}}} " if by else ""
    return tuple(Query(quantile(share, metric, by, where), f"{prefix}p{share * 100:g}") for share in (0.5, 0.95, 0.99))


def rate(metric: str, by: str, where: str = "") -> Query:
    """A counter per second, by one label."""
    return Query(f"sum by ({by}) (rate({metric}{where}{RATE}))", f"{{{{{by}}}}}")
