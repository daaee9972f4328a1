"""PEAQ Basic's neural network: from the 11 model output variables to a grade (ITU-R BS.1387-1, Annex 2, section 6)."""

import numpy as np

# In the order of the standard: name, and the range a_min .. a_max that is scaled to 0 .. 1.
RANGES = {
    "BandwidthRefB": (393.916656, 921.0),
    "BandwidthTestB": (361.965332, 881.131226),
    "TotalNMRB": (-24.045116, 16.212030),
    "WinModDiff1B": (1.110661, 107.137772),
    "ADBB": (-0.206623, 2.886017),
    "EHSB": (0.074318, 13.933351),
    "AvgModDiff1B": (1.113683, 63.257874),
    "AvgModDiff2B": (0.950345, 1145.018555),
    "RmsNoiseLoudB": (0.029985, 14.819740),
    "MFPDB": (0.000101, 1.0),
    "RelDistFramesB": (0.0, 1.0),
}
# w_x: a row for each variable, a column for each of the three hidden nodes; then their biases.
INPUT_WEIGHTS = np.array(
    [
        [-0.502657, 0.436333, 1.219602],
        [4.307481, 3.246017, 1.123743],
        [4.984241, -2.211189, -0.192096],
        [0.051056, -1.762424, 4.331315],
        [2.321580, 1.789971, -0.754560],
        [-5.303901, -3.452257, -10.814982],
        [2.730991, -6.111805, 1.519223],
        [0.624950, -1.331523, -5.955151],
        [3.102889, 0.871260, -5.922878],
        [-1.051468, -0.939882, -0.142913],
        [-1.804679, -0.503610, -0.620456],
    ]
)
INPUT_BIAS = np.array([-2.518254, 0.654841, -2.207228])
OUTPUT_WEIGHTS = np.array([-3.817048, 4.107138, 4.629582])
OUTPUT_BIAS = -0.307594
WORST_GRADE, BEST_GRADE = -3.98, 0.22


def distortion_index(movs: dict[str, float]) -> float:
    """Return the distortion index of the 11 variables; none is clipped to its range."""
    scaled = np.array([(movs[name] - low) / (high - low) for name, (low, high) in RANGES.items()])
    return float(OUTPUT_BIAS + OUTPUT_WEIGHTS @ _sigmoid(INPUT_BIAS + scaled @ INPUT_WEIGHTS))


def objective_difference_grade(index: float) -> float:
    """Return the grade of a distortion index: about +0.2 where nothing is heard, -3.98 where it is very annoying."""
    return float(WORST_GRADE + (BEST_GRADE - WORST_GRADE) * _sigmoid(index))


def _sigmoid(x: np.ndarray | float) -> np.ndarray:
    """Return 1 / (1 + exp(-x)) without overflow."""
    return (1 + np.tanh(np.asarray(x) / 2)) / 2
