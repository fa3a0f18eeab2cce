"""The pinhole camera, with the picture transforms it can be asked to reproduce: mirror, roll, zoom."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera with its principal point in the middle of the picture.

    position: metres in the world, (3,). rotation: orthogonal (3, 3) whose rows are the directions to the picture's
    right, to its top and back towards the viewer, in the world; its determinant is -1 when the picture is mirrored.
    focal: focal length in picture heights, so one camera serves any picture size.
    """

    position: NDArray[np.float64]
    rotation: NDArray[np.float64]
    focal: float

    @classmethod
    def looking(
        cls, position: tuple[float, float, float], yaw: float, pitch: float = 0.0, roll: float = 0.0, focal: float = 1.0
    ) -> Camera:
        """A camera that looks along -z, turned left by yaw, up by pitch (radians), its picture turned by roll."""
        cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
        right = [cy, 0.0, -sy]
        top = [sp * sy, cp, sp * cy]
        back = [cp * sy, -sp, cp * cy]
        return cls(np.array(position, np.float64), np.array([right, top, back]), focal).rolled(roll)

    def mirrored(self) -> Camera:
        """The camera whose picture is this one's, mirrored left to right."""
        return replace(self, rotation=self.rotation * np.array([[-1.0], [1.0], [1.0]]))

    def rolled(self, angle: float) -> Camera:
        """The camera whose picture is this one's, turned anticlockwise about its middle by angle (radians)."""
        c, s = np.cos(angle), np.sin(angle)
        return replace(self, rotation=np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]) @ self.rotation)

    def zoomed(self, factor: float) -> Camera:
        """The camera whose picture is this one's, enlarged about its middle by factor; depths stay what they are."""
        return replace(self, focal=self.focal * factor)

    def grid(self, height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pixel centres on the image plane at distance 1: x (W,) to the right and y (H,) upwards."""
        if height < 1 or width < 1:
            raise ValueError(f"picture size: found height {height} and width {width}, expected both at least 1")
        pixel = 1 / (self.focal * height)
        x = (np.arange(width, dtype=np.float64) + 0.5 - width / 2) * pixel
        y = (height / 2 - np.arange(height, dtype=np.float64) - 0.5) * pixel
        return x, y
