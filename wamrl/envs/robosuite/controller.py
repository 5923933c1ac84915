"""robosuite's OSC_POSE controller for one fixed Panda,
with the same formulas and without its object tree.

robosuite's own control step spends four fifths of its time in Python: 25 sub-steps of 2 ms, each
through robots, parts and wrappers. Here a sub-step is a few numpy calls;
`tests/envs/robosuite/test_env.py` holds the two together.

    goal    x* = x + d_x,  R* = exp(d_r) R   once per control step, from the achieved pose (x, R)
    F       = L_x (kp (x* - x) - kd v)       L_x = (J_x M^-1 J_x^T)^-1, the same for the rotation
    torque  = J^T F + bias + N^T M (10 (q0 - q) - 2 sqrt(10) dq)
            N: what does not move the hand, q0: q at the reset
"""

from __future__ import annotations

from typing import Any

import numpy as np

MOVE = 0.05  # metres of one control step's goal displacement at action 1
TURN = 0.5  # radians of the same
KP = 150.0
KD = 2 * KP**0.5  # critically damped
NULL_KP = 10.0
NULL_KD = 2 * NULL_KP**0.5
FINGER_SPEED = 0.2  # of the finger command's range [-1, 1] per control step
SUBSTEPS = 25
ARM = 7  # joints; they come first in the state


class Panda:
    """Drives the arm and the fingers of a robosuite simulation. `rest` after every reset of it."""

    def __init__(self, model: Any, data: Any) -> None:
        import mujoco

        assert model.nu == ARM + 2 and all(
            model.joint(i).name == f"robot0_joint{i + 1}" for i in range(ARM)
        )
        self._mj = mujoco
        self._model = model
        self._data = data
        self.site = model.site("gripper0_right_grip_site").id
        self._jacobian = np.zeros((6, model.nv))
        self._mass = np.zeros((model.nv, model.nv))
        self._blocks = np.zeros((2, 3, 3))
        low, high = model.actuator_ctrlrange.T.copy()
        self._low = low[:ARM]
        self._high = high[:ARM]
        self._middle = ((high + low) / 2)[ARM:]
        self._half = ((high - low) / 2)[ARM:]
        # views of what MuJoCo writes in place: asking `data` for one costs as much as a product
        self._J = self._jacobian[:, :ARM]
        self._M = self._mass[:ARM, :ARM]
        self._q = data.qpos[:ARM]
        self._dq = data.qvel[:ARM]
        self._bias = data.qfrc_bias[:ARM]
        self._ctrl = data.ctrl
        self._x = data.site_xpos[self.site]
        self._turned = data.site_xmat[self.site].reshape(3, 3)
        self.rest()

    def rest(self) -> None:
        """Forget: the present joints become the posture that the arm returns to,
        the fingers' command its middle.
        """
        self._posture = self._q.copy()
        self.fingers = np.zeros(2)  # command in [-1, 1]; (1, -1) is open, (-1, 1) closed

    def pose(self) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) in metres and rotation (3, 3) of
        the point between the fingertips; copies.
        """
        return self._x.copy(), self._turned.copy()

    def drive(self, action: np.ndarray) -> None:
        """One control step (50 ms) with float (7,) in [-1, 1]."""
        step1 = self._mj.mj_step1
        step2 = self._mj.mj_step2
        model = self._model
        data = self._data
        change = np.array([-1.0, 1.0]) * FINGER_SPEED * np.sign(action[6])
        self.fingers = np.clip(self.fingers + change, -1.0, 1.0)
        self._ctrl[ARM:] = self._middle + self._half * self.fingers
        step1(model, data)
        x_goal = self._x + MOVE * action[:3]
        turned_goal = rotation(TURN * action[3:6]) @ self._turned
        for substep in range(SUBSTEPS):
            if substep:
                step1(model, data)
            torque = self._torque(x_goal, turned_goal)
            # np.clip takes four times as long
            self._ctrl[:ARM] = np.minimum(np.maximum(torque, self._low), self._high)
            step2(model, data)

    def _torque(self, x_goal: np.ndarray, turned_goal: np.ndarray) -> np.ndarray:
        """float64 (7,) in N m, before the motors' limits; valid after `mj_step1`."""
        solve = np.linalg.solve
        jacobian = self._jacobian
        self._mj.mj_jacSite(self._model, self._data, jacobian[:3], jacobian[3:], self.site)
        self._mj.mj_fullM(self._model, self._mass, self._data.qM)
        J = self._J
        M = self._M
        dq = self._dq
        error = np.concatenate([x_goal - self._x, turn_error(turned_goal, self._turned)])
        wish = KP * error - KD * (J @ dq)
        inertia = J @ solve(M, J.T)  # inverse of the hand's inertia
        self._blocks[0] = inertia[:3, :3]
        self._blocks[1] = inertia[3:, 3:]
        force = solve(self._blocks, wish.reshape(2, 3, 1)).reshape(6)
        posture = NULL_KP * (self._posture - self._q) - NULL_KD * dq
        # N^T M posture = M posture - J^T (J M^-1 J^T)^-1 J posture
        return J.T @ (force - solve(inertia, J @ posture)) + M @ posture + self._bias


def rotation(vector: np.ndarray) -> np.ndarray:
    """exp of an axis-angle vector (3,) in radians: a rotation matrix (3, 3)."""
    angle = float(np.sqrt(vector @ vector))
    if angle < 1e-12:
        return np.eye(3)
    a, b, c = (vector / angle).tolist()
    cross = np.array([[0.0, -c, b], [c, 0.0, -a], [-b, a, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def turn_error(goal: np.ndarray, now: np.ndarray) -> np.ndarray:
    """sin(angle) times the axis of the rotation goal now^T, (3,): robosuite's orientation error."""
    a = goal @ now.T
    return 0.5 * np.array([a[2, 1] - a[1, 2], a[0, 2] - a[2, 0], a[1, 0] - a[0, 1]])
