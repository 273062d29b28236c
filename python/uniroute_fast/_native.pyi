from typing import Literal, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__version__: str
build_profile: Literal["debug", "release"]

# --- kernels ---

@final
class Centroids:
    def __new__(cls, centroids: ArrayLike, *, isa: str | None = None) -> Centroids: ...
    def nearest(self, x: ArrayLike) -> tuple[int, float]: ...
    def assign(
        self,
        x: ArrayLike,
        *,
        return_distance: bool = True,
        on_invalid: Literal["raise", "mark"] = "raise",
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32] | None]: ...
    @property
    def isa(self) -> str: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    def __len__(self) -> int: ...

def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def isa() -> str: ...
def available_isas() -> list[str]: ...

# --- evaluation ---

def lower_hulls(
    predicted_loss: ArrayLike, costs: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.float64]]: ...
