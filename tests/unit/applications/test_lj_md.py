"""The molecular dynamics of etc/applications/lj_md: its physics, its input, and the program in a job directory."""

import csv
import importlib.util
import itertools
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

HERE = Path(__file__).parents[3] / "etc" / "applications" / "lj_md"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lj_md", HERE / "lj_md.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


lj_md = load()
SIGMA = 3.405
EPSILON = 119.8 * 8.617333262e-5


def argon38() -> Any:
    return lj_md.Cluster(lj_md.read_structure(HERE / "argon38.xyz", SIGMA), EPSILON, SIGMA)


def total(cluster: Any) -> float:
    return float(cluster.kinetic() + cluster.potential)


class ForceTests(SynchronousTestCase):
    def test_two_atoms_follow_the_analytic_derivative(self) -> None:
        for distance in (3.0, 3.405, 3.7, 3.8219, 4.5, 9.0):
            # along a direction that has all three components, of length 1
            cluster = lj_md.Cluster(
                ([1.0, 1.0 + distance * 2 / 7], [2.0, 2.0 - distance * 3 / 7], [0.0, distance * 6 / 7]),
                EPSILON,
                SIGMA,
            )
            ratio = (SIGMA / distance) ** 6
            slope = 4 * EPSILON * (-12 * ratio**2 + 6 * ratio) / distance
            self.assertApproximates(cluster.potential, 4 * EPSILON * (ratio**2 - ratio), 1e-14)
            for axis, share in ((cluster.fx, 2 / 7), (cluster.fy, -3 / 7), (cluster.fz, 6 / 7)):
                self.assertApproximates(axis[0], slope * share, 1e-12)
                self.assertEqual(axis[1], -axis[0])

    def test_forces_of_a_cluster_are_the_slopes_of_its_energy(self) -> None:
        cluster = argon38()
        cluster.heat(60.0, 1)
        for _ in range(20):
            cluster.step(10.0)
        delta = 1e-4
        for axis, forces in ((cluster.x, cluster.fx), (cluster.y, cluster.fy), (cluster.z, cluster.fz)):
            force, energies = forces[5], []
            for shift in (-delta, 2 * delta):
                axis[5] += shift
                cluster.update_forces()
                energies.append(cluster.potential)
            axis[5] -= delta
            self.assertApproximates(force, (energies[0] - energies[1]) / (2 * delta), 1e-8)

    def test_example_structure_has_the_published_energy_of_the_global_minimum(self) -> None:
        cluster = argon38()
        self.assertApproximates(cluster.potential / EPSILON, -173.928427, 2e-6)
        self.assertLess(max(abs(f) for axis in (cluster.fx, cluster.fy, cluster.fz) for f in axis), 1e-7)


class MotionTests(SynchronousTestCase):
    def test_initial_velocities_have_the_temperature_and_neither_drift_nor_rotation(self) -> None:
        cluster = argon38()
        cluster.heat(45.0, 3)
        self.assertApproximates(cluster.temperature(), 45.0, 1e-9)
        self.assertApproximates(cluster.kinetic(), (3 * 38 - 6) / 2 * 8.617333262e-5 * 45.0, 1e-12)
        for axis in (cluster.u, cluster.v, cluster.w):
            self.assertApproximates(sum(axis), 0.0, 1e-15)
        for component in cluster.angular_momentum():
            self.assertApproximates(component, 0.0, 1e-13)

    def test_seed_decides_the_velocities(self) -> None:
        one, same, other = argon38(), argon38(), argon38()
        one.heat(45.0, 3)
        same.heat(45.0, 3)
        other.heat(45.0, 4)
        self.assertEqual(one.u, same.u)
        self.assertNotEqual(one.u, other.u)

    def test_atoms_in_a_line_only_vibrate(self) -> None:
        for axes in (([0.0, 0.0], [1.0, 1.0], [0.0, 4.0]), ([0.0, 3.0, 6.0], [0.0, 2.0, 4.0], [0.0, 1.0, 2.0])):
            cluster = lj_md.Cluster(axes, EPSILON, SIGMA)
            cluster.heat(20.0, 1)
            self.assertApproximates(cluster.temperature(), 20.0, 1e-9)
            for component in cluster.angular_momentum():
                self.assertApproximates(component, 0.0, 1e-13)

    def test_momentum_and_angular_momentum_stay_zero(self) -> None:
        cluster = argon38()
        cluster.heat(60.0, 1)
        for _ in range(500):
            cluster.step(5.0)
        speed = max(abs(a) for a in cluster.u)
        for axis in (cluster.u, cluster.v, cluster.w):
            self.assertApproximates(sum(axis), 0.0, 1e-11 * speed)
        for component in cluster.angular_momentum():
            self.assertApproximates(component, 0.0, 1e-9 * speed)

    def test_energy_error_is_small_and_of_second_order(self) -> None:
        errors = []
        for timestep, steps in ((10.0, 250), (5.0, 500), (2.5, 1000)):
            cluster = argon38()
            cluster.heat(40.0, 1)
            start, worst = total(cluster), 0.0
            for _ in range(steps):
                cluster.step(timestep)
                worst = max(worst, abs(total(cluster) - start))
            errors.append(worst)
        self.assertLess(errors[0], 1e-3 * EPSILON * 38)
        for coarse, fine in itertools.pairwise(errors):
            self.assertGreater(coarse / fine, 3.5)
            self.assertLess(coarse / fine, 4.5)

    def test_two_atoms_vibrate_with_the_period_of_the_si_units(self) -> None:
        minimum = 2 ** (1 / 6) * SIGMA
        cluster = lj_md.Cluster(([0.0, 0.0], [0.0, 0.0], [0.0, minimum + 1e-4]), EPSILON, SIGMA)
        stretch, crossings, timestep = 1e-4, [], 0.5
        for step in range(1, 4000):
            cluster.step(timestep)
            before, stretch = stretch, cluster.z[1] - cluster.z[0] - minimum
            if before * stretch < 0:
                crossings.append(timestep * (step - stretch / (stretch - before)))
        stiffness = 72 * 119.8 * 1.380649e-23 / (2 ** (1 / 3) * (SIGMA * 1e-10) ** 2)  # N/m, of the minimum
        reduced_mass = 39.948 * 1.66053906660e-27 / 2  # kg
        period = 2 * math.pi * math.sqrt(reduced_mass / stiffness) * 1e15  # fs
        self.assertApproximates(crossings[2] - crossings[0], period, 1e-4 * period)

    def test_motion_is_reversible(self) -> None:
        cluster = argon38()
        cluster.heat(40.0, 1)
        axes, velocities = (cluster.x, cluster.y, cluster.z), (cluster.u, cluster.v, cluster.w)
        for _ in range(200):
            cluster.step(5.0)
        moved = max(abs(a - b) for a, b in zip(cluster.x, axes[0], strict=True))
        self.assertGreater(moved, 0.1)
        cluster.u, cluster.v, cluster.w = ([-a for a in axis] for axis in (cluster.u, cluster.v, cluster.w))
        for _ in range(200):
            cluster.step(5.0)
        for axis, old in zip((cluster.x, cluster.y, cluster.z), axes, strict=True):
            self.assertLess(max(abs(a - b) for a, b in zip(axis, old, strict=True)), 1e-9)
        for axis, old in zip((cluster.u, cluster.v, cluster.w), velocities, strict=True):
            self.assertLess(max(abs(a + b) for a, b in zip(axis, old, strict=True)), 1e-12)


class JobDirectory(SynchronousTestCase):
    """A temporary job directory with the program in it, copied alone under its name there."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.directory = Path(temporary.name)
        script = self.directory / "LGI_job_run_script"
        script.write_bytes((HERE / "lj_md.py").read_bytes())
        script.chmod(0o755)

    def run_script(self, text: str | bytes, *arguments: str, **structures: str) -> subprocess.CompletedProcess[str]:
        (self.directory / "LGI_input").write_bytes(text if isinstance(text, bytes) else text.encode())
        for name, content in structures.items():
            (self.directory / f"{name}.xyz").write_text(content)
        return subprocess.run(
            ["./LGI_job_run_script", *arguments],
            cwd=self.directory,
            env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "LANG": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )

    @property
    def output(self) -> str:
        return (self.directory / "LGI_output").read_text(encoding="utf-8")

    def names(self) -> set[str]:
        return {path.name for path in self.directory.iterdir()}


class ProgramTests(JobDirectory):
    def test_whole_run(self) -> None:
        text = "structure = argon38.xyz\nsteps = 205 # odd\noutput_interval=50\n\ntemperature_K = 40\nseed=2\n"
        done = self.run_script(text, argon38=(HERE / "argon38.xyz").read_text())
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        with (self.directory / "energies.csv").open(newline="") as file:
            rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
        self.assertEqual([row["step"] for row in rows], [0, 50, 100, 150, 200, 205])
        self.assertEqual(rows[-1]["time_fs"], 1025.0)
        self.assertApproximates(rows[0]["temperature_K"], 40.0, 1e-6)
        for row in rows:
            self.assertApproximates(row["kinetic_eV"] + row["potential_eV"], row["total_eV"], 1e-10)
            self.assertApproximates(row["total_eV"], rows[0]["total_eV"], 1e-3 * EPSILON * 38)
            self.assertApproximates(row["temperature_K"], 2 * row["kinetic_eV"] / 108 / 8.617333262e-5, 1e-5)
        frames = (self.directory / "trajectory.xyz").read_text().splitlines(keepends=True)
        self.assertEqual(len(frames), len(rows) * 40)
        self.assertEqual((self.directory / "final.xyz").read_text(), "".join(frames[-40:]))
        # the final structure can be read again and has the energy of the last row
        final = lj_md.Cluster(lj_md.read_structure(self.directory / "final.xyz", SIGMA), EPSILON, SIGMA)
        self.assertApproximates(final.potential, rows[-1]["potential_eV"], 1e-8)
        self.assertIn("Ar38 from argon38.xyz\nfinished: step 205 of 205, 1.025 ps", self.output)
        self.assertEqual(
            self.names(),
            {
                "LGI_input",
                "LGI_job_run_script",
                "LGI_output",
                "argon38.xyz",
                "energies.csv",
                "trajectory.xyz",
                "final.xyz",
            },
        )

    def test_output_shows_progress_while_it_runs(self) -> None:
        (self.directory / "LGI_input").write_text("structure = argon38.xyz\nsteps = 10000000\noutput_interval = 1\n")
        (self.directory / "argon38.xyz").write_bytes((HERE / "argon38.xyz").read_bytes())
        (self.directory / "final.xyz").write_text("of an interrupted run")
        process = subprocess.Popen([sys.executable, "LGI_job_run_script"], cwd=self.directory)
        try:
            seen = ""
            while "step 3" not in seen:
                self.assertIsNone(process.poll())
                if (self.directory / "LGI_output").exists():
                    seen = self.output
                    self.assertRegex(seen, r"(?s)^Lennard-Jones.*running: step \d+ of 10000000, .*on the way\n$")
            self.assertGreater((self.directory / "energies.csv").read_text().count("\n"), 3)
            self.assertNotIn("final.xyz", self.names())
        finally:
            process.kill()
            process.wait()

    def test_same_input_gives_same_results(self) -> None:
        results = []
        for _ in range(2):
            self.run_script("steps=40", argon=(HERE / "argon38.xyz").read_text())
            results.append([(self.directory / name).read_bytes() for name in ("energies.csv", "final.xyz")])
        self.assertEqual(results[0], results[1])

    def test_too_long_time_step_is_reported(self) -> None:
        done = self.run_script("timestep_fs=100\ntemperature_K=9000\n", argon=(HERE / "argon38.xyz").read_text())
        self.assertEqual(done.returncode, 1)
        self.assertRegex(
            self.output, r"^lj_md failed: step \d+: the total energy went .* use a smaller timestep_fs\n$"
        )
        self.assertNotIn("final.xyz", self.names())

    def test_structure_option(self) -> None:
        self.assertEqual(self.run_script("steps = 3", "--structure").stdout, "argon.xyz\n")
        self.assertEqual(self.run_script("structure = a.b-1.xyz", "--structure").stdout, "a.b-1.xyz\n")
        self.assertNotIn("LGI_output", self.names())
        self.assertEqual(self.run_script("steps = x", "--structure").returncode, 2)
        self.assertEqual(self.run_script("steps = 3", "--other").returncode, 2)


class BadInputTests(JobDirectory):
    def refused(self, text: str | bytes, *lines: str, **structures: str) -> None:
        """Check that the run gives exactly these lines as reason, and has no results."""
        done = self.run_script(text, **structures)
        self.assertEqual(done.returncode, 2)
        self.assertEqual(self.output, "lj_md did not start:\n" + "".join(f"  {line}\n" for line in lines))
        self.assertEqual(done.stderr, self.output)
        self.assertEqual(self.names() & {"energies.csv", "trajectory.xyz", "final.xyz"}, set())

    def test_every_mistake_in_the_parameters_is_listed(self) -> None:
        self.refused(
            "steps = -5\nstepz = 3\n# fine\ntimestep_fs = nan\nseed 4\nseed = 4\nseed = 5\ntemperature_K =\n"
            "sigma_A = 1e999\noutput_interval = 1.5\n",
            "LGI_input line 1: steps = -5: must be a whole number from 1 to 100000000",
            "LGI_input line 2: unknown key 'stepz'; known are structure, steps, timestep_fs, temperature_K, seed, "
            "output_interval, epsilon_K, sigma_A",
            "LGI_input line 4: timestep_fs = nan: must be a number from 0.001 to 100.0",
            "LGI_input line 5: 'seed 4' is not of the form key = value",
            "LGI_input line 7: seed was given already in line 6",
            "LGI_input line 8: temperature_K = : must be a number from 0.0 to 10000.0",
            "LGI_input line 9: sigma_A = 1e999: must be a number from 0.1 to 100.0",
            "LGI_input line 10: output_interval = 1.5: must be a whole number from 1 to 100000000",
        )

    def test_structure_names_stay_in_the_job_directory(self) -> None:
        for name in (
            "../argon.xyz",
            "/etc/passwd",
            "final.xyz",
            "trajectory.xyz",
            "LGI_a.xyz",
            "-a.xyz",
            ".a.xyz",
            "a b.xyz",
        ):
            self.refused(
                f"structure = {name}",
                f"LGI_input line 1: structure = {name}: must be the name of a file, with its directories if it is in "
                "any, of letters, digits and . _ + - that ends in .xyz, not beginning with LGI_ and other than "
                "trajectory.xyz and final.xyz",
            )

    def test_files_that_cannot_be_read(self) -> None:
        self.refused(b"steps = 1\n\xff\n", "LGI_input: is not a text file (invalid start byte at byte 11)")
        self.refused("", "argon.xyz: No such file or directory")

    def test_message_of_the_prologue(self) -> None:
        (self.directory / "prologue_message").write_text("argon.xyz: is not there\n")
        self.refused("", "argon.xyz: is not there", argon="2\n\nAr 0 0 0\nAr 0 0 4\n")

    def test_structures(self) -> None:
        for text, reason in (
            ("", "line 1: '' must be the number of atoms, from 2 to 2000"),
            ("two\n", "line 1: 'two' must be the number of atoms, from 2 to 2000"),
            ("1\n\nAr 0 0 0\n", "line 1: '1' must be the number of atoms, from 2 to 2000"),
            ("3\n\nAr 0 0 0\nAr 0 0 4\n", "line 1: announces 3 atoms, which makes 5 lines, but the file has 4"),
            (
                "2\n\nAr 0 0 0\nAr 0 0 4\nAr 0 0 8\n",
                "line 1: announces 2 atoms, which makes 4 lines, but the file has 5",
            ),
            ("2\n\nAr 0 0 0\nAr 0 nan 4\n", "line 4: 'nan' must be a number from -10000 to 10000 (Å)"),
            ("2\n\nAr 0 0 0\nAr 0 1e5 4\n", "line 4: '1e5' must be a number from -10000 to 10000 (Å)"),
            ("2\n\nAr 0 0 0\nAr 0 4\n", "line 4: 'Ar 0 4' is not of the form Ar x y z"),
            ("2\n\nNe 0 0 0\nAr 0 0 4\n", "line 3: element 'Ne': only argon (Ar) is known here"),
            ("2\n\nAr 0 0 0\nAr 0 0 1\n", "line 4: 1 Å from the atom in line 3: closer than half of sigma_A"),
        ):
            self.refused("", f"argon.xyz {reason}", argon=text)

    def test_reader_agrees_with_what_is_written(self) -> None:
        path = self.directory / "a.xyz"
        path.write_text("2\nany comment\nAr -1 2.5 1e-1\nAr 3. .5 4\n\n")
        axes = lj_md.read_structure(path, SIGMA)
        self.assertEqual(axes, ([-1.0, 3.0], [2.5, 0.5], [0.1, 4.0]))
