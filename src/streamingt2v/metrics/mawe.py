"""Motion-aware warp error (method.md: MAWE): error of frames warped along the flow to the next, over motion.

The flow is an argument. Errors are in squared 8-bit units, motion in pixels.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class WarpErrors:
    """Mean squared warp error and mean length of the flow, per pair of frames, float64 (T - 1,)."""

    error: np.ndarray
    motion: np.ndarray

    def mean_of_ratios(self, coeff: float = 9.5) -> float:
        """Return MAWE as the published code computes it; infinite if a pair has an error but no motion."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.mean(self.error / (coeff * self.motion)))

    def ratio_of_means(self, coeff: float = 9.5) -> float:
        """Return MAWE as the paper defines it, over averages of the whole video; infinite if all is still."""
        motion = coeff * float(np.mean(self.motion))
        return float(np.mean(self.error)) / motion if motion else float("inf")


def pair_error(before_CHW: np.ndarray, after_CHW: np.ndarray, flow_2HW: np.ndarray) -> tuple[float, float]:
    """Return (mean squared warp error, mean flow length) of two uint8 frames and the flow between them."""
    warped_CHW, known_HW = warp(before_CHW, flow_2HW)
    difference_CHW = after_CHW.astype(np.float64) - warped_CHW
    # a flow that leaves the image everywhere predicts nothing, and counts as no error
    error = float(np.mean(difference_CHW[:, known_HW] ** 2)) if known_HW.any() else 0.0
    return error, float(np.mean(np.hypot(*flow_2HW.astype(np.float64))))


def warp(frame_CHW: np.ndarray, flow_2HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Move every pixel to the one its flow points at; return the frame, and where pixels arrived.

    The frame is 0 elsewhere. Positions round to the nearest pixel, halves to even; of several that arrive at
    one place, the last in reading order stays; those that leave are dropped.
    """
    _, height, width = frame_CHW.shape
    y_HW, x_HW = np.mgrid[:height, :width].astype(np.float32)
    to_x = np.rint(x_HW + flow_2HW[0]).astype(np.int64).ravel()
    to_y = np.rint(y_HW + flow_2HW[1]).astype(np.int64).ravel()
    inside = (to_x >= 0) & (to_x < width) & (to_y >= 0) & (to_y < height)
    target, source = (to_y * width + to_x)[inside], np.flatnonzero(inside)
    warped_CN = np.zeros((len(frame_CHW), height * width), dtype=np.float64)
    known_N = np.zeros(height * width, dtype=bool)
    warped_CN[:, target] = frame_CHW.reshape(len(frame_CHW), -1)[:, source]
    known_N[target] = True
    return warped_CN.reshape(frame_CHW.shape), known_N.reshape(height, width)
