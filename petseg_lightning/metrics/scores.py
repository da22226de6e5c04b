"""Scores as pure functions of a confusion matrix."""

from torch import Tensor


def scores(matrix: Tensor) -> dict[str, Tensor]:
    """Every score of one confusion matrix, or of many at once.

    With TP the diagonal, accuracy = sum of TP / sum of the matrix (Amadi, equation 1), IoU = TP / (row sum +
    column sum - TP) and mean IoU its mean over classes (equation 2), Dice = 2 TP / (row sum + column sum),
    precision = TP / column sum, recall = TP / row sum. All lie in 0..1.

    A ratio 0 / 0 is NaN: IoU and Dice of a class that is neither true nor predicted anywhere, precision of
    one never predicted, recall of one never true. Means leave NaN out, and are NaN over nothing.

    Args:
        matrix: counts (..., K, K), row = truth, column = prediction.

    Returns:
        float64 "accuracy", "miou", "mean_dice" (...,) and "iou", "dice", "precision", "recall" (..., K).
    """
    matrix = matrix.double()
    hits = matrix.diagonal(dim1=-2, dim2=-1)  # (..., K)
    true, predicted = matrix.sum(dim=-1), matrix.sum(dim=-2)  # (..., K)
    iou = hits / (true + predicted - hits)
    dice = 2 * hits / (true + predicted)
    return {
        "accuracy": hits.sum(dim=-1) / true.sum(dim=-1),
        "miou": iou.nanmean(dim=-1),
        "mean_dice": dice.nanmean(dim=-1),
        "iou": iou,
        "dice": dice,
        "precision": hits / predicted,
        "recall": hits / true,
    }
