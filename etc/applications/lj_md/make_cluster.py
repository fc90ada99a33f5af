#!/usr/bin/env python3
"""Make argon38.xyz: the truncated octahedron of 38 argon atoms, cut from the fcc lattice and relaxed.

Prints an XYZ file. The relaxation is molecular dynamics that stops whenever it runs uphill, until no force exceeds
1e-9 eV/Å. The energy can be compared with the published global minimum of LJ38, -173.928427 epsilon.
"""

import sys

from lj_md import BOLTZMANN, PARAMETERS, Cluster, frame

NEIGHBOURS = 1.1  # distance of nearest neighbours in sigma before the relaxation
RESIDUE = 1e-9  # eV/Å


def truncated_octahedron(sigma: float) -> tuple[list[float], list[float], list[float]]:
    """Give the 38 fcc sites (Å) around an octahedral hole with |x|+|y|+|z| <= 3 steps, without the six corners."""
    step = NEIGHBOURS * sigma / 2**0.5
    around = range(-2, 3)
    sites = [
        (step * i, step * j, step * k)
        for i in around
        for j in around
        for k in around
        if (i + j + k) % 2 and abs(i) + abs(j) + abs(k) <= 3
    ]
    x, y, z = (list(axis) for axis in zip(*sites, strict=True))
    return x, y, z


def relax(cluster: Cluster) -> int:
    """Move the atoms to the nearest minimum of the energy and give the number of steps that it took."""
    timestep = 20.0
    for number in range(1, 100_000):
        forces = (*cluster.fx, *cluster.fy, *cluster.fz)
        if max(abs(force) for force in forces) < RESIDUE:
            return number
        velocities = (*cluster.u, *cluster.v, *cluster.w)
        if sum(a * b for a, b in zip(velocities, forces, strict=True)) < 0.0:
            cluster.u, cluster.v, cluster.w = ([0.0] * len(cluster.x) for _ in range(3))
        cluster.step(timestep)
    raise ArithmeticError("the relaxation did not come to an end")


def main() -> None:
    """Print the relaxed structure."""
    kelvin, sigma = PARAMETERS["epsilon_K"][0], PARAMETERS["sigma_A"][0]
    cluster = Cluster(truncated_octahedron(sigma), kelvin * BOLTZMANN, sigma)
    steps = relax(cluster)
    energy = cluster.potential / cluster.epsilon
    sys.stdout.write(
        frame(
            cluster,
            f"Ar38, fcc truncated octahedron (Oh), made and relaxed by make_cluster.py: {steps} steps to forces "
            f"below {RESIDUE:g} eV/A; epsilon/kB {kelvin} K, sigma {sigma} A, energy {energy:.6f} epsilon",
        )
    )


if __name__ == "__main__":
    main()
