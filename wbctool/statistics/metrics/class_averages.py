"""Precision, recall, specificity and F1 averaged over classes, each class alike (macro) or by its size (weighted)."""

from wbctool.statistics.metrics import Metric, View


def _macro(name: str, title: str, order: int, column: str = "", shown_in: tuple[View, ...] = ()) -> Metric:
    return Metric(
        name=f"macro_{name}",
        title=f"macro {title}",
        help=f"Mean {title} of the classes that occur in the truth or among the predictions.",
        compute=lambda counts: counts.mean(counts.per_class[name], counts.support + counts.predicted > 0),
        column=column,
        shown_in=shown_in,
        order=order,
    )


def _weighted(name: str, title: str, order: int) -> Metric:
    return Metric(
        name=f"weighted_{name}",
        title=f"weighted {title}",
        help=f"Mean {title} of the classes, weighted by their number of images.",
        compute=lambda counts: counts.mean(counts.per_class[name], counts.support),
        order=order,
    )


MACRO_PRECISION = _macro("precision", "precision", 30, "prec.", ("paper", "axes"))
MACRO_RECALL = _macro("recall", "recall", 40, "recall", ("paper", "axes"))
MACRO_F1 = _macro("f1", "F1", 50, "F1", ("summary", "terminal", "paper", "axes"))
MACRO_SPECIFICITY = _macro("specificity", "specificity", 60)
WEIGHTED_PRECISION = _weighted("precision", "precision", 70)
WEIGHTED_RECALL = _weighted("recall", "recall", 80)
WEIGHTED_F1 = _weighted("f1", "F1", 90)
WEIGHTED_SPECIFICITY = _weighted("specificity", "specificity", 100)
