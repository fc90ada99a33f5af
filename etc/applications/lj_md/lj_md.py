#!/usr/bin/env python3
"""Molecular dynamics of a free argon cluster with the Lennard-Jones potential, as the run script of an LGI job.

V(r) = 4 epsilon ((sigma/r)^12 - (sigma/r)^6) between all pairs, without cut-off and without a box; velocity Verlet at
constant energy. Units: Å, fs, eV, K and, for masses, u.

The job directory is the working directory. LGI_input holds `key = value` lines (`#` starts a comment, every key may
be left out: see PARAMETERS); the structure is an XYZ file in Å. Results: energies.csv, trajectory.xyz, final.xyz, and
LGI_output with the progress, then the summary, or the reason why there is none.

Exit status: 0 done; 1 the calculation failed on the way; 2 mistakes in the input, nothing calculated.
With `--structure` it prints the name of the structure file and does nothing else: the prologue asks for it.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

BOLTZMANN = 8.617333262e-5  # eV/K
INERTIA = 103.642697  # 1 u Å²/fs² in eV
MASS = 39.948 * INERTIA  # of argon, so that eV = MASS · (Å/fs)²

INPUT, OUTPUT, REFUSAL = Path("LGI_input"), Path("LGI_output"), Path("prologue_message")
ENERGIES, TRAJECTORY, FINAL = Path("energies.csv"), Path("trajectory.xyz"), Path("final.xyz")

# key: (default, lowest, highest); whole numbers where the default is one
PARAMETERS: dict[str, tuple[float, float, float]] = {
    "steps": (2000, 1, 100_000_000),
    "timestep_fs": (5.0, 0.001, 100.0),
    "temperature_K": (30.0, 0.0, 10_000.0),  # of the initial velocities
    "seed": (1, 0, 2**63 - 1),  # of the initial velocities
    "output_interval": (20, 1, 100_000_000),  # steps between two rows, frames and progress reports
    "epsilon_K": (119.8, 0.001, 1e5),  # depth of the potential, divided by the Boltzmann constant
    "sigma_A": (3.405, 0.1, 100.0),  # distance of zero potential
}
STRUCTURE_NAME = re.compile(r"(?!LGI_)([A-Za-z0-9_][A-Za-z0-9._+-]*/)*[A-Za-z0-9][A-Za-z0-9._+-]*\.xyz", re.ASCII)
WHOLE = re.compile(r"[+-]?\d{1,30}", re.ASCII)
DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,5})?", re.ASCII)
MOST_ATOMS, FARTHEST = 2000, 1e4  # atoms; Å

Axis = list[float]


class InputError(Exception):
    """Mistakes in the input; its arguments are one line each, with the file and the line where it has one."""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The checked contents of LGI_input, in the units that the names say."""

    structure: str
    steps: int
    timestep_fs: float
    temperature_K: float
    seed: int
    output_interval: int
    epsilon_K: float
    sigma_A: float


def lines_of(path: Path) -> list[str]:
    """Give the lines of a text file (UTF-8); raises InputError when it cannot be read as one."""
    try:
        return path.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not a text file ({error.reason} at byte {error.start + 1})") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def read_parameters(path: Path) -> Parameters:
    """Read and check the parameters; raises InputError with every mistake."""
    mistakes: list[str] = []
    first: dict[str, int] = {}
    numbers = {key: default for key, (default, _, _) in PARAMETERS.items()}
    structure = "argon.xyz"
    for number, line in enumerate(lines_of(path), 1):
        text = line.partition("#")[0].strip()
        key, equals, value = (part.strip() for part in text.partition("="))
        where = f"{path} line {number}: "
        if not text:
            continue
        if not equals:
            mistakes.append(f"{where}'{text}' is not of the form key = value")
        elif key in first:
            mistakes.append(f"{where}{key} was given already in line {first[key]}")
        elif key == "structure":
            structure = value
            if not STRUCTURE_NAME.fullmatch(value) or value in (TRAJECTORY.name, FINAL.name):
                mistakes.append(
                    f"{where}structure = {value}: must be the name of a file, with its directories if it is in any, "
                    "of letters, digits and . _ + - that ends in .xyz, not beginning with LGI_ and other than "
                    f"{TRAJECTORY} and {FINAL}"
                )
        elif key not in PARAMETERS:
            mistakes.append(f"{where}unknown key '{key}'; known are structure, {', '.join(PARAMETERS)}")
        else:
            default, low, high = PARAMETERS[key]
            whole = isinstance(default, int)
            if (WHOLE if whole else DECIMAL).fullmatch(value) and low <= type(default)(value) <= high:
                numbers[key] = type(default)(value)
            else:
                kind = "whole number" if whole else "number"
                mistakes.append(f"{where}{key} = {value}: must be a {kind} from {low} to {high}")
        first.setdefault(key, number)
    if mistakes:
        raise InputError(*mistakes)
    return Parameters(structure=structure, **numbers)  # type: ignore[arg-type]  # whole ones are checked above


def read_structure(path: Path, sigma: float) -> tuple[Axis, Axis, Axis]:
    """Read argon atoms (Å) from an XYZ file: count, comment, then `Ar x y z` lines; raises InputError.

    At least two atoms, no two closer than half of sigma (Å), since forces there overflow any time step.
    """
    lines = lines_of(path)
    while lines and not lines[-1].strip():
        lines.pop()
    announced = lines[0].strip() if lines else ""
    if not WHOLE.fullmatch(announced) or not 2 <= int(announced) <= MOST_ATOMS:
        raise InputError(f"{path} line 1: '{announced}' must be the number of atoms, from 2 to {MOST_ATOMS}")
    count = int(announced)
    if len(lines) != count + 2:
        raise InputError(
            f"{path} line 1: announces {count} atoms, which makes {count + 2} lines, but the file has {len(lines)}"
        )
    axes: tuple[Axis, Axis, Axis] = ([], [], [])
    for number, line in enumerate(lines[2:], 3):
        fields = line.split()
        where = f"{path} line {number}: "
        if len(fields) != 4:
            raise InputError(f"{where}'{line.strip()}' is not of the form Ar x y z")
        if fields[0] != "Ar":
            raise InputError(f"{where}element '{fields[0]}': only argon (Ar) is known here")
        for axis, field in zip(axes, fields[1:], strict=True):
            if not DECIMAL.fullmatch(field) or not abs(float(field)) <= FARTHEST:
                raise InputError(f"{where}'{field}' must be a number from {-FARTHEST:g} to {FARTHEST:g} (Å)")
            axis.append(float(field))
    atoms = list(zip(*axes, strict=True))
    for i, here in enumerate(atoms):
        for j in range(i):
            if math.dist(here, atoms[j]) < 0.5 * sigma:
                distance = f"{math.dist(here, atoms[j]):.4g} Å from the atom in line {j + 3}"
                raise InputError(f"{path} line {i + 3}: {distance}: closer than half of sigma_A")
    return axes


class Cluster:
    """Positions x, y, z (Å), velocities u, v, w (Å/fs), forces fx, fy, fz (eV/Å) and the potential energy (eV)."""

    def __init__(self, axes: tuple[Axis, Axis, Axis], epsilon: float, sigma: float) -> None:
        """Place the atoms at rest; epsilon in eV, sigma in Å."""
        self.x, self.y, self.z = (list(axis) for axis in axes)
        self.u, self.v, self.w = ([0.0] * len(self.x) for _ in range(3))
        self.epsilon, self.sigma = epsilon, sigma
        self.freedom = 3 * len(self.x) - 3 - (2 if len(self.x) == 2 else 3)  # without translation and rotation
        self.update_forces()

    def update_forces(self) -> None:
        """Calculate forces and potential energy from the positions; each pair once, so that forces add up to zero."""
        x, y, z, count = self.x, self.y, self.z, len(self.x)
        fx, fy, fz = [0.0] * count, [0.0] * count, [0.0] * count
        square, scale = self.sigma**2, 48.0 * self.epsilon / self.sigma**2
        total = 0.0
        for i in range(count - 1):
            xi, yi, zi = x[i], y[i], z[i]
            gx = gy = gz = 0.0
            k = i + 1
            for j, xj, yj, zj in zip(range(k, count), x[k:], y[k:], z[k:]):  # noqa: B905  strict costs time here
                dx = xi - xj
                dy = yi - yj
                dz = zi - zj
                s2 = square / (dx * dx + dy * dy + dz * dz)
                s6 = s2 * s2 * s2
                total += s6 * (s6 - 1.0)
                f = scale * s6 * (s6 - 0.5) * s2
                dx *= f
                dy *= f
                dz *= f
                gx += dx
                gy += dy
                gz += dz
                fx[j] -= dx
                fy[j] -= dy
                fz[j] -= dz
            fx[i] += gx
            fy[i] += gy
            fz[i] += gz
        self.fx, self.fy, self.fz, self.potential = fx, fy, fz, 4.0 * self.epsilon * total

    def step(self, timestep: float) -> None:
        """Advance by one velocity Verlet step of so many fs (negative: back in time)."""
        self._kick(0.5 * timestep / MASS)
        self.x = [a + timestep * b for a, b in zip(self.x, self.u, strict=True)]
        self.y = [a + timestep * b for a, b in zip(self.y, self.v, strict=True)]
        self.z = [a + timestep * b for a, b in zip(self.z, self.w, strict=True)]
        self.update_forces()
        self._kick(0.5 * timestep / MASS)

    def _kick(self, factor: float) -> None:
        self.u = [a + factor * b for a, b in zip(self.u, self.fx, strict=True)]
        self.v = [a + factor * b for a, b in zip(self.v, self.fy, strict=True)]
        self.w = [a + factor * b for a, b in zip(self.w, self.fz, strict=True)]

    def kinetic(self) -> float:
        """Give the kinetic energy in eV."""
        return 0.5 * MASS * sum(a * a for axis in (self.u, self.v, self.w) for a in axis)

    def temperature(self) -> float:
        """Give the temperature in K that belongs to the kinetic energy of the vibrations."""
        return 2.0 * self.kinetic() / (self.freedom * BOLTZMANN)

    def heat(self, temperature: float, seed: int) -> None:
        """Draw Maxwell velocities, remove total momentum and angular momentum, and scale to the temperature (K)."""
        draw = random.Random(seed)  # noqa: S311  reproducible, not secret
        width = math.sqrt(BOLTZMANN * temperature / MASS)
        self.u, self.v, self.w = ([draw.gauss(0.0, width) for _ in self.x] for _ in range(3))
        self.stop_drift_and_rotation()
        now = self.temperature()
        factor = math.sqrt(temperature / now) if now > 0.0 else 0.0
        self.u, self.v, self.w = ([factor * a for a in axis] for axis in (self.u, self.v, self.w))

    def centred(self) -> list[tuple[float, float, float]]:
        """Give the positions relative to the centre of mass."""
        cx, cy, cz = (sum(axis) / len(axis) for axis in (self.x, self.y, self.z))
        return [(x - cx, y - cy, z - cz) for x, y, z in zip(self.x, self.y, self.z, strict=True)]

    def angular_momentum(self) -> Axis:
        """Give the angular momentum around the centre of mass, divided by the mass of an atom (Å²/fs)."""
        rows = [
            (y * w - z * v, z * u - x * w, x * v - y * u)
            for (x, y, z), u, v, w in zip(self.centred(), self.u, self.v, self.w, strict=True)
        ]
        return [sum(column) for column in zip(*rows, strict=True)]

    def stop_drift_and_rotation(self) -> None:
        """Take the mean velocity and the rigid rotation out of the velocities."""
        self.u, self.v, self.w = ([a - sum(axis) / len(axis) for a in axis] for axis in (self.u, self.v, self.w))
        places = self.centred()
        inertia = [[0.0] * 3 for _ in range(3)]
        for place in places:
            square = sum(a * a for a in place)
            for i in range(3):
                for j in range(3):
                    inertia[i][j] += (square if i == j else 0.0) - place[i] * place[j]
        p, q, r = solve(inertia, self.angular_momentum())
        self.u = [a - (q * z - r * y) for a, (x, y, z) in zip(self.u, places, strict=True)]
        self.v = [a - (r * x - p * z) for a, (x, y, z) in zip(self.v, places, strict=True)]
        self.w = [a - (p * y - q * x) for a, (x, y, z) in zip(self.w, places, strict=True)]


def solve(matrix: list[Axis], right: Axis) -> Axis:
    """Solve three linear equations by elimination; directions without inertia (atoms in a line) get 0."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    smallest = 1e-9 * max(abs(a) for row in matrix for a in row)
    pivots: dict[int, list[float]] = {}
    while rows:
        left = [k for k in range(3) if k not in pivots]
        size, place, column = max((abs(row[k]), i, k) for i, row in enumerate(rows) for k in left)
        if size <= smallest:
            break
        row = rows.pop(place)
        pivot = [a / row[column] for a in row]
        rows = [[a - other[column] * b for a, b in zip(other, pivot, strict=True)] for other in rows]
        pivots = {k: [a - old[column] * b for a, b in zip(old, pivot, strict=True)] for k, old in pivots.items()}
        pivots[column] = pivot
    return [pivots[k][3] if k in pivots else 0.0 for k in range(3)]


def write_whole(path: Path, text: str, *, durable: bool) -> None:
    """Replace a file in one move, so that nobody ever sees half of it; durable: also after a power cut."""
    new = Path(f".{path.name}.new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    new.replace(path)


def frame(cluster: Cluster, comment: str) -> str:
    """Give the positions in XYZ format."""
    atoms = zip(cluster.x, cluster.y, cluster.z, strict=True)
    return f"{len(cluster.x)}\n{comment}\n" + "".join(f"Ar {x:.8f} {y:.8f} {z:.8f}\n" for x, y, z in atoms)


def digest(path: Path) -> str:
    """Give the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run(parameters: Parameters, cluster: Cluster) -> None:
    """Calculate and write the results; raises ArithmeticError, OSError.

    The run is given up when the total energy has changed by more than epsilon for each atom.
    """
    started = time.monotonic()
    FINAL.unlink(missing_ok=True)  # of a run that was interrupted
    steps, timestep = parameters.steps, parameters.timestep_fs
    cluster.heat(parameters.temperature_K, parameters.seed)
    energy = cluster.kinetic() + cluster.potential
    worst, warmth, rows = 0.0, 0.0, 0
    with ENERGIES.open("w", encoding="utf-8") as table, TRAJECTORY.open("w", encoding="utf-8") as trajectory:
        table.write("step,time_fs,kinetic_eV,potential_eV,total_eV,temperature_K\n")
        for step in range(steps + 1):
            if step:
                cluster.step(timestep)
            if step % parameters.output_interval and step != steps:
                continue
            kinetic, temperature, now = cluster.kinetic(), cluster.temperature(), step * timestep
            total = kinetic + cluster.potential
            if not abs(total - energy) <= len(cluster.x) * cluster.epsilon:  # not a number comes here too
                raise ArithmeticError(
                    f"step {step}: the total energy went from {energy:.6g} to {total:.6g} eV: "
                    "use a smaller timestep_fs"
                )
            worst, warmth, rows = max(worst, abs(total - energy)), warmth + temperature, rows + 1
            table.write(f"{step},{now:.6g},{kinetic:.12g},{cluster.potential:.12g},{total:.12g},{temperature:.8g}\n")
            comment = f"step={step} time_fs={now:.6g} potential_eV={cluster.potential:.10g} total_eV={total:.10g}"
            trajectory.write(frame(cluster, comment))
            for file in (table, trajectory):
                file.flush()
                if step == steps:
                    os.fsync(file.fileno())
            if step == steps:
                write_whole(FINAL, frame(cluster, comment), durable=True)
            summary = (
                f"Lennard-Jones molecular dynamics of Ar{len(cluster.x)} from {parameters.structure}\n"
                f"{'finished' if step == steps else 'running'}: step {step} of {steps}, {now / 1000:.6g} ps "
                f"simulated in {time.monotonic() - started:.1f} s\n"
                f"temperature: {temperature:.3f} K now, {warmth / rows:.3f} K on average\n"
                f"total energy: {total:.9f} eV, drift {total - energy:+.3e} eV, at most {worst:.3e} eV on the way\n"
            )
            if step == steps:
                # Whoever downloads the results can tell that they are these.
                summary += "".join(f"sha256 {digest(path)} {path}\n" for path in (ENERGIES, TRAJECTORY, FINAL))
            write_whole(OUTPUT, summary, durable=step == steps)


def fail(reason: str, status: int) -> int:
    """Leave a reason in LGI_output and on standard error, and give the exit status."""
    print(reason, file=sys.stderr)
    try:
        write_whole(OUTPUT, reason + "\n", durable=True)
    except OSError as error:
        print(f"{OUTPUT}: {error.strerror}", file=sys.stderr)
    return status


def main(arguments: list[str]) -> int:
    """Run in the current directory and give the exit status."""
    if arguments not in ([], ["--structure"]):
        print("usage: lj_md.py [--structure], in a directory with LGI_input", file=sys.stderr)
        return 2
    try:
        parameters = read_parameters(INPUT)
        if arguments:
            print(parameters.structure)
            return 0
        if REFUSAL.exists():
            raise InputError(*lines_of(REFUSAL))
        axes = read_structure(Path(parameters.structure), parameters.sigma_A)
        cluster = Cluster(axes, parameters.epsilon_K * BOLTZMANN, parameters.sigma_A)
        run(parameters, cluster)
    except InputError as error:
        return fail("lj_md did not start:\n" + "\n".join(f"  {line}" for line in error.args), 2)
    except ArithmeticError as error:
        return fail(f"lj_md failed: {error}", 1)
    except OSError as error:
        return fail(f"lj_md failed: {error.filename or 'writing results'}: {error.strerror}", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
