"""LGI_xml, LGI_csv, LGI_hash, LGI_binhex and LGI_hexbin."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis.strategies import binary

from lgi.tools import binhex, csv, hexbin, xml
from lgi.tools import hash as hash_tool
from lgi.tools.scan import find_all, unescape
from lgi.tools.streams import PIECE
from tests.unit.tools.case import Printed, ToolTestCase

LISTING = (
    '<repository_name> JOB_1 </repository_name> <file number="1"> <file_name> a b </file_name> <size> 3 </size> '
    "</file> <file number='2' kind=\"x y\"> <file_name> q&apos;&amp;uote.txt </file_name> </file> "
    "<file_name_not> no </file_name_not> <number_of_files> 2 </number_of_files>"
)


class Pieces(io.BytesIO):
    """Remembers how much is written at a time."""

    largest = 0

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.largest = max(self.largest, len(data))
        return len(data)


class SmallToolTests(ToolTestCase):
    """Files in, files out."""

    out: Printed
    err: Printed

    def run_on(self, tool: object, data: str | bytes, *words: str) -> tuple[int, bytes]:
        """The status of a tool and what it has written to a file."""
        Path("in").write_bytes(data.encode() if isinstance(data, str) else data)
        status: int = tool.run([*words, "-i", "in", "-o", "out"])  # type: ignore[attr-defined]
        return status, Path("out").read_bytes() if Path("out").exists() else b""

    def tearDown(self) -> None:
        for name in ("in", "out"):
            Path(name).unlink(missing_ok=True)

    def test_xml(self) -> None:
        for words, expected in (
            (("repository_name",), b"JOB_1\n"),
            (("number_of_files",), b"2\n"),
            (("file", 'number="1"'), b"<file_name> a b </file_name> <size> 3 </size>\n"),
            (("file", "number='2'"), b"<file_name> q&apos;&amp;uote.txt </file_name>\n"),
            (("file", "number=2", "kind=x y"), b"<file_name> q&apos;&amp;uote.txt </file_name>\n"),
            (("file_name",), b"a b\n"),
        ):
            self.assertEqual(self.run_on(xml, LISTING, *words), (0, expected), words)

    def test_xml_without_such_an_element(self) -> None:
        for words in (("nothing",), ("file", "number=3"), ("file", "number=2", "kind=z")):
            Path("out").write_text("of another time")
            self.assertEqual(self.run_on(xml, LISTING, *words), (1, b""), words)
        self.assertEqual(self.run_on(xml, "<a> begins", "a"), (1, b""))
        self.assertEqual(self.run_on(xml, "<a>  </a>", "a"), (1, b""))

    def test_xml_keeps_bytes_that_are_no_text(self) -> None:
        self.assertEqual(self.run_on(xml, b"<a> \xff\xfe\n b </a>", "a"), (0, b"\xff\xfe\n b\n"))

    def test_elements(self) -> None:
        text = "<ab> 0 </ab> <a\nx=1> 1 </a> <a> 2 </a>"
        self.assertEqual([one.content for one in find_all(text, "a")], [" 1 ", " 2 "])
        self.assertEqual(unescape("&amp;lt; &lt;&gt;&quot;&apos;"), "&lt; <>\"'")

    def test_csv(self) -> None:
        for words, expected in (
            ((), b"b c\na\nb c\n"),
            (("-n",), b"3\n"),
            (("-e", "2"), b"a\n"),
            (("-nl",), b"3\nb c\na\nb c\n"),
            (("-nle", "1"), b"3\nb c\na\nb c\nb c\n"),
        ):
            self.assertEqual(self.run_on(csv, " b c,, a ,b c\n", *words), (0, expected), words)
        self.assertEqual(self.run_on(csv, "a;b", "-s", ";", "-n"), (0, b"2\n"))
        self.assertEqual(self.run_on(csv, "", "x, y", "-e", "2"), (0, b"y\n"))

    def test_csv_without_such_an_item(self) -> None:
        self.assertEqual(self.run_on(csv, "a, b", "-e", "3"), (1, b""))
        for words in (["-e", "0"], ["-e", "x"], ["-nle", "-1"], ["-s", ""], ["-s", "ab"]):
            with self.assertRaises(SystemExit):
                csv.run(words)

    def test_hash(self) -> None:
        expected = hashlib.sha256(b"abc\n").hexdigest().upper().encode()
        self.assertEqual(self.run_on(hash_tool, b"abc\n"), (0, expected))

    def test_binhex_and_back(self) -> None:
        self.assertEqual(self.run_on(binhex, b"\x00aZ\xff"), (0, b"00615AFF"))
        self.assertEqual(self.run_on(hexbin, " 00 61\n5a FF\r\n"), (0, b"\x00aZ\xff"))

    def test_hexbin_refuses_what_is_no_hexadecimal(self) -> None:
        for data in ("0g", "abc", "00 é"):
            Path("out").write_text("of another time")
            self.assertEqual(self.run_on(hexbin, data), (1, b"of another time"), data)
        self.assertIn("odd number", self.err.text)
        self.assertEqual(self.err.text.count("\n"), 3)
        self.assertEqual([name for name in os.listdir() if name.endswith(".part")], [])

    @given(binary())
    def test_every_byte_comes_back(self, data: bytes) -> None:
        middle, end = io.BytesIO(), io.BytesIO()
        binhex.write_hex(io.BytesIO(data), middle)
        hexbin.write_bytes(io.BytesIO(middle.getvalue()), end)
        self.assertEqual(end.getvalue(), data)

    def test_an_odd_piece_does_not_matter(self) -> None:
        end = io.BytesIO()
        data = os.urandom(PIECE)
        hexbin.write_bytes(io.BytesIO(b" " + data.hex().encode()), end)
        self.assertEqual(end.getvalue(), data)

    def test_a_large_file_is_never_held(self) -> None:
        target = Pieces()
        with Path("sparse").open("w+b") as source:
            source.truncate(20 * PIECE)
            binhex.write_hex(source, target)
        self.assertEqual(target.largest, 2 * PIECE)

    def test_a_file_may_be_read_and_written_at_once(self) -> None:
        Path("both").write_bytes(b"abc")
        Path("both").chmod(0o640)
        self.assertEqual(binhex.run(["-i", "both", "-o", "both"]), 0)
        self.assertEqual(Path("both").read_bytes(), b"616263")
        self.assertEqual(stat.S_IMODE(Path("both").stat().st_mode), 0o640)

    def test_files_that_cannot_be_used(self) -> None:
        self.assertEqual(binhex.run(["-i", "missing"]), 1)
        Path("in").write_bytes(b"x")
        self.assertEqual(binhex.run(["-i", "in", "-o", "missing/out"]), 1)
        self.assertEqual(self.err.text.count("No such file or directory"), 2)
        self.assertEqual(binhex.run(["-i", "in", "-o", "/dev/full"]), 1)
        self.assertIn("No space left", self.err.text)

    def test_what_is_no_option(self) -> None:
        for run in (binhex.run, hexbin.run, hash_tool.run):
            with self.assertRaises(SystemExit):
                run(["file"])
        with self.assertRaises(SystemExit):
            xml.run([])


class PipeTests(ToolTestCase):
    """As job scripts call them."""

    def test_standard_input_and_output(self) -> None:
        script = (
            'tool() { name=$1; shift; "$PYTHON" -m lgi.tools.$name "$@"; }\n'
            "url=$(printf '<url> https://a/b </url>' | tool xml url) && echo \"$url\"\n"
            "printf abc | tool binhex | tool hexbin; tool csv -e 2 'a, b'; echo 0 | tool hexbin; echo $?\n"
        )
        root = Path(__file__).parents[3]
        result = subprocess.run(
            ["sh", "-c", script],
            capture_output=True,
            text=True,
            check=True,
            cwd=root,
            env={**os.environ, "PYTHON": sys.executable},
            timeout=60,
        )
        self.assertEqual(result.stdout, "https://a/b\nabcb\n1\n")
        self.assertIn("odd number", result.stderr)

    def test_they_import_nothing_that_takes_time(self) -> None:
        code = (
            "import sys, lgi.tools.xml, lgi.tools.csv, lgi.tools.hash, lgi.tools.binhex, lgi.tools.hexbin\n"
            "print([name for name in ('twisted', 'attr', 'lxml', 'click', 'argparse') if name in sys.modules])"
        )
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
        )
        self.assertEqual(result.stdout, "[]\n")

    def test_who_has_seen_enough_may_go(self) -> None:
        command = f"{sys.executable} -m lgi.tools.binhex -i /dev/zero | head -c 4"
        result = subprocess.run(
            ["sh", "-c", command],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[3],
            timeout=60,
        )
        self.assertEqual((result.stdout, result.stderr), ("0000", ""))
