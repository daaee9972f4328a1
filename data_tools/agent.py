"""The seeded player of the recordings: roams, turns to what it sees, and shoots at moments nobody can guess."""

from dataclasses import dataclass

import numpy as np

BUTTONS = (
    "MOVE_FORWARD", "MOVE_BACKWARD", "MOVE_LEFT", "MOVE_RIGHT", "TURN_LEFT", "TURN_RIGHT", "ATTACK", "USE",
)  # fmt: skip
TICS = 35  # a second
AIMED = 0.04  # share of the picture's width
STUCK_SPEED = 0.5


@dataclass(frozen=True)
class Sight:
    """What the agent knows: bearing of its goal (-0.5 left .. 0.5 right, None: nothing), its own speed, its gun."""

    bearing: float | None
    is_monster: bool
    is_ready: bool
    speed: float


class Agent:
    """Chooses the buttons of every tic with the generator given; waits between shots are random, never regular."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.until_shot = int(rng.integers(TICS // 2, 2 * TICS))
        self.until_turn = 0
        self.walk, self.turn = "MOVE_FORWARD", ""

    def act(self, sight: Sight) -> list[int]:
        """Return which of `BUTTONS` are pressed."""
        pressed = set()
        self.until_shot -= 1
        if self.until_shot <= 0 and sight.is_ready:
            pressed.add("ATTACK")
            # a floor of 0.45 s keeps shots apart, the exponential tail keeps them unpredictable
            self.until_shot = int(TICS * (0.45 + self.rng.exponential(0.7)))
        self.until_turn -= 1
        if self.until_turn <= 0:
            self._choose_way(sight)
        pressed |= {self.walk, self.turn, *self._aim(sight)} - {""}
        if self.rng.random() < 0.03:
            pressed.add("USE")
        return [int(name in pressed) for name in BUTTONS]

    def _choose_way(self, sight: Sight) -> None:
        """Pick a way to walk and turn for the next third of a second to a second and a half."""
        self.until_turn = int(self.rng.integers(TICS // 3, TICS * 3 // 2))
        ways = ("MOVE_FORWARD", "MOVE_FORWARD", "MOVE_FORWARD", "MOVE_LEFT", "MOVE_RIGHT", "")
        self.walk = str(self.rng.choice(ways))
        is_stuck = sight.speed < STUCK_SPEED
        turns = ("TURN_LEFT", "TURN_RIGHT")
        self.turn = str(self.rng.choice(turns if is_stuck else ("", "", *turns)))

    def _aim(self, sight: Sight) -> set[str]:
        """Turn towards the goal, most of the time."""
        if sight.bearing is None or self.rng.random() < 0.15:
            return set()
        self.turn = ""
        if abs(sight.bearing) < AIMED:
            return set() if sight.is_monster else {"MOVE_FORWARD"}
        return {"TURN_LEFT" if sight.bearing < 0 else "TURN_RIGHT"}
