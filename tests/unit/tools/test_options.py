"""Command lines of the tools."""

from __future__ import annotations

from lgi.tools import binhex, csv, filetransfer, hexbin, qdel, qstat, qsub, xml
from lgi.tools import hash as hash_tool
from lgi.tools.options import Option, Tool, UsageError
from tests.unit.tools.case import Printed, ToolTestCase

TOOL = Tool("LGI_thing", "[options] files", Option("-x", "write XML."), Option("-CA", "a file.", "cafile"))
# What the deployed tools know, from their own help; -x of qdel is what the document says of all four.
KNOWN = {
    qsub: "-h -x -a -t -s -i -r -w -c -j -K -C -CA -S -U -G -P -W -m",
    qstat: "-h -a -s -x -cnt -v -vv -l -L -c -P -S -U -G -W -K -C -CA",
    qdel: "-h -c -P -S -U -G -W -K -C -CA -x",
    filetransfer: "-h -x -c -j -W -K -C -CA",
    xml: "-h -i -o",
    csv: "-h -i -o -s -n -l -e -nl -nle",
    hash_tool: "-h -i -o",
    binhex: "-h -i -o",
    hexbin: "-h -i -o",
}


class OptionTests(ToolTestCase):
    """Words and what they mean."""

    out: Printed
    err: Printed

    def test_options_stand_anywhere(self) -> None:
        given = TOOL.parse(["one", "-x", "two words", "-CA", "-x", "three"])
        self.assertEqual(given.arguments, ["one", "two words", "three"])
        self.assertEqual(given.values, {"-CA": "-x"})
        self.assertEqual(given.switches, {"-x"})

    def test_the_last_value_counts(self) -> None:
        self.assertEqual(TOOL.parse(["-CA", "a", "-CA", "b"]).value("-CA"), "b")

    def test_after_two_dashes_nothing_is_an_option(self) -> None:
        given = TOOL.parse(["--", "-x", "--", "-"])
        self.assertEqual((given.arguments, given.switches), (["-x", "--", "-"], set()))

    def test_mistakes(self) -> None:
        for words in (["-y"], ["-xx"], ["-CA"], ["-C", "x"], ["--help"]):
            with self.assertRaises(UsageError):
                TOOL.parse(words)

    def test_a_mistake_is_one_line_on_standard_error(self) -> None:
        with self.assertRaises(SystemExit) as end:
            TOOL.given(["-y"])
        self.assertEqual(end.exception.code, 2)
        self.assertEqual(self.err.text, "LGI_thing: there is no option -y (LGI_thing -h tells what there is)\n")
        self.assertEqual(self.out.text, "")

    def test_the_help_is_laid_out_as_of_old(self) -> None:
        with self.assertRaises(SystemExit) as end:
            TOOL.given(["-h"])
        self.assertEqual(end.exception.code, 0)
        self.assertEqual(
            self.out.text,
            "\nLGI_thing [options] files\n\noptions:\n\n"
            "-h           show this help.\n-x           write XML.\n-CA cafile   a file.\n\n",
        )

    def test_every_option_of_the_deployed_tools_is_known(self) -> None:
        for module, names in KNOWN.items():
            known = {option.name for option in module.TOOL.options}
            self.assertLessEqual(set(names.split()), known, module.__name__)
            self.assertLessEqual(known - set(names.split()), {"-v", "-vv"}, module.__name__)
